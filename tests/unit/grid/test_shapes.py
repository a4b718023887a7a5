"""Polygons: as rasterio paints them, for every chunking."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.features import geometry_mask
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from rasteret_dask.grid.geobox import Grid
from rasteret_dask.grid.shapes import outside, pixel_shapes

GRID = Grid("EPSG:32633", 500_000.0, 5_200_000.0, 10.0, 10.0, 211, 173)


def at(col: float, row: float) -> tuple[float, float]:
    return 500_000 + 10 * col, 5_200_000 - 10 * row


def polygon(*corners: tuple[float, float]) -> Polygon:
    return Polygon([at(*c) for c in corners])


HOLED = polygon((20.3, 10.1), (180.7, 25.2), (150.4, 160.9), (33.3, 120.2)).difference(
    Point(*at(90, 80)).buffer(300)
)
SHAPES = {
    "triangle": (polygon((3.2, 5.7), (200.1, 40.3), (77.7, 170.2)),),
    "on pixel edges": (box(*at(32, 96), *at(64, 32)),),
    "on pixel centres": (box(*at(32.5, 96.5), *at(64.5, 32.5)),),
    "with a hole": (HOLED,),
    "many parts": (MultiPolygon([HOLED, polygon((190, 100), (205, 102), (199, 150))]),),
    "several, overlapping": (HOLED, polygon((100, 50), (140, 52), (120, 90)).buffer(33.3)),
    "a circle": (Point(*at(105.3, 86.2)).buffer(700, quad_segs=90),),
    "beyond the edges": (polygon((-50, -50), (100, -20), (300, 400)),),
    "a line": (LineString([at(3.3, 4.4), at(199.9, 150.1)]),),
    "through corners": (polygon((2, 2), (102, 52), (52, 152)),),
    "outside": (polygon((-50, -50), (-40, -20), (-30, -40)),),
}


TIED = {
    ("on pixel centres", False),
    ("many parts", True),
    ("beyond the edges", True),
    ("through corners", True),
    ("through corners", False),
}
"""Where edges run through the very corners or centres of pixels, and GDAL's rounding decides."""


@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize("name", list(SHAPES))
def test_a_mask_is_rasterios_and_the_same_in_every_chunking(name: str, all_touched: bool) -> None:
    shapes = SHAPES[name]
    expected = geometry_mask(
        list(shapes), (GRID.height, GRID.width), Affine(*GRID.affine), all_touched=all_touched
    )
    wkb = pixel_shapes(shapes, GRID)
    whole = outside(wkb, (0, GRID.height, 0, GRID.width), all_touched)
    differing = int((whole != expected).sum())
    assert differing <= 60 if (name, all_touched) in TIED else differing == 0
    for chunk in (128, 100, 64, 37, 11):
        found = np.empty_like(expected)
        for r in range(0, GRID.height, chunk):
            for c in range(0, GRID.width, chunk):
                window = (r, min(GRID.height, r + chunk), c, min(GRID.width, c + chunk))
                part = outside(wkb, window, all_touched)
                found[window[0] : window[1], window[2] : window[3]] = part
        assert np.array_equal(found, whole), chunk


def test_pixel_shapes_count_columns_and_rows() -> None:
    wkb = pixel_shapes((box(*at(3, 9), *at(5, 2)),), GRID)
    assert shapely.from_wkb(wkb).bounds == pytest.approx((3.0, 2.0, 5.0, 9.0), abs=1e-6)
