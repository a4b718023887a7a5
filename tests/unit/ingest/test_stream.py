"""Tables that may be larger than memory: every row once, the same slices however the rows arrive, and memory that does not grow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import rasteret_dask as rd
from rasteret_dask.errors import ArgumentError, DuplicateItemError, EmptySelectionError
from rasteret_dask.ingest.build import Gathered, waves
from rasteret_dask.ingest.records import Links, Record, make_record
from rasteret_dask.ingest.stream import PIECE_ROWS, Rows, open_rows, survey
from rasteret_dask.ingest.table import TableSource
from rasteret_dask.model import BandInfo, StorageOptions
from rasteret_dask.testing.cog import make_cog

HOW = TableSource(href_column="href")
BANDS = [BandInfo("v", "data")]
COUNT = 3 * PIECE_ROWS + 17


def table(count: int = COUNT, seed: int = 1) -> pa.Table:
    order = np.random.default_rng(seed).permutation(count)
    start = datetime(2020, 1, 1, tzinfo=UTC)
    return pa.table(
        {
            "id": [f"i{k:06d}" for k in order],
            "datetime": pa.array([start + timedelta(hours=int(k)) for k in order]),
            "href": [f"/data/{k}.tif" for k in order],
            "mood": pa.array(order % 3),
        }
    )


def rows_of(given: Any, how: TableSource = HOW) -> Rows:
    return open_rows(given, how, StorageOptions())


class OnlyOnce:
    """A stream that cannot be read twice, in pieces of its own."""

    def __init__(self, whole: pa.Table, size: int) -> None:
        self._batches: Iterator[pa.RecordBatch] | None = iter(whole.to_batches(max_chunksize=size))
        self._schema = whole.schema

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        assert self._batches is not None
        batches, self._batches = self._batches, None
        return pa.RecordBatchReader.from_batches(self._schema, batches).__arrow_c_stream__()


@pytest.mark.parametrize("kind", ["table", "once", "once, in one piece", "dataset", "file"])
def test_every_row_once_in_its_order_and_again(tmp_path: Path, kind: str) -> None:
    whole = table()
    pq.write_table(whole, tmp_path / "rows.parquet", row_group_size=1000)
    made: Any = {
        "table": lambda: whole,
        "once": lambda: OnlyOnce(whole, 333),
        "once, in one piece": lambda: OnlyOnce(whole, COUNT),
        "dataset": lambda: pads.dataset(tmp_path / "rows.parquet"),
        "file": lambda: tmp_path / "rows.parquet",
    }[kind]()
    rows = rows_of(made)
    seen = survey(rows)
    assert seen.count == COUNT
    assert seen.digest == survey(rows_of(table(seed=2))).digest  # whatever their order
    assert seen.digest != survey(rows_of(whole.slice(1))).digest
    for _ in range(2):
        assert [item["id"] for item in rows.items()] == whole["id"].to_pylist()


def test_rows_and_columns_are_chosen_before_they_are_read(tmp_path: Path) -> None:
    how = TableSource(href_column="href", columns=["id", "datetime", "href"], where=pc.field("mood") == 1)  # fmt: skip
    for given in (table(), OnlyOnce(table(), 100)):
        items = list(rows_of(given, how).items())
        assert len(items) == sum(1 for k in range(COUNT) if k % 3 == 1)
        assert "mood" not in items[0]["properties"]
    with pytest.raises(ArgumentError, match="no column 'x'"):
        survey(rows_of(table(), TableSource(href_column="href", columns=["id", "x"])))


def test_slices_do_not_depend_on_how_rows_arrive() -> None:
    cuts = []
    for given in (table(), OnlyOnce(table(), 77)):
        records = (make_record(item, BANDS, Links()) for item in rows_of(given).items())
        gathered = Gathered(BANDS, records, count=COUNT)
        cuts.append([one for wave, _ in waves(gathered, {}, window=1000) for one in wave])
    assert [one.key for one in cuts[0]] == [one.key for one in cuts[1]]
    held = [record.id for one in cuts[0] for record in one.records]
    assert sorted(held) == sorted(table()["id"].to_pylist())
    assert len({one.key for one in cuts[0]}) == len(cuts[0])
    numbers = [int(one.key[:6]) for one in cuts[0]]
    assert numbers == list(range(len(cuts[0])))
    # A window is sorted by itself.
    times = [r.columns["datetime"] for r in cuts[0][0].records]
    assert times == sorted(times)


def test_no_more_than_a_few_windows_are_held() -> None:
    alive: list[int] = []

    def records() -> Iterator[Record]:
        for number, item in enumerate(rows_of(table()).items()):
            alive.append(number)
            yield make_record(item, BANDS, Links())

    gathered = Gathered(BANDS, records(), count=COUNT)
    first, _ = next(waves(gathered, {}, window=128))
    assert len(alive) == sum(len(one.records) for one in first) < COUNT


def test_rows_that_are_there_twice() -> None:
    whole = table()
    twice = pa.concat_tables([whole, whole.slice(5, 3), whole.slice(5, 1)])
    rows = rows_of(twice)
    seen = survey(rows)
    assert seen.count == COUNT
    assert seen.repeated.tolist() == list(range(COUNT, COUNT + 4))
    assert [item["id"] for item in rows.items(seen.repeated)] == whole["id"].to_pylist()
    other = whole.slice(7, 1).set_column(2, "href", pa.array(["/elsewhere.tif"]))
    with pytest.raises(DuplicateItemError) as caught:
        survey(rows_of(pa.concat_tables([whole, other])))
    assert caught.value.item == whole["id"][7].as_py()


def test_samples_have_every_kind_of_asset() -> None:
    def row(k: int, *keys: str) -> dict[str, Any]:
        assets = {key: {"href": f"{key}.tif", "type": "image/tiff"} for key in keys}
        return {"id": f"i{k}", "datetime": "2020-01-01T00:00:00Z", "assets": json.dumps(assets)}

    many = [row(k, "red") for k in range(50)] + [row(50, "red", "nir")] + [row(51, "qa")]
    seen = survey(rows_of(pa.Table.from_pylist(many), TableSource()))
    assert [item["id"] for item in seen.samples] == ["i0", "i50", "i51"]


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    for given in (table().slice(0, 0), OnlyOnce(table().slice(0, 0), 10)):
        with pytest.raises(EmptySelectionError):
            rd.build_from_table(given, name="x", workspace_dir=tmp_path, href_column="href")


CHILD = """
import resource, sys
import pyarrow.compute as pc
import rasteret_dask as rd

def build(name, **how):
    return rd.build_from_table(path, name=name, workspace_dir=where, href_column="href", **how)

path, where = sys.argv[1:]
build("a-few", filter_expr=pc.field("id") < "i000010")  # everything is imported and warm
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = build("whole")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(made), (after - before) * 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    """A table whose texts alone are larger than what the build may take."""
    file = make_cog(tmp_path / "a.tif", np.zeros((64, 64), "uint8"), blocksize=64)
    count, words = 40_000, "word " * 2000
    start = datetime(2020, 1, 1, tzinfo=UTC)
    path = tmp_path / "rows.parquet"
    writer = None
    for first in range(0, count, 2000):
        numbers = range(first, first + 2000)
        piece = pa.table(
            {
                "id": [f"i{k:06d}" for k in numbers],
                "datetime": pa.array([start + timedelta(minutes=k) for k in numbers]),
                "href": [str(file)] * 2000,
                "said": [f"{k} {words}" for k in numbers],
            }
        )
        writer = writer or pq.ParquetWriter(path, piece.schema, compression="zstd")
        writer.write_table(piece)
    assert writer is not None
    writer.close()
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(tmp_path / "w")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    made, grown = map(int, ran.stdout.split())
    assert made == count
    assert grown < 0.6 * count * len(words), f"{grown / 1e6:.0f} MB"
