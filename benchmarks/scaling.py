"""What opening, planning and building cost as collections grow: ``python -m benchmarks.scaling --page``.

Rows of generated headers (four bands of 121 tiles), no server and no pixels. Each number of rows is measured in a
process of its own, through the public interface alone:

- *build*: that many assets' headers (of one small local file) read into a collection (`build_from_table`); up to 10⁴
- *write*: a table of rows that have headers already onto disk (`Collection.export`)
- *load*: `rasteret_dask.load` and the number of rows
- *subset*: one week of it and its rows, headers included
- *one chunk*: a cube of that week's first 256² pixels, planned whole (its first chunk's task included)
- *open all*: a lazy cube of all rows × 4 bands and its graph; up to 10⁵ rows
- peak memory of the process after all of it
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from typing import Any

import pyarrow as pa

from benchmarks.run import PAGE, machine

PICTURE = PAGE.parent / "images" / "scaling.png"
STEPS = ("build", "write", "load", "subset", "one chunk", "open all")
BOX = (600_000.0, 5_397_440.0, 602_560.0, 5_400_000.0)
AT_ONCE = 1000


def table(count: int) -> pa.Table:
    """`count` rows; their headers repeat every thousand, their ids and dates do not."""
    import datetime as dt

    from benchmarks.graph import rows

    block = rows(min(count, AT_ONCE))
    parts = []
    for first in range(0, count, AT_ONCE):
        part = block.slice(0, min(AT_ONCE, count - first))
        stamps = [
            dt.datetime(2015, 7, 1) + dt.timedelta(minutes=30 * (first + k))
            for k in range(part.num_rows)
        ]
        names = [f"S2A_33UXP_{first + k:07d}_0_L2A" for k in range(part.num_rows)]
        for name, values in (("id", names), ("datetime", stamps)):
            place = part.schema.get_field_index(name)
            field = part.schema.field(name)
            part = part.set_column(place, field, pa.array(values, field.type))
        parts.append(part)
    return pa.concat_tables(parts)


def assets(count: int, where: str) -> pa.Table:
    """`count` records whose asset is always the same small file."""
    import numpy as np

    from rasteret_dask.testing.cog import make_cog

    path = f"{where}/small.tif"
    make_cog(path, np.arange(512 * 512, dtype="uint16").reshape(512, 512))
    return pa.table(
        {
            "id": [f"record-{k:07d}" for k in range(count)],
            "datetime": pa.array(
                [1_435_708_800_000_000 + 60_000_000 * k for k in range(count)],
                pa.timestamp("us", "UTC"),
            ),
            "href": [path] * count,
        }
    )


def build(records: pa.Table, name: str, where: str) -> Any:
    import rasteret_dask as rd

    return rd.build_from_table(
        records, name=name, workspace_dir=where, href_column="href", band_index_map={"B04": 0}
    )


def one(count: int, where: str) -> dict[str, float]:
    """All steps once; seconds by step, and bytes of peak memory."""
    import rasteret_dask as rd
    from benchmarks.child import peak_memory

    took: dict[str, float] = {}

    def clock(step: str, began: float) -> None:
        took[step] = time.perf_counter() - began

    # Imports and first calls are nobody's.
    rd.as_collection(table(2)).get_xarray(BOX, ["B04"], geometry_crs=32633)
    if count <= 10_000:
        records = assets(count, where)
        build(records.slice(0, 2), "warm", where)
        began = time.perf_counter()
        assert len(build(records, "built", where)) == count
        clock("build", began)
    made = rd.as_collection(table(count), name="rows")
    began = time.perf_counter()
    made.export(f"{where}/rows")
    clock("write", began)
    del made
    began = time.perf_counter()
    collection = rd.load(f"{where}/rows")
    assert len(collection) == count
    clock("load", began)
    began = time.perf_counter()
    week = collection.subset(date_range=("2015-07-05", "2015-07-12"))
    held = week.to_table()
    clock("subset", began)
    assert held.num_rows
    began = time.perf_counter()
    cube = week.get_xarray(BOX, ["B04"], geometry_crs=32633)
    dict(cube.B04.isel(time=slice(0, 1)).data.__dask_graph__())
    clock("one chunk", began)
    if count <= 100_000:
        began = time.perf_counter()
        whole = collection.get_xarray(bands=["B02", "B03", "B04", "B08"])
        assert whole.sizes["time"] == count
        clock("open all", began)
    return took | {"memory": float(peak_memory())}


def draw(results: dict[int, dict[str, float]]) -> None:
    """Seconds and memory over rows, both logarithmic, and a straight line to hold against them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    counts = sorted(results)
    for step in STEPS:
        have = [n for n in counts if step in results[n]]
        left.loglog(have, [results[n][step] for n in have], marker="o", label=step)
    last = results[counts[-1]]["write"]
    left.loglog(counts, [last * n / counts[-1] for n in counts], "k:", label="in proportion")
    left.set(xlabel="rows", ylabel="seconds")
    left.legend(fontsize=8)
    right.semilogx(counts, [results[n]["memory"] / 1e6 for n in counts], marker="o")
    right.set(xlabel="rows", ylabel="peak memory, MB", ylim=(0, None))
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=110)
    pyplot.close(figure)


def page(results: dict[int, dict[str, float]]) -> str:
    """A table in Markdown."""
    lines = ["| rows | " + " | ".join(STEPS) + " | peak MB |", "|---" * (len(STEPS) + 2) + "|"]
    for count, got in sorted(results.items()):
        cells = [f"{got[step]:.2f} s" if step in got else "–" for step in STEPS]
        lines.append(f"| {count:,} | " + " | ".join(cells) + f" | {got['memory'] / 1e6:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--page", action="store_true", help=f"write {PAGE.name} and {PICTURE.name}")
    options = parser.parse_args()
    if options.child:
        with tempfile.TemporaryDirectory(prefix="scaling-") as where:
            print(json.dumps(one(options.rows[0], where)))
        return
    results: dict[int, dict[str, Any]] = {}
    for count in options.rows:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.scaling", str(count), "--child"],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        results[count] = json.loads(done.stdout.splitlines()[-1])
        print(f"{count:9,d}", {k: round(v, 3) for k, v in results[count].items()}, flush=True)
    print(page(results))
    if options.page:
        begin, end = "<!-- scaling -->", "<!-- /scaling -->"
        text = PAGE.read_text(encoding="utf-8")
        head, _, rest = text.partition(begin)
        body = f"\n{machine()}; `python -m benchmarks.scaling`\n\n{page(results)}\n\n"
        body += "![Seconds and memory over rows](images/scaling.png)\n"
        PAGE.write_text(head + begin + body + end + rest.partition(end)[2], encoding="utf-8")
        draw(results)


if __name__ == "__main__":
    main()
