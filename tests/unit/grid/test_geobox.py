"""The output grid: which pixels a box keeps, and through which corner the grid goes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from rasteret_dask.errors import GridError
from rasteret_dask.grid.geobox import (
    aligned,
    crs_text,
    from_geobox,
    phase,
    snap,
    transform_bounds,
)

UTM = "EPSG:32633"


@given(
    st.integers(-1000, 1000),
    st.integers(-1000, 1000),
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([10.0, 30.0, 0.25, 1 / 3600, 463.3127165]),
    st.floats(-0.4, 0.4),
)
def test_a_box_on_pixel_edges_keeps_just_those_pixels(
    col: int, row: int, width: int, height: int, res: float, shift: float
) -> None:
    anchor = (shift * res, 500.0 + shift * res)
    left, top = anchor[0] + col * res, anchor[1] - row * res
    noise = 4e-7 * res  # less than the tolerance
    box = (left - noise, top - height * res - noise, left + width * res + noise, top + noise)
    grid = snap(box, UTM, res, res, anchor)
    assert (grid.width, grid.height) == (width, height)
    assert grid.left == pytest.approx(left, abs=1e-6 * res)
    assert grid.top == pytest.approx(top, abs=1e-6 * res)


@given(st.floats(0, 5000), st.floats(0, 5000), st.floats(0.001, 900), st.floats(0.001, 900))
def test_a_box_keeps_every_pixel_it_touches_and_no_other(
    left: float, bottom: float, width: float, height: float
) -> None:
    grid = snap((left, bottom, left + width, bottom + height), UTM, 10.0, 20.0, (3.0, 7.0))
    x0, y0, x1, y1 = grid.bounds
    eps = 1e-4
    assert x0 <= left + eps
    assert left + width <= x1 + eps
    assert y0 <= bottom + eps
    assert bottom + height <= y1 + eps
    # The outermost pixels are touched.
    assert x0 + 10 > left - eps
    assert x1 - 10 < left + width + eps
    assert y0 + 20 > bottom - eps
    assert y1 - 20 < bottom + height + eps


def test_a_box_without_area_keeps_the_pixel_it_lies_in() -> None:
    grid = snap((5.0, 5.0, 5.0, 5.0), UTM, 10.0, 10.0, (0.0, 0.0))
    assert grid.bounds == (0.0, 0.0, 10.0, 10.0)


def test_an_absurd_grid_is_refused() -> None:
    with pytest.raises(GridError, match="pixels"):
        snap((0.0, 0.0, 1e12, 10.0), UTM, 1.0, 1.0, (0.0, 0.0))


def test_geoboxes_go_there_and_back() -> None:
    box = GeoBox.from_bbox((500_000, 5_000_000, 501_000, 5_002_000), crs=UTM, resolution=10)
    grid = from_geobox(box)
    assert grid.geobox == box
    assert grid.crs == UTM
    x, y = grid.centres()
    assert (x[0], x[-1]) == (500_005.0, 500_995.0)
    assert (y[0], y[-1]) == (5_001_995.0, 5_000_005.0)


def test_turned_geoboxes_and_those_without_crs_are_refused() -> None:
    box = GeoBox.from_bbox((0, 0, 10, 10), crs=UTM, resolution=1)
    with pytest.raises(GridError, match="rotated"):
        from_geobox(box.rotate(30))
    with pytest.raises(GridError, match="no CRS"):
        from_geobox(GeoBox(box.shape, box.affine, None))


@pytest.mark.parametrize("given_crs", ["EPSG:32633", 32633, "epsg:32633"])
def test_a_crs_is_called_by_its_code(given_crs: object) -> None:
    assert crs_text(given_crs) == UTM


def test_a_crs_without_code_is_wkt_and_nonsense_is_refused() -> None:
    sinusoidal = crs_text("+proj=sinu +R=6371007.181 +units=m")
    assert sinusoidal.startswith("PROJCRS")
    assert crs_text(sinusoidal) == sinusoidal
    with pytest.raises(GridError, match="not a coordinate reference system"):
        crs_text("EPSG:nothing")


@given(st.floats(-10, 10), st.integers(-(10**6), 10**6))
def test_phase_is_the_same_for_every_line_of_a_grid(shift: float, k: int) -> None:
    step = 10.0
    first, other = phase(shift, step), phase(shift + k * step, step)
    assert 0.0 <= first < 1.0
    distance = abs(first - other)
    assert min(distance, 1 - distance) <= 2e-6
    assert aligned(k * step, step)


def test_a_box_over_the_antimeridian_is_narrow_on_a_geographic_grid() -> None:
    left, bottom, right, top = transform_bounds(
        (170.0, -20.0, -170.0, -10.0), "OGC:CRS84", "EPSG:4326"
    )
    assert (left, right) == (170.0, 190.0)
    assert (bottom, top) == (-20.0, -10.0)


def test_the_image_of_a_box_that_crosses_the_antimeridian_is_continuous() -> None:
    # Zone 1 reaches a little over 180 degrees.
    left, _, right, _ = transform_bounds(
        (250_000, 8_000_000, 350_000, 8_100_000), "EPSG:32701", "EPSG:4326"
    )
    assert left < right
    assert right - left < 2.0


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:3035", "EPSG:3413"])
def test_a_transformed_box_holds_its_own_edges(crs: str) -> None:
    there = Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    box = (12.0, 46.0, 16.0, 48.0)
    left, bottom, right, top = transform_bounds(box, "OGC:CRS84", crs)
    width = right - left
    for k in range(101):
        along = k / 100
        for lon, lat in [
            (box[0] + along * 4, box[1]),
            (box[0] + along * 4, box[3]),
            (box[0], box[1] + along * 2),
            (box[2], box[1] + along * 2),
        ]:
            x, y = there.transform(lon, lat)
            assert left - 1e-4 * width <= x <= right + 1e-4 * width
            assert bottom - 1e-4 * width <= y <= top + 1e-4 * width


def along(box: tuple[float, ...], crs: str, n: int = 20_001) -> list[float]:
    """How far the edges of a lon/lat box reach, at so many places each."""
    there = Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    lon, lat = np.linspace(box[0], box[2], n), np.linspace(box[1], box[3], n)
    x = np.concatenate([lon, lon, np.full(n, box[0]), np.full(n, box[2])])
    y = np.concatenate([np.full(n, box[1]), np.full(n, box[3]), lat, lat])
    found = np.array(there.transform(x, y))
    return [*found.min(axis=1).tolist(), *found.max(axis=1).tolist()]


@pytest.mark.parametrize(
    ("box", "crs"),
    [
        ((-180.0, -90.0, 180.0, -60.0), "EPSG:3031"),
        ((-170.0, 60.0, 110.0, 80.0), "EPSG:3413"),
        ((12.1, 46.0, 18.176, 48.5), "EPSG:32633"),
        ((14.99, 46.99, 15.02, 47.0), "EPSG:32633"),
        ((-24.0, 34.5, 39.7, 71.3), "EPSG:3035"),
        ((-60.0, -30.0, 77.0, 41.0), "ESRI:54009"),
        ((15.3, 46.9, 15.6, 47.1), "EPSG:3857"),
    ],
)
def test_edges_are_followed_to_where_they_reach_furthest(
    box: tuple[float, float, float, float], crs: str
) -> None:
    expected = along(box, crs)
    found = transform_bounds(box, "OGC:CRS84", crs)
    size = max(expected[2] - expected[0], expected[3] - expected[1])
    assert np.abs(np.array(found) - expected).max() <= 1e-7 * size


def test_the_ends_of_a_polar_circle_are_its_radius() -> None:
    there = Transformer.from_crs("OGC:CRS84", "EPSG:3031", always_xy=True)
    radius = there.transform(90.0, -60.0)[0]
    found = transform_bounds((-180.0, -90.0, 180.0, -60.0), "OGC:CRS84", "EPSG:3031")
    assert found == pytest.approx((-radius, -radius, radius, radius), rel=1e-8)


def test_edges_of_a_box_over_the_antimeridian_and_back_in_degrees() -> None:
    # The parallel through the lower edge is furthest south in the middle, at 177 degrees west.
    box = transform_bounds((179.0, 60.0, -173.0, 62.0), "OGC:CRS84", "EPSG:32601")
    there = Transformer.from_crs("OGC:CRS84", "EPSG:32601", always_xy=True)
    assert box[1] == pytest.approx(there.transform(-177.0, 60.0)[1], abs=0.1)
    back = transform_bounds((100_000, 6_600_000, 800_000, 6_900_000), "EPSG:32601", "OGC:CRS84")
    there = Transformer.from_crs("EPSG:32601", "OGC:CRS84", always_xy=True)
    x = np.linspace(100_000, 800_000, 20_001)
    _, lower = there.transform(x, np.full(x.shape, 6_600_000))
    _, upper = there.transform(x, np.full(x.shape, 6_900_000))
    assert back[1] == pytest.approx(lower.min(), abs=1e-6)
    assert back[3] == pytest.approx(upper.max(), abs=1e-6)
    assert 170 < back[0] < 180 < back[2] < 190
