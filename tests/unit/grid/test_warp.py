"""Coordinates: exact within a CRS, within BOUND across two, and the same for every chunking."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject

from rasteret_dask.errors import GridError
from rasteret_dask.grid.warp import (
    BOUND,
    AxisMap,
    CrsMap,
    axis_indices,
    axis_map,
    choose_step,
    nearest_index,
)

S2 = (10.0, 0.0, 499_980.0, 0.0, -10.0, 5_200_020.0)


def test_ties_belong_to_the_right_hand_lower_pixel() -> None:
    edges = np.array([0.0, 1.0, 2.0, 2.5, 2.9999, 2.9999999, 3.0000001])
    assert nearest_index(edges).tolist() == [0, 1, 2, 2, 2, 3, 3]
    # Against the output's direction the same points are met from the other side.
    assert nearest_index(edges, flipped=True).tolist() == [-1, 0, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("shift", [0.0, 0.5, -0.5, 0.25, 833.5])
@pytest.mark.parametrize("noise", [0.0, 3e-7, -3e-7])
def test_half_a_pixel_off_is_decided_by_the_rule_and_not_by_noise(
    shift: float, noise: float
) -> None:
    grid = (10.0, 0.0, 0.0, 0.0, -10.0, 0.0)
    source = (10.0, 0.0, -(shift + noise) * 10, 0.0, -10.0, (shift + noise) * 10)
    m = axis_map(grid, source)
    expected = [int(np.floor(k + 0.5 + shift)) for k in range(5)]
    assert axis_indices(0, 5, m.x_scale, m.x_shift).tolist() == expected
    assert axis_indices(0, 5, m.y_scale, m.y_shift).tolist() == expected
    assert m.is_shift == (shift == int(shift))


@given(
    st.sampled_from([10.0, 20.0, 30.0, 15.0, 7.5, 120.0, 1 / 3600]),
    st.sampled_from([1.0, 2.0, 0.5, 3.0, 1.5, 1 / 3]),
    st.integers(-4000, 4000),
    st.integers(0, 7),
    st.booleans(),
)
def test_axis_indices_equal_exact_arithmetic(
    res: float, ratio: float, offset: int, eighths: int, south_up: bool
) -> None:
    out = res * ratio
    size = 500
    top = 5_000_000.0 if res > 1 else 45.0
    shift = (offset + eighths / 8) * res
    source_top = top - shift
    affine = (
        (res, 0.0, shift, 0.0, res, source_top - size * res)
        if south_up
        else (res, 0.0, shift, 0.0, -res, source_top)
    )
    m = axis_map((out, 0.0, 0.0, 0.0, -out, top), affine)
    k = Fraction(ratio).limit_denominator(10)
    place = [(Fraction(2 * i + 1, 2) * k) - offset - Fraction(eighths, 8) for i in range(50)]
    down = [int(p // 1) for p in place]
    assert axis_indices(0, 50, m.x_scale, m.x_shift).tolist() == down
    rows = axis_indices(0, 50, m.y_scale, m.y_shift)
    assert rows.tolist() == ([size - 1 - r for r in down] if south_up else down)


@given(st.integers(0, 900), st.integers(1, 100), st.sampled_from([0.5, 1.0, 2.0, -1.0, 1 / 3]))
def test_an_index_does_not_depend_on_where_the_chunk_begins(
    start: int, n: int, scale: float
) -> None:
    whole = axis_indices(0, 1000, scale, 0.1234)
    assert np.array_equal(axis_indices(start, start + n, scale, 0.1234), whole[start : start + n])


CASES = {
    "zone to zone": (
        "EPSG:32633",
        S2,
        "EPSG:32632",
        (10.0, 0.0, 959_990.0, 0.0, -10.0, 5_220_010.0),
    ),
    "geographic out": ("EPSG:4326", (1e-4, 0, 15.0, 0, -1e-4, 46.95), "EPSG:32633", S2),
    "geographic in": ("EPSG:32633", S2, "EPSG:4326", (1e-4, 0, 14.99, 0, -1e-4, 46.97)),
    "equal area": ("EPSG:3035", (10.0, 0, 4_700_000.0, 0, -10.0, 2_660_000.0), "EPSG:32633", S2),
    "north pole": (
        "EPSG:3413",
        (500.0, 0, -256_000.0, 0, -500.0, 256_000.0),
        "EPSG:4326",
        (0.01, 0, -180.0, 0, -0.01, 90.0),
    ),
    "polar": (
        "EPSG:3413",
        (30.0, 0, 1_500_000.0, 0, -30.0, -900_000.0),
        "EPSG:32601",
        (30.0, 0, 300_000.0, 0, -30.0, 8_000_000.0),
    ),
    "south": (
        "EPSG:3031",
        (100.0, 0, 100_000.0, 0, -100.0, 1_500_000.0),
        "EPSG:4326",
        (1e-3, 0, 0.0, 0, -1e-3, -70.0),
    ),
    # Between conformal CRSs the errors of an interpolation along rows and columns cancel at the middle of a cell.
    "conformal": (
        "EPSG:32633",
        (180.0, 0, 498_600.0, 0, -180.0, 5_194_440.0),
        "EPSG:3857",
        (20.0, 0, 1_668_900.0, 0, -20.0, 5_925_920.0),
    ),
    "turned": ("EPSG:32633", S2, "EPSG:32633", (7.0, 7.0, 500_000.0, 7.0, -7.0, 5_200_000.0)),
    "sinusoidal": (
        "EPSG:32633",
        S2,
        "+proj=sinu +R=6371007.181 +units=m",
        (463.3127, 0, 1_111_950.5, 0, -463.3127, 5_559_752.6),
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_the_lattice_stays_within_its_bound_of_proj(name: str) -> None:
    crs, grid, source_crs, source = CASES[name]
    window = (0, 512, 0, 512)
    m = CrsMap(crs, source_crs, grid, source, 1)  # type: ignore[arg-type]
    m = CrsMap(crs, source_crs, grid, source, choose_step(m, window))  # type: ignore[arg-type]
    u, v = m.coordinates(window)
    rng = np.random.default_rng(1)
    rows, cols = rng.integers(0, 512, (2, 4000))
    x, y = Affine(*grid) * (cols + 0.5, rows + 0.5)
    sx, sy = Transformer.from_crs(crs, source_crs, always_xy=True).transform(x, y)
    eu, ev = ~Affine(*source) * (np.asarray(sx), np.asarray(sy))
    assert np.abs(u[rows, cols] - eu).max() <= BOUND
    assert np.abs(v[rows, cols] - ev).max() <= BOUND
    assert (m.step == 1) == (name == "north pole")


@pytest.mark.parametrize("name", ["zone to zone", "geographic in", "polar", "north pole"])
def test_coordinates_are_the_same_bits_for_every_chunking(name: str) -> None:
    crs, grid, source_crs, source = CASES[name]
    m = CrsMap(crs, source_crs, grid, source, 1)  # type: ignore[arg-type]
    m = CrsMap(crs, source_crs, grid, source, choose_step(m, (0, 400, 0, 400)))  # type: ignore[arg-type]
    whole = m.coordinates((0, 400, 0, 400))
    for chunk in (7, 32, 100, 133, 399):
        for r in range(0, 400, chunk):
            for c in range(0, 400, chunk):
                window = (r, min(400, r + chunk), c, min(400, c + chunk))
                part = m.coordinates(window)
                for axis in (0, 1):
                    expected = whole[axis][window[0] : window[1], window[2] : window[3]]
                    assert np.array_equal(part[axis], expected, equal_nan=True)
            if chunk < 100 and r > 3 * chunk:
                break


@pytest.mark.parametrize("name", list(CASES))
def test_the_extent_holds_every_coordinate(name: str) -> None:
    crs, grid, source_crs, source = CASES[name]
    for step in (1, 32):
        m = CrsMap(crs, source_crs, grid, source, step)  # type: ignore[arg-type]
        for window in [(0, 1, 0, 1), (17, 90, 31, 33), (100, 164, 64, 300)]:
            u, v = m.coordinates(window)
            r0, r1, c0, c1 = m.extent(window)  # type: ignore[misc]
            assert r0 <= np.floor(v.min())
            assert np.floor(v.max()) < r1
            assert c0 <= np.floor(u.min())
            assert np.floor(u.max()) < c1


def test_where_proj_has_no_answer_there_is_none() -> None:
    m = CrsMap("EPSG:3413", "EPSG:32633", (1e6, 0, -2e7, 0, -1e6, 2e7), S2, 1)  # type: ignore[arg-type]
    assert choose_step(m, (0, 40, 0, 40)) == 1
    u, v = m.coordinates((0, 1, 0, 1))
    assert np.isnan(u) == np.isnan(v)
    with pytest.raises(GridError, match="empty"):
        choose_step(m, (0, 0, 0, 5))


def test_no_interpolation_across_the_antimeridian_however_large_the_grid() -> None:
    # 180 degrees cross this grid of 40,000 pixels on a narrow line, which a sample of cells may miss.
    grid = (100.0, 0.0, -3_000_000.0, 0.0, -100.0, 3_000_000.0)
    world = (0.01, 0.0, -180.0, 0.0, -0.01, 90.0)
    m = CrsMap("EPSG:3413", "EPSG:4326", grid, world, 1, 0.0)  # type: ignore[arg-type]
    assert choose_step(m, (0, 40_000, 0, 40_000)) == 1


def test_longitudes_are_taken_from_around_the_file() -> None:
    grid = (30.0, 0.0, 300_000.0, 0.0, -30.0, 8_000_000.0)  # zone 60: 174 … 180 degrees
    for left in (-180.0, 0.0, 170.0, 500.0 - 360.0):
        source = (0.01, 0.0, left, 0.0, -0.01, 90.0)
        m = CrsMap("EPSG:32660", "EPSG:4326", grid, source, 1, left + 180.0)  # type: ignore[arg-type]
        u, _ = m.coordinates((0, 1, 0, 1))
        lon, _ = Transformer.from_crs("EPSG:32660", "EPSG:4326", always_xy=True).transform(
            300_015, 7_999_985
        )
        assert u[0, 0] == pytest.approx(((lon - left) % 360) / 0.01, abs=1e-6)


def gdal_nearest(
    image: np.ndarray, source: Any, source_crs: str, grid: Any, crs: str, size: int
) -> np.ndarray:
    """By GDAL with no approximation to speak of (``reproject`` takes a tolerance and ignores it)."""
    with rasterio.MemoryFile() as memory:
        shape = {"height": image.shape[0], "width": image.shape[1], "count": 1}
        with memory.open(
            driver="GTiff", dtype=image.dtype, transform=Affine(*source), crs=source_crs, **shape
        ) as file:
            file.write(image, 1)
        with (
            memory.open() as file,
            WarpedVRT(
                file,
                crs=crs,
                transform=Affine(*grid),
                width=size,
                height=size,
                tolerance=1e-6,
                nodata=0,
            ) as warped,
        ):
            return warped.read(1)


@pytest.mark.parametrize(
    "name",
    ["zone to zone", "geographic out", "geographic in", "equal area", "turned", "sinusoidal"],
)
def test_nearest_is_gdals_where_no_tie_decides(name: str) -> None:
    crs, grid, source_crs, source = CASES[name]
    rng = np.random.default_rng(0)
    image = rng.integers(1, 60_000, (2200, 2200)).astype(np.uint16)
    size = 400
    expected = gdal_nearest(image, source, source_crs, grid, crs, size)
    m = CrsMap(crs, source_crs, grid, source, 1)  # type: ignore[arg-type]
    m = CrsMap(crs, source_crs, grid, source, choose_step(m, (0, size, 0, size)))  # type: ignore[arg-type]
    u, v = m.coordinates((0, size, 0, size))
    cols, rows = nearest_index(u), nearest_index(v)
    inside = (rows >= 0) & (rows < 2200) & (cols >= 0) & (cols < 2200)
    assert inside.mean() > 0.1
    ours = np.where(inside, image[np.clip(rows, 0, 2199), np.clip(cols, 0, 2199)], 0)
    near = np.minimum(abs(u - np.round(u)), abs(v - np.round(v))) <= BOUND
    assert ((ours != expected) & ~near).sum() == 0
    assert (ours != expected).mean() <= BOUND


@pytest.mark.parametrize("ratio", [1.0, 2.0, 0.5, 3.0, 1.5])
@pytest.mark.parametrize("shift", [0.0, 0.3, 7.0])
def test_nearest_within_a_crs_is_gdals(ratio: float, shift: float) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(1, 60_000, (300, 300)).astype(np.uint16)
    source = Affine(10, 0, 500_000, 0, -10, 5_000_000)
    grid = Affine(10 * ratio, 0, 500_000 + 10 * shift, 0, -10 * ratio, 5_000_000 - 10 * shift)
    expected = np.zeros((90, 90), np.uint16)
    reproject(
        image,
        expected,
        src_transform=source,
        src_crs="EPSG:32633",
        dst_transform=grid,
        dst_crs="EPSG:32633",
        tolerance=0,
    )
    m = axis_map(tuple(grid)[:6], tuple(source)[:6])  # type: ignore[arg-type]
    rows = axis_indices(0, 90, m.y_scale, m.y_shift)
    cols = axis_indices(0, 90, m.x_scale, m.x_shift)
    keep = np.ix_((rows >= 0) & (rows < 300), (cols >= 0) & (cols < 300))
    ours = image[np.ix_(np.clip(rows, 0, 299), np.clip(cols, 0, 299))]
    assert np.array_equal(ours[keep], expected[keep])


def test_an_axis_map_knows_a_plain_copy() -> None:
    assert AxisMap(1.0, 3.0, 1.0, -2.0).is_shift
    assert not AxisMap(1.0, 3.5, 1.0, 0.0).is_shift
    assert not AxisMap(1.0, 0.0, -1.0, 0.0).is_shift
