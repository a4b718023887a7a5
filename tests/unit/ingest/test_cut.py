"""How items are cut into slices."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from rasteret_dask.index import schema
from rasteret_dask.ingest.cut import cut, slice_rows
from rasteret_dask.ingest.parts import ROWS_PER_GROUP
from rasteret_dask.ingest.records import Record, sort_records
from rasteret_dask.model import BandInfo

BANDS = [BandInfo(name, name) for name in ("red", "nir")]


def records(count: int, places: int, seed: int = 0) -> list[Record]:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        west = -170.0 + 3 * int(rng.integers(places))
        moment = datetime(2020, 1, 1) + timedelta(hours=int(rng.integers(24 * 3650)))
        box = {"xmin": west, "ymin": 40.0, "xmax": west + 1, "ymax": 41.0}
        columns: dict[str, Any] = {schema.DATETIME: moment, schema.BBOX: box}
        made.append(Record(f"i{number:05d}", columns, None, ()))
    return sort_records(made)


@pytest.mark.parametrize(("count", "places"), [(1, 1), (15, 1), (700, 1), (700, 9), (5000, 40)])
def test_slices_hold_every_record_once_in_the_order_of_rows(count: int, places: int) -> None:
    whole = records(count, places)
    slices = cut(whole, BANDS, {})
    held = [record.id for one in slices for record in one.records]
    assert sorted(held) == sorted(record.id for record in whole)
    size = slice_rows(count, len(BANDS))
    assert max(len(one.records) for one in slices) <= size
    assert len(slices) <= -(-count // size) + 1
    for one in slices:
        keys = [(r.columns[schema.DATETIME], r.id) for r in one.records]
        assert keys == sorted(keys)
    assert len({one.key for one in slices}) == len(slices)
    assert [one.key for one in cut(whole, BANDS, {})] == [one.key for one in slices]
    assert not {one.key for one in cut(whole, BANDS, {"other": 1})} & {one.key for one in slices}


def test_few_items_are_one_slice_and_many_are_not_thousands() -> None:
    assert slice_rows(15, 4) >= 15
    assert slice_rows(120, 4) >= 120
    assert -(-4000 // slice_rows(4000, 4)) == 8
    assert -(-1_000_000 // slice_rows(1_000_000, 4)) < 500
    assert slice_rows(1_000_000, 200) * 200 <= 8192


def test_a_query_of_a_place_or_of_a_month_needs_few_slices() -> None:
    slices = cut(records(8192, 40), BANDS, {})
    assert len(slices) == 16
    boxes = [{r.columns[schema.BBOX]["xmin"] for r in one.records} for one in slices]
    months = [
        {(r.columns[schema.DATETIME].year, r.columns[schema.DATETIME].month) for r in one.records}
        for one in slices
    ]
    place, month = -170.0 + 3 * 7, (2023, 5)
    assert sum(place in one for one in boxes) <= 8
    assert sum(month in one for one in months) <= 8


def test_row_groups_of_large_slices_are_cut_by_place_again() -> None:
    whole = records(8192, 40)
    slices = cut(whole, BANDS, {}, total=300_000)
    assert [len(one.records) for one in slices] == [2048] * 4
    groups = [
        one.records[at : at + ROWS_PER_GROUP]
        for one in slices
        for at in range(0, len(one.records), ROWS_PER_GROUP)
    ]
    place = -170.0 + 3 * 7
    assert sum(any(r.columns[schema.BBOX]["xmin"] == place for r in g) for g in groups) <= 4
    for group in groups:
        keys = [(r.columns[schema.DATETIME], r.id) for r in group]
        assert keys == sorted(keys)
    assert sorted(r.id for g in groups for r in g) == sorted(r.id for r in whole)


def test_footprints_over_the_antimeridian_and_none_have_their_place() -> None:
    whole = records(300, 3)
    over = {"xmin": 179.0, "ymin": 0.0, "xmax": -179.0, "ymax": 1.0}
    odd = [
        Record(name, {schema.DATETIME: datetime(2021, 1, 1), schema.BBOX: where}, None, ())
        for name, where in (("over", over), ("none", None))
    ]
    slices = cut(sort_records([*whole, *odd]), BANDS, {})
    assert {"over", "none"} <= {record.id for one in slices for record in one.records}
