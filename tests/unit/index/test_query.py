"""Filters against the plain answer, and what they spare reading."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import shapely
from shapely.affinity import translate
from shapely.geometry import box

from rasteret_dask.errors import ArgumentError
from rasteret_dask.index import query, schema
from rasteret_dask.index.dataset import in_memory
from rasteret_dask.index.foreign import as_rows
from rasteret_dask.index.geometries import check_bbox, split_bbox, to_geometries
from rasteret_dask.index.times import parse_instant, parse_range

BOXES = [
    (10, 40, 11, 41),
    (-170, -10, -160, 0),
    (170, -20, -175, -10),  # over the antimeridian
    (179, 50, 180, 51),
    (-180, 50, -179, 51),
    (-180, -90, 180, -60),
    None,
]
QUERIES = [
    (10.5, 40.5, 20, 50),
    (-180, -90, 180, 90),
    (175, -15, -172, -5),
    (179.5, 50, -179.5, 52),
    (-176, -15, -170, -12),
    (171, -15, 172, -12),
    (0, 0, 1, 1),
    (190, -15, 195, -5),
]


def boxes() -> pa.Table:
    names = ("xmin", "ymin", "xmax", "ymax")
    rows = [None if b is None else dict(zip(names, map(float, b), strict=True)) for b in BOXES]
    return pa.table({"id": list(range(len(BOXES))), "bbox": pa.array(rows, schema.BBOX_TYPE)})


@pytest.mark.parametrize("asked", QUERIES)
def test_bbox_against_shapely(asked: tuple[float, float, float, float]) -> None:
    area = shapely.union_all([box(*b) for b in split_bbox(check_bbox(asked))])
    expected = [
        i
        for i, b in enumerate(BOXES)
        if b is not None and any(box(*part).intersects(area) for part in split_bbox(b))
    ]
    got = boxes().filter(query.bbox_expression(asked))["id"].to_pylist()
    # −180 and 180 are one meridian; shapely does not know, and a box that only touches it may be found.
    assert [i for i in got if i not in (3, 4)] == [i for i in expected if i not in (3, 4)]
    assert set(expected) <= set(got)


CONTINUOUS = [
    (178, -20, 182, -15),
    (-182, -20, -178, -15),
    (200, -20, 210, -15),
    (-210, -20, -200, -15),
    (350, 40, 371, 41),
    (10, 40, 200, 41),
    (-30, 40, 200, 41),
    (-200, 40, 200, 41),
    (0, -90, 360, 90),
]
"""Boxes whose longitudes go on beyond 180, as GeoPandas has them."""


@pytest.mark.parametrize(
    "asked", [*QUERIES, (-179.5, -18, -179, -17), (-161, -18, 151, -17), (-12, 40, -8, 41)]
)
def test_boxes_that_go_on_beyond_180_are_found_on_both_sides(
    asked: tuple[float, float, float, float],
) -> None:
    parts = [box(*b) for b in split_bbox(check_bbox(asked))]
    expected = [
        i
        for i, b in enumerate(CONTINUOUS)
        if any(translate(box(*b), turn).intersects(p) for p in parts for turn in (-360, 0, 360))
    ]
    names = ("xmin", "ymin", "xmax", "ymax")
    rows = [dict(zip(names, map(float, b), strict=True)) for b in CONTINUOUS]
    table = pa.table({"id": list(range(len(rows))), "bbox": pa.array(rows, schema.BBOX_TYPE)})
    found = table.filter(query.bbox_expression(asked))["id"].to_pylist()
    assert found == expected


def test_footprints_of_others_get_boxes_that_cross() -> None:
    shapes = [box(170, -20, 190, -10), box(-190, -20, -170, -10), box(0, -9, 360, 9), None]
    wkb = pa.array([None if s is None else s.wkb for s in shapes], pa.binary())
    rows = as_rows(pa.table({"id": list("abcd"), "geometry": wkb}))
    found = [b and tuple(b.values()) for b in rows["bbox"].to_pylist()]
    assert found == [(170, -20, -170, -10), (170, -20, -170, -10), (-180, -9, 180, 9), None]


@pytest.mark.parametrize(
    "wrong",
    [(1, 2, 3), "abcd", (0, 5, 1, 4), (0, 0, float("nan"), 1), (4e5, 5e6, 5e5, 5.1e6), None],
)
def test_what_is_no_bbox(wrong: Any) -> None:
    with pytest.raises(ArgumentError):
        check_bbox(wrong)


def test_longitudes_beyond_180_are_brought_back() -> None:
    assert check_bbox((170, 0, 190, 1)) == (170, 0, -170, 1)
    assert check_bbox((-190, 0, -170, 1)) == (170, 0, -170, 1)
    assert check_bbox((0, -90, 360, 90)) == (-180, -90, 180, 90)
    assert check_bbox((170, 0, 180, 1)) == (170, 0, 180, 1)
    assert check_bbox((-190, 0, -180, 1)) == (170, 0, 180, 1)
    assert check_bbox((-180, 0, -180, 1)) == (-180, 0, -180, 1)
    assert check_bbox((350, 0, 10, 1)) == (-10, 0, 10, 1)


def moments() -> pa.Table:
    def column(*values: str | None) -> pa.Array:
        parsed = [None if v is None else datetime.fromisoformat(v) for v in values]
        return pa.array(parsed, schema.TIMESTAMP)

    return pa.table(
        {
            "id": ["a", "b", "c"],
            "datetime": column("2023-08-31T23:59:59.999999", "2023-09-01", "2023-01-01"),
            "start_datetime": column(None, None, "2023-01-01"),
            "end_datetime": column(None, None, "2023-12-31"),
        }
    )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("2023-08-01", "2023-08-31"), ["a", "c"]),
        ("2023-08", ["a", "c"]),
        (("2023-09-01", None), ["b", "c"]),
        ("../2023-08-31", ["a", "c"]),
        ((date(2023, 9, 1), date(2023, 9, 1)), ["b", "c"]),
        ("2024", []),
        (("2023-08-31T00:00:00Z", "2023-08-31T12:00:00Z"), ["c"]),
    ],
)
def test_dates(asked: Any, expected: list[str]) -> None:
    table = moments()
    got = table.filter(query.date_expression(asked, table.schema))
    assert got["id"].to_pylist() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-08-15T09:58:11.662000Z", datetime(2023, 8, 15, 9, 58, 11, 662000)),
        ("2023-08-15T11:58:11+02:00", datetime(2023, 8, 15, 9, 58, 11)),
        ("20230815T095811", datetime(2023, 8, 15, 9, 58, 11)),
        ("2023-08-15 09:58:11 UTC", datetime(2023, 8, 15, 9, 58, 11)),
        ("2023/08/15", datetime(2023, 8, 15)),
        ("2023-08-15T09:58:11.123456789Z", datetime(2023, 8, 15, 9, 58, 11, 123456)),
        ("Tue, 15 Aug 2023 09:58:11 GMT", datetime(2023, 8, 15, 9, 58, 11)),
        (date(2023, 8, 15), datetime(2023, 8, 15)),
    ],
)
def test_instants(text: Any, expected: datetime) -> None:
    assert parse_instant(text) == expected


@pytest.mark.parametrize(
    "wrong", [("2023-02-02", "2023-01-01"), "2023-13", "yesterday", (1, 2, 3), "2023/08/31"]
)
def test_what_is_no_range(wrong: Any) -> None:
    with pytest.raises(ArgumentError):
        parse_range(wrong)


DAYS = [
    "2023-08-31",
    "20230831",
    "31.08.2023",
    date(2023, 8, 31),
    np.datetime64("2023-08-31"),
]


@pytest.mark.parametrize("day", [*DAYS, "2023/08/31"])
def test_a_day_ends_with_its_last_moment_however_it_is_written(day: Any) -> None:
    end = pd.Period("2023-08-31", "D").end_time.floor("us")
    assert parse_range(("2023-08-01", day)) == (datetime(2023, 8, 1), end)
    assert parse_range((None, day)) == (None, end)
    assert parse_range((day, day)) == (datetime(2023, 8, 31), end)


@pytest.mark.parametrize("day", DAYS)
def test_a_day_alone_is_that_day(day: Any) -> None:
    last = pd.Period("2023-08-31", "D").end_time.floor("us")
    assert parse_range(day) == (datetime(2023, 8, 31), last)


@pytest.mark.parametrize(("text", "unit"), [("2023", "Y"), ("2024-02", "M"), ("2024-02-29", "D")])
def test_numpy_s_dates_are_as_long_as_their_unit(text: str, unit: str) -> None:
    period = pd.Period(text, unit)
    expected = (period.start_time, period.end_time.floor("us"))
    assert parse_range(np.datetime64(text, unit)) == expected
    assert parse_range(np.array([text, text], f"M8[{unit}]")) == expected


@pytest.mark.parametrize(
    "moment", ["20230831T000000", "2023-08-31T00:00", np.datetime64("2023-08-31T00", "h")]
)
def test_a_time_of_day_is_a_moment(moment: Any) -> None:
    assert parse_range((None, moment)) == (None, datetime(2023, 8, 31))


def test_columns() -> None:
    table = pa.table({"sat:orbit_state": ["a", "d", None], "n": [1, 2, 3]})

    def ask(**filters: Any) -> list[int]:
        expression = query.every(query.column_expressions(filters, table.schema))
        found: list[int] = table.filter(expression)["n"].to_pylist()
        return found

    assert ask(sat_orbit_state="a") == [1]
    assert ask(sat_orbit_state=None) == [3]
    assert ask(n_lt=3, n_gt=1) == [2]
    assert ask(n_in=[1, 3]) == ask(n=[1, 3]) == [1, 3]
    assert ask(n_ge=2) == [2, 3]
    with pytest.raises(ArgumentError, match="no column 'm'"):
        ask(m=1)


def test_row_groups_are_pruned_by_box_and_date(tmp_path: Path) -> None:
    rows = 1000
    names = ("xmin", "ymin", "xmax", "ymax")
    made = [dict(zip(names, (i / 10, 0.0, i / 10 + 1, 1.0), strict=True)) for i in range(rows)]
    when = [datetime(2020 + i // 100, 1, 1) for i in range(rows)]
    empty = pa.nulls(rows, schema.TIMESTAMP)
    table = pa.table(
        {
            "datetime": pa.array(when, schema.TIMESTAMP),
            "start_datetime": empty,
            "end_datetime": empty,
            "bbox": pa.array(made, schema.BBOX_TYPE),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=100)
    (fragment,) = pads.dataset(tmp_path / "t.parquet").get_fragments()
    by_box = query.bbox_expression((50, 0, 51, 1))
    assert len(fragment.split_by_row_group(by_box)) <= 2
    by_date = query.date_expression(("2023-01-01", "2023-12-31"), table.schema)
    assert len(fragment.split_by_row_group(by_date)) == 1


def test_geometries_of_every_kind_are_the_same() -> None:
    shape = box(10, 40, 11, 41)
    kinds: list[Any] = [
        shape,
        (10, 40, 11, 41),
        shapely.geometry.mapping(shape),
        {"type": "Feature", "geometry": shapely.geometry.mapping(shape)},
        shape.wkb,
        shape.wkt,
        [shape],
        pa.array([shape.wkb]),
    ]
    for kind in kinds:
        (got,) = to_geometries(kind)
        assert got.equals(shape)
    moved = to_geometries(shapely.transform(shape, lambda xy: xy * 0 + [500000, 5e6]), "EPSG:32633")
    assert moved[0].bounds[0] == pytest.approx(15)
    for wrong in (shapely.Point(), [], 5, b"x", {"type": "Nonsense"}):
        with pytest.raises(ArgumentError):
            to_geometries(wrong)


def test_footprints_truly_intersect() -> None:
    triangle = shapely.Polygon([(0, 0), (10, 0), (0, 10)])
    table = pa.table({"geometry": [triangle.wkb, None, shapely.Point(9, 9).wkb]})
    hits = query.intersecting(table, [shapely.Point(9, 9).buffer(0.5), shapely.Point(99, 0)])
    assert hits.tolist() == [False, False, True]


def test_views_sort_and_limit() -> None:
    table = pa.table(
        {
            "id": ["b", "a", "c"],
            "datetime": pa.array([datetime(2020, 1, 1)] * 2 + [datetime(2019, 1, 1)]),
        }
    )
    view = in_memory(table)
    assert view.read(["id"])["id"].to_pylist() == ["c", "a", "b"]
    assert view.where(pc.field("id") != "a").count() == 2


def test_one_box_of_an_item_and_many_that_are_asked_for_meet_by_the_same_rule() -> None:
    """`meeting` against Arrow's answers to `bbox_expression`; whole degrees, so that edges coincide."""
    rng = np.random.default_rng(8)
    lon = rng.integers(-200, 201, (400, 2)).astype(float)
    lat = np.sort(rng.integers(-9, 10, (400, 2)), axis=1).astype(float)
    asked = [check_bbox((w, s, e, n)) for (w, e), (s, n) in zip(lon, lat)]
    asked += [check_bbox((w, s, w, s)) for (w, _), (s, _) in zip(lon, lat)]
    west, south, east, north = np.array(asked).T
    stored = [(-180.0, 180.0), (10, 40), (170, -170), (165, 195), (-195, -165), (-180, -180), (180, 180), (-20, 0), (40, 10)]  # fmt: skip
    boxes = [{"xmin": a, "ymin": -3.0, "xmax": b, "ymax": 4.0} for a, b in stored]
    table = pa.table({schema.BBOX: pa.array(boxes, schema.BBOX_TYPE), "n": range(len(boxes))})
    found = np.array(
        [query.meeting((a, -3.0, b, 4.0), west, south, east, north) for a, b in stored]
    )
    for k, one in enumerate(asked):
        expected = table.filter(query.bbox_expression(one))["n"].to_pylist()
        assert np.flatnonzero(found[:, k]).tolist() == expected, one
