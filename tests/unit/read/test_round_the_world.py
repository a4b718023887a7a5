"""Cubes over the antimeridian in CRSs that go round the world, and those that are torn there; coordinates by pyproj."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from handmade import Scene, collect
from pyproj import Transformer

import rasteret_dask as rd
from rasteret_dask.testing.cog import make_cog

FIJI = (178.9, -18.0, -179.2, -16.5)
WORLD = 40_075_016.68557849


def world(path: Path, crs: str = "EPSG:4326", left: float = -180.0, right: float = 180.0) -> Path:
    """A map of a whole strip of latitude in half degrees (or as many columns), each pixel another number."""
    columns, rows = 720, 60
    values = np.arange(1, columns * rows + 1, dtype=np.uint16).reshape(rows, columns)
    top, bottom = (-3.0, -33.0) if crs == "EPSG:4326" else (-300_000.0, -4_000_000.0)
    at = Affine((right - left) / columns, 0, left, 0, (bottom - top) / rows, top)
    name = crs.replace(":", "") + str(int(left))
    return make_cog(path / f"{name}.tif", values, transform=at, crs=crs, nodata=0, overviews=0)


def expected(cube: xr.Dataset, file: Path) -> np.ndarray:
    """The pixel of the file under each centre, in exact coordinates; longitudes wherever the file has them."""

    with rasterio.open(file) as image:
        values, t, crs = image.read(1), image.transform, image.crs
    x, y = np.meshgrid(cube.x.values, cube.y.values)
    sx, sy = Transformer.from_crs(cube.rio.crs, crs, always_xy=True).transform(x, y)
    turn = 360.0 if crs.is_geographic else WORLD
    middle = t.c + t.a * values.shape[1] / 2
    sx = sx - turn * np.round((sx - middle) / turn)
    u, v = (sx - t.c) / t.a, (sy - t.f) / t.e
    near = (abs(u - np.round(u)) < 2e-3) | (abs(v - np.round(v)) < 2e-3)
    out = values[np.floor(v).astype(int), np.floor(u).astype(int) % values.shape[1]].astype(float)
    return np.where(near, np.nan, out)


def check(cube: xr.Dataset, file: Path) -> None:
    want = expected(cube, file)
    known = np.isfinite(want)
    assert known.mean() > 0.9
    assert np.array_equal(cube.v.values[0][known], want[known])


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:6933", "EPSG:4087", "EPSG:4326", "EPSG:32701"])
@pytest.mark.parametrize("chunks", ["auto", {"y": 31, "x": 47}])
@pytest.mark.parametrize(
    "source",
    [
        ("EPSG:4326", -180.0, 180.0),
        ("EPSG:4326", 0.0, 360.0),
        ("EPSG:4326", 100.0, 280.0),
        ("EPSG:3857", -WORLD / 2, WORLD / 2),
    ],
    ids=["west", "east", "pacific", "mercator"],
)
def test_a_box_over_the_antimeridian_is_one_piece(
    tmp_path: Path, crs: str, chunks: Any, source: tuple[str, float, float]
) -> None:
    file = world(tmp_path, *source)
    collection = collect(Scene("a", {"v": file}))
    resolution = 0.05 if crs == "EPSG:4326" else 5_000.0
    cube = collection.get_xarray(bbox=FIJI, crs=crs, resolution=resolution, chunks=chunks)
    # 1.9 degrees: 40 columns or so, and not the world.
    assert 35 <= cube.sizes["x"] <= 60
    assert (np.diff(cube.x.values) > 0).all()
    check(cube.compute(), file)


def test_files_on_both_sides_meet(tmp_path: Path) -> None:
    """Two Mercator files whose edges are the antimeridian, without any box: neighbours, and not two ends of the world."""
    half = WORLD / 2
    parts = {"west": half - 64_000.0, "east": -half}
    rng = np.random.default_rng(2)
    values = {name: rng.integers(1, 999, (64, 64)).astype(np.uint16) for name in parts}
    scenes = []
    for name, left in parts.items():
        file = make_cog(
            tmp_path / f"{name}.tif",
            values[name],
            transform=Affine(1000, 0, left, 0, -1000, -1_900_000.0),
            crs="EPSG:3857",
            nodata=0,
            overviews=0,
        )
        scenes.append(Scene(name, {"v": file}))
    cube = collect(*scenes).get_xarray(groupby="1D")
    both = np.concatenate([values["west"], values["east"]], axis=1)
    # Half the world is no whole number of pixels: the second file lies a little off the first one's grid.
    assert cube.sizes["x"] in (128, 129)
    assert (cube.v.values[0][:, :64] == both[:, :64]).all()
    assert (cube.v.values[0][:, 66:126] == both[:, 66:126]).mean() > 0.99 or (
        cube.v.values[0][:, 66:126] == both[:, 65:125]
    ).mean() > 0.99


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32701"])
def test_geojson_cuts_areas_at_the_antimeridian(tmp_path: Path, crs: str) -> None:
    file = world(tmp_path)
    west, east = shapely.box(178.9, -18.0, 180.0, -16.5), shapely.box(-180.0, -18.0, -179.2, -16.5)
    cut = shapely.MultiPolygon([west, east])
    whole = shapely.box(178.9, -18.0, 180.8, -16.5)
    how: dict[str, Any] = {"crs": crs, "resolution": 0.05 if crs == "EPSG:4326" else 5_000.0}
    collection = collect(Scene("a", {"v": file}))
    one = collection.get_xarray(whole, **how).compute()
    two = collection.get_xarray(cut, **how).compute()
    assert one.sizes["x"] < 60
    assert one.x.identical(two.x)
    # In UTM the edges of the two run a little differently between their corners.
    differing = (one.v != two.v).mean()
    assert differing < 0.01 if crs == "EPSG:32701" else differing == 0
    assert (one.v.values != 0).mean() > 0.8
    want = expected(one, file)
    known = np.isfinite(want) & (one.v.values[0] != 0)
    assert np.array_equal(one.v.values[0][known], want[known])


def test_a_crs_that_is_torn_there_is_refused_with_advice(tmp_path: Path) -> None:
    collection = collect(Scene("a", {"v": world(tmp_path)}))
    with pytest.raises(rd.RasteretError, match="torn along the antimeridian") as caught:
        collection.get_xarray(bbox=FIJI, crs="ESRI:54009", resolution=5_000.0)
    assert "utm" in str(caught.value.hint)


def test_sources_that_are_torn_there_are_read_all_the_same(tmp_path: Path) -> None:
    sinusoidal = "+proj=sinu +R=6371007.181 +units=m +type=crs"
    x, _ = Transformer.from_crs("OGC:CRS84", sinusoidal, always_xy=True).transform(180.0, -17.0)
    values = np.random.default_rng(3).integers(1, 999, (200, 400)).astype(np.uint16)
    at = Affine(463.3127, 0, x - 150_000.0, 0, -463.3127, -1_850_000.0)
    file = make_cog(tmp_path / "v.tif", values, transform=at, crs=sinusoidal, nodata=0, overviews=0)
    box = {"xmin": 178.0, "ymin": -18.0, "xmax": 180.0, "ymax": -16.6}
    scene = Scene("a", {"v": file}, columns={"bbox": box})
    cube = collect(scene).get_xarray(bbox=FIJI, crs="EPSG:4326", resolution=0.01)
    assert cube.sizes["x"] == 190
    assert 0.2 < float((cube.v != 0).mean()) < 0.7


def test_items_that_lack_the_finest_band_have_a_say(tmp_path: Path) -> None:
    """The grid is that of all that is read, not of those alone that have the first of the bands."""
    made = []
    for k, band in enumerate(("a", "b")):
        at = Affine(10, 0, 500_000.0 + 640 * k, 0, -10, 5_200_000.0)
        values = np.full((64, 64), k + 1, np.uint8)
        made.append(
            Scene(band, {band: make_cog(tmp_path / f"{band}.tif", values, transform=at, nodata=0)})
        )
    cube = collect(*made).get_xarray(bands=["a", "b"], missing="nodata", groupby="1D")
    assert cube.sizes["x"] == 128
    assert (cube.a.values[0][:, :64] == 1).all()
    assert (cube.b.values[0][:, 64:] == 2).all()
