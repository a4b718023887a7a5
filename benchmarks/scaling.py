"""What building, opening and planning cost as collections grow: ``python -m benchmarks.scaling [ROWS ...] --page``.

Rows of generated headers (four bands of 121 tiles), no server and no pixels. Each number of rows is measured in a process of its own,
which holds no more of them than a part does unless a step says so:

- *build*: that many items, each one small local file, into a collection (`build_from_table`)
- *write*: parts of rows that have headers already, encoded and written, and their commit
- *load*: `rasteret_dask.load` and the number of rows
- *a week*: one week of it (336 rows) as a table, headers included
- *one chunk*: a cube of that week, planned whole, and the task of its first chunk
- *a box*: a month of the whole by place and time, as a table without headers
- *open all*: a lazy cube of all rows × 4 bands, whose headers are all in memory; up to 10⁵ rows

Seconds are CPU seconds of the process with all its threads, which other work on the machine does not change; walls stand beside them.
Memory is the peak of each step. The last line tells how each step grew over the last tenfold of rows: 10 is a straight line, 1 is
independent. A million rows take some 4 GB of disk while they are measured.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.run import PAGE, machine

PICTURE = PAGE.parent / "images" / "scaling.png"
STEPS = ("build", "write", "load", "a week", "one chunk", "a box", "open all")
BOX = (600_000.0, 5_397_440.0, 602_560.0, 5_400_000.0)
DOCUMENT = {
    "name": "rows",
    "bands": [{"name": b, "asset": b} for b in ("B02", "B03", "B04", "B08")],
}
START = dt.datetime(2015, 7, 1)
AT_ONCE = 1000
MOST_OPENED = 100_000

Took = dict[str, dict[str, float]]


def blocks(count: int, size: int) -> Iterator[pa.Table]:
    """`count` rows in pieces; their headers repeat every thousand, their ids and dates do not."""
    import numpy as np

    from benchmarks.graph import rows

    base = rows(min(count, AT_ONCE))
    for first in range(0, count, size):
        numbers = np.arange(first, min(first + size, count))
        part = base.take(pa.array(numbers % AT_ONCE))
        stamps = np.datetime64(START, "us") + numbers * np.timedelta64(30, "m")
        names = [f"S2A_33UXP_{k:07d}_0_L2A" for k in numbers.tolist()]
        for name, values in (("id", pa.array(names)), ("datetime", pa.array(stamps))):
            place = part.schema.get_field_index(name)
            part = part.set_column(place, part.schema.field(place), values)
        yield part


def write(count: int, where: str) -> None:
    """A collection of generated rows, as a build would write it."""
    from rasteret_dask.index.commit import Commit, write_commit
    from rasteret_dask.index.place import Place
    from rasteret_dask.index.schema import VERSION, make_schema
    from rasteret_dask.ingest.cut import slice_rows
    from rasteret_dask.ingest.parts import write_part

    bands = [band["name"] for band in DOCUMENT["bands"]]  # type: ignore[index]
    place, made = Place(where), make_schema(bands, DOCUMENT)
    pieces = enumerate(blocks(count, slice_rows(count, len(bands))))
    parts = tuple(
        write_part(place, f"{k:06d}-rows", part.replace_schema_metadata(made.metadata), {})
        for k, part in pieces
    )
    document = {**DOCUMENT, "schema_version": VERSION}
    write_commit(place, Commit(1, "rows", "benchmark", {}, "data/00000001", document, parts))


def records(count: int, where: str) -> pa.Table:
    """`count` items whose asset is always the same small file."""
    import numpy as np

    from rasteret_dask.testing.cog import make_cog

    path = f"{where}/small.tif"
    make_cog(path, np.arange(512 * 512, dtype="uint16").reshape(512, 512))
    stamps = np.datetime64(START, "us") + np.arange(count) * np.timedelta64(30, "m")
    return pa.table(
        {
            "id": [f"record-{k:07d}" for k in range(count)],
            "datetime": pa.array(stamps).cast(pa.timestamp("us", "UTC")),
            "href": pa.repeat(path, count),
        }
    )


def build(items: pa.Table, name: str, where: str) -> Any:
    import rasteret_dask as rd

    how: dict[str, Any] = {"href_column": "href", "band_index_map": {"B04": 0}}
    return rd.build_from_table(items, name=name, workspace_dir=where, **how)


@contextmanager
def step(took: Took, name: str) -> Iterator[None]:
    """Measure what is done inside."""
    from benchmarks.child import peak_memory

    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    took[name] = {
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "memory": float(peak_memory()),
    }


def one(count: int, where: str) -> Took:
    """All steps once."""
    import rasteret_dask as rd

    took: Took = {}
    rd.as_collection(next(blocks(2, 2))).get_xarray(BOX, ["B04"], geometry_crs=32633)
    items = records(count, where)
    build(items.slice(0, 2), "warm", where)  # imports and first calls are nobody's
    with step(took, "build"):
        assert len(build(items, "built", where)) == count
    del items
    with step(took, "write"):
        write(count, f"{where}/rows")
    with step(took, "load"):
        collection = rd.load(f"{where}/rows")
        assert len(collection) == count
    week = collection.subset(date_range=(START + dt.timedelta(4), START + dt.timedelta(11)))
    with step(took, "a week"):
        assert 336 <= week.to_table().num_rows <= 337
    with step(took, "one chunk"):
        cube = week.get_xarray(BOX, ["B04"], geometry_crs=32633)
        dict(cube.B04.isel(time=slice(0, 1)).data.__dask_graph__())
    month: dict[str, Any] = {"bbox": (16.5, 48.0, 17.0, 48.5), "date_range": "2015-07"}
    with step(took, "a box"):
        assert len(collection.subset(**month).to_table(["id", "datetime"])) == min(count, 31 * 48)
    if count <= MOST_OPENED:
        with step(took, "open all"):
            whole = collection.get_xarray(bands=["B02", "B03", "B04", "B08"])
            assert whole.sizes["time"] == count
    return took


def draw(results: dict[int, Took]) -> None:
    """Seconds and memory over rows, all logarithmic, and a straight line to hold against them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    counts = sorted(results)
    for axis, what, unit in ((axes[0], "cpu", 1.0), (axes[1], "memory", 1e6)):
        for name in STEPS:
            have = [n for n in counts if name in results[n]]
            values = [results[n][name][what] / unit for n in have]
            axis.loglog(have, values, marker="o", label=name)
    last = results[counts[-1]]["write"]["cpu"]
    axes[0].loglog(counts, [last * n / counts[-1] for n in counts], "k:", label="in proportion")
    axes[0].set(xlabel="rows", ylabel="CPU seconds")
    axes[1].set(xlabel="rows", ylabel="peak memory, MB")
    axes[0].legend(fontsize=8)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=110)
    pyplot.close(figure)


def page(results: dict[int, Took]) -> str:
    """A table in Markdown: CPU seconds (wall); peak memory."""
    counts = sorted(results)
    lines = ["| rows | " + " | ".join(STEPS) + " |", "|---" * (len(STEPS) + 1) + "|"]
    for count in counts:
        got = results[count]
        cells = [
            f"{got[n]['cpu']:.2f} s ({got[n]['wall']:.2f}); {got[n]['memory'] / 1e6:.0f} MB"
            if n in got
            else "–"
            for n in STEPS
        ]
        lines.append(f"| {count:,} | " + " | ".join(cells) + " |")
    if len(counts) > 1:
        lines.append("| over the last tenfold | " + " | ".join(_growth(results)) + " |")
    return "\n".join(lines)


def _growth(results: dict[int, Took]) -> Iterator[str]:
    for name in STEPS:
        have = [n for n in sorted(results) if name in results[n]][-2:]
        seconds = [results[n][name]["cpu"] for n in have]
        tenfold = len(have) == 2 and have[1] == 10 * have[0]
        yield f"× {seconds[1] / seconds[0]:.1f}" if tenfold else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    counts = [10**k for k in (3, 4, 5, 6)]
    parser.add_argument("rows", type=int, nargs="*", default=counts, help="10³ to 10⁶ by default")
    parser.add_argument("--folder", help="where rows are laid down; a temporary one by default")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--page", action="store_true", help=f"write {PAGE.name} and {PICTURE.name}")
    options = parser.parse_args()
    if options.child:
        # One acquisition in half an hour is no day of a satellite, and the reads say so.
        warnings.simplefilter("ignore")
        with tempfile.TemporaryDirectory(prefix="scaling-", dir=options.folder) as where:
            print(json.dumps(one(options.rows[0], where)))
        return
    results: dict[int, Took] = {}
    for count in options.rows:
        command = [sys.executable, "-m", "benchmarks.scaling", str(count), "--child"]
        command += ["--folder", options.folder] if options.folder else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results[count] = json.loads(done.stdout.splitlines()[-1])
        told = {name: round(got["cpu"], 3) for name, got in results[count].items()}
        print(f"{count:9,d} rows, CPU seconds: {told}", flush=True)
    print(page(results))
    if options.page:
        begin, end = "<!-- scaling -->", "<!-- /scaling -->"
        text = PAGE.read_text(encoding="utf-8")
        head, _, rest = text.partition(begin)
        body = f"\n{machine()}; `python -m benchmarks.scaling`\n\n{page(results)}\n\n"
        body += "![CPU seconds and memory over rows](images/scaling.png)\n"
        PAGE.write_text(head + begin + body + end + rest.partition(end)[2], encoding="utf-8")
        draw(results)


if __name__ == "__main__":
    main()
