"""What a query of many rows opens and reads: counted, not timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

import rasteret_dask as rd
from benchmarks.queries import BOX, MONTH, make, touched

ROWS = 150_000
"""From some 65,000 rows on, parts hold more than one row group."""


@pytest.mark.slow
def test_queries_read_a_small_part_of_a_large_collection(tmp_path: Path) -> None:
    where = str(tmp_path / "rows")
    parts = make(ROWS, where)
    large = rd.load(where)
    assert len(large) == ROWS

    def ask(**how: Any) -> tuple[int, int]:
        found = large.subset(**how)
        # The same rows as a filter that no statistics help with.
        by_hand = whole
        if "bbox" in how:
            west, south, east, north = how["bbox"]
            box = {n: pc.struct_field(by_hand["bbox"], n) for n in ("xmin", "ymin", "xmax", "ymax")}
            inside = pc.and_(
                pc.and_(pc.less_equal(box["xmin"], east), pc.greater_equal(box["xmax"], west)),
                pc.and_(pc.less_equal(box["ymin"], north), pc.greater_equal(box["ymax"], south)),
            )
            by_hand = by_hand.filter(inside)
        if "date_range" in how:
            month = pc.and_(
                pc.equal(pc.year(by_hand["datetime"]), 2018),
                pc.equal(pc.month(by_hand["datetime"]), 5),
            )
            by_hand = by_hand.filter(month)
        assert found.to_table(["id"])["id"].to_pylist() == by_hand["id"].to_pylist()
        return touched(found)

    whole = large.to_table(["id", "datetime", "bbox"])
    assert whole["datetime"].to_pylist() == sorted(whole["datetime"].to_pylist())
    opened, groups = ask(bbox=BOX, date_range=MONTH)
    assert opened <= 4
    assert groups <= 6
    opened, groups = ask(bbox=BOX)
    assert opened <= parts / 3
    assert groups <= 1.5 * opened  # of some three in each
    opened, _ = ask(date_range=MONTH)
    assert opened <= parts / 5
