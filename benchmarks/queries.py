"""What a query of a large collection reads and takes: ``python -m benchmarks.queries [--rows 1000000]``.

Rows of 10,000 places and ten years with one small header each, cut into parts as a build cuts them; no server and no pixels. For each
query: rows found, parts and row groups that are opened, bytes that are read from disk, wall and CPU seconds (the second of two runs, so
that code is warm; each run opens the collection anew).
"""

from __future__ import annotations

import argparse
import datetime as dt
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

import rasteret_dask as rd
from benchmarks.graph import rows as headers
from rasteret_dask.index import schema
from rasteret_dask.index.commit import Commit, write_commit
from rasteret_dask.index.dataset import TableView
from rasteret_dask.index.place import Place
from rasteret_dask.ingest.cut import cut
from rasteret_dask.ingest.parts import write_part
from rasteret_dask.ingest.records import Record
from rasteret_dask.model import BandInfo

BOX = (10.0, 40.0, 12.0, 42.0)
MONTH = ("2018-05-01", "2018-05-31")
QUERIES: dict[str, dict[str, Any]] = {
    "box and month": {"bbox": BOX, "date_range": MONTH},
    "box, month, clouds": {"bbox": BOX, "date_range": MONTH, "cloud_cover_lt": 20},
    "box": {"bbox": BOX},
    "month": {"date_range": MONTH},
}
DOCUMENT = {"name": "rows", "bands": [{"name": "B04", "asset": "red"}]}


def records(count: int) -> list[Record]:
    """Items at random times and places, in the order of a build's."""
    rng = np.random.default_rng(0)
    seconds = np.sort(rng.integers(0, 10 * 365 * 86_400, count))
    places = rng.permutation(np.arange(count) % 10_000)
    start = dt.datetime(2014, 1, 1)
    out = []
    for number, (second, place) in enumerate(zip(seconds.tolist(), places.tolist())):
        west, south = -170 + place % 100 * 3.3, -60 + place // 100 * 1.2
        box = {"xmin": west, "ymin": south, "xmax": west + 1.5, "ymax": south + 1.0}
        columns = {
            schema.DATETIME: start + dt.timedelta(seconds=second),
            schema.BBOX: box,
            schema.CLOUD_COVER: float(number * 7919 % 1000) / 10,
        }
        out.append(Record(f"item-{number:08d}", columns, None, ()))
    return out


def table(chosen: tuple[Record, ...], made: pa.Schema, header: Any) -> pa.Table:
    """Rows of a part, column by column: a million rows from Python's dictionaries take an hour."""
    times = pa.array([r.columns[schema.DATETIME] for r in chosen], schema.TIMESTAMP)
    boxes = [r.columns[schema.BBOX] for r in chosen]
    corners = np.array([tuple(box.values()) for box in boxes])
    same = pa.array(np.zeros(len(chosen), np.int64))
    asset = [{"B04": {"href": "https://example.com/B04.tif", "band_index": 0, "key": "red"}}]
    known = {
        schema.ID: pa.array([r.id for r in chosen]),
        schema.DATETIME: times,
        schema.YEAR: pc.year(times),
        schema.MONTH: pc.month(times),
        schema.BBOX: pa.array(boxes, schema.BBOX_TYPE),
        schema.GEOMETRY: pa.array(shapely.to_wkb(shapely.box(*corners.T))),
        schema.CLOUD_COVER: pa.array([r.columns[schema.CLOUD_COVER] for r in chosen]),
        schema.CRS: pa.array(["EPSG:32633"]).take(same),
        schema.ASSETS: pa.array(asset, made.field(schema.ASSETS).type).take(same),
        schema.band_column("B04"): header.take(same),
    }
    columns = [
        known[f.name].cast(f.type) if f.name in known else pa.nulls(len(chosen), f.type)
        for f in made
    ]
    return pa.Table.from_arrays(columns, schema=made)


def make(count: int, where: str) -> int:
    """A collection of so many rows; the number of its parts."""
    place, made = Place(where), schema.make_schema(["B04"], DOCUMENT)
    value = headers(1).column(schema.band_column("B04"))[0].as_py()
    few = {"tile_offsets": value["tile_offsets"][:4], "tile_byte_counts": value["tile_byte_counts"][:4]}  # fmt: skip
    header = pa.array([value | few | {"levels": []}], schema.BAND_TYPE)
    slices = cut(records(count), [BandInfo("B04", "red")], DOCUMENT)
    parts = tuple(write_part(place, s.key, table(s.records, made, header), {}) for s in slices)
    write_commit(
        place,
        Commit(
            1, "rows", "benchmark", {}, "data/00000001",
            {**DOCUMENT, "schema_version": schema.VERSION}, parts,
        ),
    )  # fmt: skip
    return len(parts)


def touched(found: rd.Collection) -> tuple[int, int]:
    """Parts that a query opens, and row groups that it reads."""
    view = found.view
    assert isinstance(view, TableView)
    dataset, where = view.dataset, view.filter
    parts = list(dataset.get_fragments(filter=where))
    groups = (f.split_by_row_group(where, dataset.schema) for f in parts)
    return len(parts), sum(len(g) for g in groups)


def read_bytes() -> int:
    """Bytes that this process has asked the system for."""
    with open("/proc/self/io") as account:
        return int(account.readline().split()[1])


def measure(where: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Each query, twice; the second time is given."""
    for name, how in QUERIES.items():
        for _ in range(2):
            collection = rd.load(where)
            before, wall, cpu = read_bytes(), time.perf_counter(), time.process_time()
            found = collection.subset(**how)
            held = found.to_table()
            took = time.perf_counter() - wall, time.process_time() - cpu
            fetched = read_bytes() - before
        parts, groups = touched(found)
        yield name, {
            "rows": len(held), "parts": parts, "row groups": groups, "MB": fetched / 1e6,
            "seconds": took[0], "CPU seconds": took[1],
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="queries-") as where:
        parts = make(options.rows, where)
        began = time.perf_counter()
        rd.load(where)
        print(f"{options.rows:,} rows in {parts} parts; opened in {time.perf_counter() - began:.2f} s")  # fmt: skip
        print("\n| query | rows | parts | row groups | MB read | seconds | CPU seconds |")
        print("|---|---|---|---|---|---|---|")
        for name, got in measure(where):
            counts = " | ".join(f"{got[k]:,}" for k in ("rows", "parts", "row groups"))
            sizes = " | ".join(f"{got[k]:.2f}" for k in ("MB", "seconds", "CPU seconds"))
            print(f"| {name} | {counts} | {sizes} |")


if __name__ == "__main__":
    main()
