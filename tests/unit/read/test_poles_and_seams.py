"""Resampling where an output pixel is turned against the file's, lies around a pole or over the antimeridian."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from handmade import Scene, collect
from odc.geo.geobox import GeoBox
from pyproj import Transformer

import rasteret_dask as rd
from rasteret_dask.grid.kernels import AREA
from rasteret_dask.read.graph import plan_of
from rasteret_dask.testing.cog import make_cog

LEFT, TOP = 500_000.0, 5_200_000.0
RNG = np.random.default_rng(17)


def one(path: Path, image: np.ndarray, at: Affine, crs: str, **how: Any) -> rd.Collection:
    options = {"transform": at, "crs": crs, "blocksize": 64, "overviews": 0, **how}
    return collect(Scene("a", {"v": make_cog(path / "v.tif", image, **options)}))


def places(cube: xr.Dataset, crs: str) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of pixel centres in another CRS."""
    there = Transformer.from_crs(cube.rio.crs, crs, always_xy=True)
    x, y = there.transform(*np.meshgrid(cube.x.values, cube.y.values))
    return np.asarray(x), np.asarray(y)


# --- poles ---------------------------------------------------------------------------------------
def polar(side: int) -> GeoBox:
    """Pixels of 40 km around the north pole, which lies on a corner or in the middle of one."""
    half = side * 20_000.0
    return GeoBox((side, side), Affine(40_000, 0, -half, 0, -40_000, half), "EPSG:3413")


NORTH = Affine(1, 0, -180, 0, -1, 90)
LON, LAT = np.meshgrid(np.arange(360) - 179.5, 89.5 - np.arange(40))


@pytest.mark.parametrize("side", [80, 81])
@pytest.mark.parametrize("method", ["bilinear", "cubic", "average"])
def test_around_a_pole_no_kernel_is_as_wide_as_at_the_pole(
    tmp_path: Path, method: str, side: int
) -> None:
    def wave(lon: np.ndarray) -> np.ndarray:
        return 1000 + 500 * np.cos(np.radians(3 * lon))

    found = one(tmp_path, wave(LON).astype(np.float32), NORTH, "EPSG:4326")
    cube = found.get_xarray(geobox=polar(side), resampling=method, masked=True)
    lon, _ = places(cube, "EPSG:4326")
    far = np.hypot(*np.meshgrid(cube.x.values, cube.y.values))
    ring = (far > 1.0e6) & (far < 1.4e6)
    assert np.abs(cube.v.values[0] - wave(lon))[ring].max() < 20


@pytest.mark.parametrize("side", [30, 31])
@pytest.mark.parametrize("method", AREA)
def test_boxes_around_a_pole_have_no_holes(tmp_path: Path, method: str, side: int) -> None:
    found = one(tmp_path, LAT.astype(np.float32), NORTH, "EPSG:4326")
    how: dict[str, Any] = {"geobox": polar(side), "resampling": method, "masked": True}
    whole = found.get_xarray(chunks=None, **how)
    _, lat = places(whole, "EPSG:4326")
    # Of a pixel's 0.36 degrees no more than two rows are touched.
    assert np.abs(whole.v.values[0] - lat).max() < 1.0
    for chunks in ({"y": 7, "x": 9}, {"y": 1, "x": 16}):
        assert found.get_xarray(chunks=chunks, **how).v.values.tobytes() == whole.v.values.tobytes()


def test_one_pixel_over_half_the_world_costs_its_neighbours_nothing(tmp_path: Path) -> None:
    """Boxes of 4,500 columns beside boxes of some hundred: together they would take 60 million numbers a row."""
    columns = (np.arange(18_000) // 50).astype(np.uint16)
    image = np.broadcast_to(columns, (64, 18_000))
    at = Affine(0.02, 0, -180, 0, -0.02, 90)
    found = one(tmp_path, image, at, "EPSG:4326", driver="GTiff", blocksize=512)
    box = GeoBox((56, 56), Affine(1000, 0, -28_000, 0, -1000, 28_000), "EPSG:3413")
    cube = found.get_xarray(geobox=box, resampling="max", masked=True)
    seen = cube.v.values[0]
    lon, _ = places(cube, "EPSG:4326")
    # Of some pixel near the middle of each side all columns lie within a few degrees.
    edge = [(0, 20), (20, 0), (55, 35), (35, 55)]
    for at_edge in edge:
        assert abs(seen[at_edge] - (lon[at_edge] + 180)) < 5
    assert np.isfinite(seen[20:36, 20:36]).all()


def test_a_pixel_beside_the_pole_reaches_tiles_at_the_maps_edge(tmp_path: Path) -> None:
    """Its centre and its corners lie some columns off it, on both sides, and its box goes on to 180 degrees."""
    image = RNG.random((80, 720)).astype(np.float32)
    at = Affine(0.5, 0, -180, 0, -0.5, 90)
    found = one(tmp_path, image, at, "EPSG:4326", driver="GTiff", blocksize=16)
    left = -1_613_000.0
    box = GeoBox((80, 80), Affine(40_000, 0, left, 0, -40_000, 1_600_000), "EPSG:3413")
    part = slice(36, 44)
    whole, cut = (
        found.get_xarray(geobox=box, resampling="max", masked=True, chunks=chunks).v[:, part, part]
        for chunks in ({"y": 80, "x": 80}, {"y": 2, "x": 1})
    )
    assert np.isfinite(whole.values).all()
    assert cut.values.tobytes() == whole.values.tobytes()


# --- turned files --------------------------------------------------------------------------------
def turned(angle: float) -> Affine:
    return Affine.translation(LEFT, TOP) @ Affine.rotation(angle) @ Affine.scale(10, -10)


@pytest.mark.parametrize("method", AREA)
@pytest.mark.parametrize("angle", [45.0, -45.0, 135.0, 44.0, 30.0])
def test_a_turned_file_has_no_holes(tmp_path: Path, method: str, angle: float) -> None:
    image = np.full((100, 100), 7, np.uint8)
    found = one(tmp_path, image, turned(angle), "EPSG:32633", nodata=0)
    how: dict[str, Any] = {"crs": "EPSG:32633", "resolution": 30}
    near = found.get_xarray(resampling="nearest", **how)
    cube = found.get_xarray(resampling=method, **how)
    assert 0.4 < float((near.v == 7).mean()) < 0.7
    assert np.array_equal(cube.v.values, near.v.values)


@pytest.mark.parametrize("angle", [45.0, 40.0, -50.0, 20.0, 3.0])
def test_the_average_under_a_turned_pixel_is_that_around_its_centre(
    tmp_path: Path, angle: float
) -> None:
    y, x = np.mgrid[0:100, 0:100]
    at = turned(angle)
    found = one(tmp_path, (100 + x + 2 * y).astype(np.float64), at, "EPSG:32633", nodata=-1)
    cube = found.get_xarray(crs="EPSG:32633", resolution=30, resampling="average", masked=True)
    u, v = ~at @ np.meshgrid(cube.x.values, cube.y.values)
    inner = (u > 5) & (u < 95) & (v > 5) & (v < 95)
    assert inner.sum() > 500
    expected = 100 + (u - 0.5) + 2 * (v - 0.5)
    # A file has steps where the plane has none.
    np.testing.assert_allclose(cube.v.values[0][inner], expected[inner], rtol=0, atol=0.15)


@pytest.mark.parametrize(("method", "least"), [("min", -1), ("max", 1)])
def test_extremes_under_a_turned_pixel_are_of_its_size(
    tmp_path: Path, method: str, least: int
) -> None:
    """At 45 degrees boxes of 0.7 by 1.4 sides of a pixel, in columns and rows: 2.1 by 4.2 here."""
    _, x = np.mgrid[0:100, 0:100]
    at = turned(45.0)
    found = one(tmp_path, x.astype(np.float64), at, "EPSG:32633", nodata=-1)
    cube = found.get_xarray(crs="EPSG:32633", resolution=30, resampling=method, masked=True)
    u, v = ~at @ np.meshgrid(cube.x.values, cube.y.values)
    inner = (u > 5) & (u < 95) & (v > 5) & (v < 95)
    reach = least * (cube.v.values[0] - (u - 0.5))[inner]
    assert (reach.min() >= 0.5) & (reach.max() <= 2.7)


# --- the antimeridian ----------------------------------------------------------------------------
@pytest.mark.parametrize("west", [178.9, 176.0])
@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:6933", "EPSG:32701"])
@pytest.mark.parametrize("method", ["average", "mode", "max"])
def test_pixels_over_the_antimeridian_are_no_holes(
    tmp_path: Path, method: str, crs: str, west: float
) -> None:
    columns, rows = np.meshgrid(np.arange(720), np.arange(60))
    # Far from there the image holds something else on either side, for boxes around the world.
    far = (columns > 20) & (columns < 700)
    image = np.where(far, np.where(columns % 2, 1, 250), 100 + rows).astype(np.uint8)
    found = one(tmp_path, image, Affine(0.5, 0, -180, 0, -0.5, -3), "EPSG:4326", nodata=0)
    box = (west, -18.0, -179.2, -16.5)
    how: dict[str, Any] = {"crs": crs, "resolution": 20_000.0, "resampling": method, "bbox": box}
    whole = found.get_xarray(chunks=None, **how).v.values[0]
    assert (whole >= 100).all()
    assert (whole < 200).all()
    if crs != "EPSG:32701":
        # Every column of a cylinder lies over the same rows.
        assert (whole == whole[:, :1]).all()
    for chunks in ({"x": 1}, {"y": 1, "x": 2}):
        assert np.array_equal(found.get_xarray(chunks=chunks, **how).v.values[0], whole)


# --- noise ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["max", "min", "q3", "mode"])
def test_what_a_box_touches_does_not_depend_on_larger_boxes_beside_it(
    tmp_path: Path, method: str
) -> None:
    """2.6 · 9 + 0.6 is 24.000000000000004 in floating point, and 24 exactly: box 8 ends there."""
    image = np.ones((100, 100), np.uint8)
    image[:, 24] = 200 if method != "min" else 0
    found = one(tmp_path, image, Affine(10, 0, LEFT, 0, -10, TOP), "EPSG:32633")
    box = GeoBox((30, 30), Affine(26, 0, LEFT + 6, 0, -26, TOP - 6), "EPSG:32633")
    how: dict[str, Any] = {"geobox": box, "resampling": method, "overviews": "off"}
    whole = found.get_xarray(chunks=None, **how).v.values[0]
    for chunks in ({"x": 1}, {"y": 3, "x": 4}):
        assert np.array_equal(found.get_xarray(chunks=chunks, **how).v.values[0], whole)
    if method in ("min", "max"):
        # In tenths of a column: box c goes from 26 c + 6 to 26 c + 32.
        touched = [26 * c + 6 < 250 and 26 * c + 32 > 240 for c in range(30)]
        assert (whole == np.where(touched, image[0, 24], 1)).all()


# --- maps of the world ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("crs", "bbox"),
    [
        ("EPSG:32633", (10, 45, 14, 48)),
        ("EPSG:2154", (-4, 43, 7, 50)),
        ("EPSG:3035", (-9, 36, -1, 43)),
        ("EPSG:2193", (168, -46, 177, -36)),
        ("EPSG:27700", (-5, 50, 1, 55)),
    ],
)
def test_a_map_of_the_world_covers_every_plane(
    tmp_path: Path, crs: str, bbox: tuple[float, ...]
) -> None:
    world = one(tmp_path, np.full((180, 360), 7, np.uint8), NORTH, "EPSG:4326", nodata=0)
    cube = world.get_xarray(bbox=bbox, crs=crs, resolution=20_000)
    assert (cube.v.values == 7).all()


@pytest.mark.parametrize("method", ["nearest", "bilinear", "average", "max"])
@pytest.mark.parametrize("crs", ["EPSG:3995", "EPSG:3857"])
def test_pixels_that_lie_on_the_seam_are_of_the_map(tmp_path: Path, method: str, crs: str) -> None:
    world = one(tmp_path, np.full((180, 360), 5, np.uint8), NORTH, "EPSG:4326", nodata=0)
    size, left = 51, -51 / 2 * 50_000
    if crs == "EPSG:3857":
        left += 20_037_508.342789244  # the middle column lies on 180 degrees
    grid = GeoBox((size, size), Affine(50_000, 0, left, 0, -50_000, size / 2 * 50_000), crs)
    found = world.get_xarray(geobox=grid, resampling=method, overviews="off")
    assert (found.v.values == 5).all()


def test_a_cube_that_ends_on_the_seam_keeps_its_lattice(tmp_path: Path) -> None:
    """Only pixels that lie on 180 degrees begin the map anew: an edge there tears nothing, and PROJ need not be asked of every pixel."""
    image = RNG.integers(1, 200, (360, 720)).astype(np.uint8)
    found = one(tmp_path, image, Affine(0.5, 0, -180, 0, -0.5, 90), "EPSG:4326", nodata=0)
    cube = found.get_xarray(
        crs="EPSG:4258", resolution=0.5, bbox=(-180, -80, 180, 80), chunks="auto"
    )
    plan = plan_of(cube.v.data)
    assert plan is not None
    assert [found.step for found in plan.table.maps] != [1]
    assert np.array_equal(cube.v.values[0], image[20:340])
