"""Footprints: the bytes that shapely would write, and a box, whatever an item says of where it lies."""

from __future__ import annotations

from typing import Any

import pytest
import shapely
from shapely.geometry import shape

from rasteret_dask.index import schema
from rasteret_dask.ingest.footprints import footprint

RING = [[15.1, 46.9], [15.6, 46.8], [15.7, 47.2], [15.1, 46.9]]
HOLE = [[15.3, 46.95], [15.4, 46.95], [15.4, 47.0], [15.3, 46.95]]


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Polygon", "coordinates": [RING]},
        {"type": "Polygon", "coordinates": [[[*at, 300.0] for at in RING]]},
        {"type": "Polygon", "coordinates": [RING, HOLE]},
        {"type": "Polygon", "coordinates": [[[15, 46], [16, 46], [16, 47], [15, 46]]]},
        {"type": "MultiPolygon", "coordinates": [[RING]]},
        {"type": "Point", "coordinates": [15.1, 46.9]},
    ],
)
@pytest.mark.parametrize("box", [None, [14.0, 46.0, 16.0, 48.0], [14.0, 46.0, 0, 16.0, 48.0, 9]])
def test_geometry_and_box(geometry: dict[str, Any], box: list[float] | None) -> None:
    found = footprint({"geometry": geometry, "bbox": box})
    whole = shapely.force_2d(shape(geometry))
    assert found[schema.GEOMETRY] == shapely.to_wkb(whole)
    bounds = whole.bounds if box is None else (14.0, 46.0, 16.0, 48.0)
    assert tuple(found[schema.BBOX].values()) == bounds


@pytest.mark.parametrize("geometry", [None, {}, {"type": "Polygon", "coordinates": [["a"]]}])
def test_the_box_stands_for_what_is_no_geometry(geometry: Any) -> None:
    found = footprint({"geometry": geometry, "bbox": [14.0, 46.0, 16.0, 48.0]})
    assert found[schema.GEOMETRY] == shapely.to_wkb(shapely.box(14.0, 46.0, 16.0, 48.0))
    assert footprint({"geometry": geometry}) == {schema.GEOMETRY: None, schema.BBOX: None}


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ((170, 190), (170, -170)),
        ((-190, -170), (170, -170)),
        ((350, 355), (-10, -5)),
        ((170, 180), (170, 180)),
        ((-190, -180), (170, 180)),
        ((30, 200), (30, -160)),
        ((-30, 200), (-180, 180)),  # too wide to be known as one that crosses
        ((0, 360), (-180, 180)),
        ((170, -170), (170, -170)),
    ],
)
def test_boxes_are_kept_within_180(given: tuple[float, float], stored: tuple[float, float]) -> None:
    west, east = given
    found = footprint({"geometry": None, "bbox": [west, -20, east, -10]})[schema.BBOX]
    assert (found["xmin"], found["xmax"]) == stored
    if west < east:
        ring = [[west, -20], [east, -20], [east, -10], [west, -20]]
        item = {"geometry": {"type": "Polygon", "coordinates": [ring]}}
        found = footprint(item)
        assert (found[schema.BBOX]["xmin"], found[schema.BBOX]["xmax"]) == stored
        assert shapely.from_wkb(found[schema.GEOMETRY]).bounds == (west, -20, east, -10)
