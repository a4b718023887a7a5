"""Real scenes in another projection: how far bilinear, cubic and average are from odc-stac's and GDAL's, and why.

GDAL widens its kernels by the size of what it writes over the size of what it reads, in the piece that it happens to warp. A piece that is
half empty gives another width than a full one, so their pixels depend on what lies around them. Told the width (``XSCALE``, ``YSCALE``),
GDAL gives our pixels within a tenth of the local contrast; left alone, with odc-stac or without it, it is several times as far away.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import xarray as xr
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject

import rasteret_dask as rd

BBOX = (14.6, 46.6, 15.4, 47.1)
GRIDS = [("EPSG:3035", 120.0), ("EPSG:3035", 170.0), ("EPSG:32632", 120.0)]
# Beside one digital number: shares of the largest step to one of eight neighbours. Measured 0.081, 0.054 and 0.57.
TOLD = {"bilinear": 0.1, "cubic": 0.1, "average": 0.08}
ALONE = {"bilinear": 0.5, "cubic": 0.8, "average": 0.08}


@pytest.fixture(scope="module")
def items(austria: Path) -> list[pystac.Item]:
    """One day's."""
    found = [pystac.Item.from_file(str(p)) for p in sorted(austria.glob("S2*/*.json"))]
    day = sorted({i.datetime.date() for i in found})[1]
    out = sorted((i for i in found if i.datetime.date() == day), key=lambda i: (i.datetime, i.id))
    for item in out:
        item.make_asset_hrefs_absolute()
        for asset in item.assets.values():
            # They speak of the 10 m originals, and odc-stac believes them.
            for name in ("proj:shape", "proj:transform"):
                asset.extra_fields.pop(name, None)
    return out


@pytest.fixture(scope="module")
def collection(austria: Path, tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    workspace = tmp_path_factory.mktemp("workspace")
    catalog = austria / "catalog.json"
    return rd.build_from_stac(
        static_catalog=catalog, name="a", bands=["red"], workspace_dir=workspace
    )


def by_odc(items: list[pystac.Item], cube: xr.Dataset, method: str) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return odc.stac.load(
            items,
            bands=["red"],
            groupby="solar_day",
            geobox=cube.odc.geobox,
            resampling=method,
            use_overviews=False,
        ).red.values[0]


def source_places(file: rasterio.DatasetReader, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Columns and rows in a file."""
    t = file.transform
    return [(x - t.c) / t.a, (y - t.f) / t.e]


def width_of(file: rasterio.DatasetReader, cube: xr.Dataset) -> tuple[float, float]:
    """Pixels of a file to a pixel of the cube, along x and y, in the middle of what both have."""
    to_file = Transformer.from_crs(cube.rio.crs, file.crs, always_xy=True)
    box = to_file.transform_bounds(*cube.rio.bounds())
    left, right = max(box[0], file.bounds.left), min(box[2], file.bounds.right)
    bottom, top = max(box[1], file.bounds.bottom), min(box[3], file.bounds.top)
    x, y = to_file.transform((left + right) / 2, (bottom + top) / 2, direction="INVERSE")
    dx, dy = cube.rio.resolution()
    places = to_file.transform(np.array([x, x + dx, x]), np.array([y, y, y + dy]))
    u, v = source_places(file, *places)
    return float(np.hypot(u[1] - u[0], u[2] - u[0])), float(np.hypot(v[1] - v[0], v[2] - v[0]))


def by_gdal(items: list[pystac.Item], cube: xr.Dataset, method: str) -> np.ndarray:
    """GDAL's warp of each file in one piece, without its tolerance, told how wide kernels are; the first valid pixel."""
    out = np.zeros(cube.red.shape[1:], np.uint16)
    for item in items:
        with rasterio.open(item.assets["red"].href) as file:
            x, y = width_of(file, cube)
            warped = np.zeros_like(out)
            reproject(
                file.read(1),
                warped,
                src_transform=file.transform,
                src_crs=file.crs,
                src_nodata=0,
                dst_transform=cube.rio.transform(),
                dst_crs=cube.rio.crs,
                dst_nodata=0,
                resampling=Resampling[method],
                tolerance=0,
                XSCALE=str(1 / x),
                YSCALE=str(1 / y),
            )
        out = np.where(out == 0, warped, out)
    return out


def whole(items: list[pystac.Item], cube: xr.Dataset) -> np.ndarray:
    """Where all of each file within four pixels is valid, or none is: kernels of different make see different pixels at borders."""
    x, y = np.meshgrid(cube.x.values, cube.y.values)
    out = np.ones(x.shape, bool)
    for item in items:
        with rasterio.open(item.assets["red"].href) as file:
            valid = np.pad(file.read(1) != 0, 8)
            to_file = Transformer.from_crs(cube.rio.crs, file.crs, always_xy=True)
            u, v = source_places(file, *to_file.transform(x, y))
        some, every = valid.copy(), valid.copy()
        for dy in range(-4, 5):
            for dx in range(-4, 5):
                moved = np.roll(valid, (dy, dx), axis=(0, 1))
                some |= moved
                every &= moved
        rows = np.clip(np.floor(v).astype(int) + 8, 0, valid.shape[0] - 1)
        cols = np.clip(np.floor(u).astype(int) + 8, 0, valid.shape[1] - 1)
        out &= (every | ~some)[rows, cols]
    return out


def excess(mine: np.ndarray, other: np.ndarray, inner: np.ndarray) -> float:
    """The largest difference beyond one digital number, as a share of the local contrast."""
    contrast = np.ones(mine.shape)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            contrast = np.maximum(contrast, abs(np.roll(mine, (dy, dx), axis=(0, 1)) - mine))
    return float(((abs(mine - other) - 1.0) / contrast)[inner].max())


@pytest.mark.parametrize("method", list(TOLD))
@pytest.mark.parametrize(
    ("crs", "resolution"),
    [GRIDS[1], *(pytest.param(*grid, marks=pytest.mark.slow) for grid in (GRIDS[0], GRIDS[2]))],
)
def test_warped_values_are_within_a_stated_share_of_the_contrast(
    collection: rd.Collection, items: list[pystac.Item], crs: str, resolution: float, method: str
) -> None:
    day = str(items[0].datetime.date())
    cube = collection.subset(date_range=(day, day)).get_xarray(
        bands=["red"],
        groupby="solar_day",
        crs=crs,
        resolution=resolution,
        resampling=method,
        overviews="off",
        bbox=BBOX,
        chunks={"y": 100, "x": 190},
    )
    cube = cube.compute()
    mine = cube.red.values[0].astype(float)
    told = by_gdal(items, cube, method).astype(float)
    alone = by_odc(items, cube, method).astype(float)
    inner = whole(items, cube) & (mine != 0) & (told != 0) & (alone != 0)
    assert inner.mean() > 0.2
    assert excess(mine, told, inner) <= TOLD[method]
    assert excess(mine, alone, inner) <= ALONE[method]
    if method != "average":
        # The width is what they differ by.
        assert excess(mine, told, inner) < 0.5 * excess(mine, alone, inner)
