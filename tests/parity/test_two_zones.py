"""Side by side with odc-stac and stackstac on generated scenes in two UTM zones: one grid, the same pixels.

Both of them warp by GDAL, which allows itself an error of an eighth of a pixel of the source: where an exact coordinate lies nearer than
that to a pixel's edge, their pixel may be the neighbour. Everywhere else nearest must be equal. Interpolated values may differ by one
number and a hundredth of what neighbours differ by.
"""

from __future__ import annotations

import datetime as dt
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import xarray as xr
from pyproj import Transformer

import rasteret_dask as rd
from rasteret_dask.testing.catalog import write_demo_catalog

stackstac = pytest.importorskip("stackstac")

EIGHTH = 0.13
BANDS = ["red", "nir"]
GRIDS: dict[str, dict[str, Any]] = {
    "zone 32": {"crs": "EPSG:32632", "resolution": 10},
    "zone 33": {"crs": "EPSG:32633", "resolution": 10},
    "coarser": {"crs": "EPSG:32633", "resolution": 14},
    "equal area": {"crs": "EPSG:3035", "resolution": 10},
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_catalog(
        tmp_path_factory.mktemp("zones"), size=256, blocksize=64, dates=("2023-07-03", "2023-07-08")
    )


@pytest.fixture(scope="module")
def collection(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    return rd.build_from_stac(
        static_catalog=catalog, name="zones", workspace_dir=tmp_path_factory.mktemp("workspace")
    )


@pytest.fixture(scope="module")
def items(catalog: Path) -> list[pystac.Item]:
    found = pystac.Catalog.from_file(str(catalog)).get_items(recursive=True)
    out = sorted(found, key=lambda i: (i.datetime, i.id))
    for item in out:
        item.make_asset_hrefs_absolute()
        for asset in item.assets.values():
            # pystac rewrites proj:epsg to proj:code, which stackstac does not know; without either it asks the file.
            for name in ("proj:shape", "proj:transform", "proj:code"):
                asset.extra_fields.pop(name, None)
    assert {rasterio.open(i.assets["red"].href).crs.to_epsg() for i in out} == {32632, 32633}
    return out


def ours(collection: rd.Collection, grid: str, **how: Any) -> xr.Dataset:
    return collection.get_xarray(
        bands=BANDS, groupby="solar_day", overviews=False, **GRIDS[grid], **how
    ).compute()


def by_odc(items: list[pystac.Item], cube: xr.Dataset, resampling: str) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return odc.stac.load(
            items,
            bands=BANDS,
            groupby="solar_day",
            geobox=odc.geo.geobox.GeoBox(
                cube.red.shape[1:], cube.rio.transform(), cube.rio.crs.to_wkt()
            ),
            resampling=resampling,
            use_overviews=False,
        )


def by_stackstac(items: list[pystac.Item], cube: xr.Dataset, resampling: str) -> xr.Dataset:
    days: dict[dt.date, list[pystac.Item]] = {}
    for item in items:
        days.setdefault(item.datetime.date(), []).append(item)
    steps = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for day in days.values():
            stack = stackstac.stack(
                day,
                assets=BANDS,
                epsg=cube.rio.crs.to_epsg(),
                resolution=cube.rio.resolution()[0],
                bounds=cube.rio.bounds(),
                snap_bounds=False,
                rescale=False,
                resampling=rasterio.enums.Resampling[resampling],
                sortby_date="asc",
            )
            # In stackstac's words the first on top is the reverse.
            steps.append(stackstac.mosaic(stack, dim="time", reverse=True).compute())
    values = np.nan_to_num(np.stack([s.values for s in steps]))
    return xr.Dataset({b: (("time", "y", "x"), values[:, k]) for k, b in enumerate(BANDS)})


def places(item: pystac.Item, cube: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Exact columns and rows of an item for each pixel of a cube, its validity, and whether nothing has to be warped."""
    x, y = np.meshgrid(cube.x.values, cube.y.values)
    with rasterio.open(item.assets["red"].href) as file:
        there = Transformer.from_crs(cube.rio.crs, file.crs, always_xy=True)
        t, plain, valid = file.transform, file.crs == cube.rio.crs, file.read(1) != 0
    sx, sy = there.transform(x, y)
    return (sx - t.c) / t.a, (sy - t.f) / t.e, valid, plain and t.a == cube.rio.resolution()[0]


def near_an_edge(items: list[pystac.Item], cube: xr.Dataset) -> np.ndarray:
    """Where the exact coordinate in a file that has to be warped lies nearer than an eighth of a pixel to a pixel's edge."""
    out = np.zeros(cube.red.shape[1:], bool)
    for item in items:
        u, v, valid, plain = places(item, cube)
        within = 1e-5 if plain else EIGHTH
        inside = (u > -1) & (u < valid.shape[1] + 1) & (v > -1) & (v < valid.shape[0] + 1)
        near = (abs(u - np.round(u)) < within) | (abs(v - np.round(v)) < within)
        out |= near & inside
    return out


def at_a_border(items: list[pystac.Item], cube: xr.Dataset) -> np.ndarray:
    """Where an item ends, or its nodata begins, within three pixels: kernels of different make see different pixels there."""
    out = np.zeros(cube.red.shape[1:], bool)
    for item in items:
        u, v, valid, _ = places(item, cube)
        framed = np.pad(valid, 8)
        some, every = framed.copy(), framed.copy()
        for dy in range(-3, 4):
            for dx in range(-3, 4):
                moved = np.roll(framed, (dy, dx), axis=(0, 1))
                some |= moved
                every &= moved
        rows = np.clip(np.floor(v).astype(int) + 8, 0, framed.shape[0] - 1)
        cols = np.clip(np.floor(u).astype(int) + 8, 0, framed.shape[1] - 1)
        out |= (some & ~every)[rows, cols]
    return out


READERS = {"odc-stac": by_odc, "stackstac": by_stackstac}


@pytest.mark.parametrize("reader", list(READERS))
@pytest.mark.parametrize("grid", list(GRIDS))
def test_nearest_is_theirs_wherever_their_eighth_of_a_pixel_does_not_decide(
    collection: rd.Collection, items: list[pystac.Item], grid: str, reader: str
) -> None:
    cube = ours(collection, grid, chunks={"y": 100, "x": 77})
    theirs = READERS[reader](items, cube, "nearest")
    unsure = near_an_edge(items, cube)
    assert unsure.mean() < 0.75
    for band in BANDS:
        mine, other = cube[band].values, theirs[band].values
        assert mine.shape == other.shape
        assert (mine != 0).mean() > 0.3
        differing = mine != other
        assert not differing[:, ~unsure].any()
        # And where it may decide, it seldom does.
        assert differing.mean() < 0.05


# How far a pixel may be off: one digital number, and this share of the largest step to one of its eight neighbours. Both of them let GDAL
# interpolate coordinates to an eighth of a pixel at worst, odc-stac over smaller pieces.
SHARES = {"odc-stac": 0.005, "stackstac": 0.012}
# Where pixels grow, GDAL makes bilinear and cubic kernels as wide as the piece that it warps suggests, be it half empty: theirs are
# wider or narrower than 1.4 pixels there (tests/parity/test_bounds.py tells GDAL the width, and the difference is gone).
WIDTHS = {"odc-stac": 0.4, "stackstac": 2.0}


@pytest.mark.parametrize("reader", list(READERS))
@pytest.mark.parametrize("method", ["bilinear", "cubic", "average"])
@pytest.mark.parametrize(
    "grid",
    [
        "zone 33",
        pytest.param("coarser", marks=pytest.mark.slow),
        pytest.param("equal area", marks=pytest.mark.slow),
    ],
)
def test_other_methods_are_theirs_within_a_hundredth_of_the_contrast(
    collection: rd.Collection, items: list[pystac.Item], grid: str, method: str, reader: str
) -> None:
    cube = ours(collection, grid, resampling=method, chunks={"y": 100, "x": 77})
    theirs = READERS[reader](items, cube, method)
    border = at_a_border(items, cube)
    share = (WIDTHS if grid == "coarser" and method != "average" else SHARES)[reader]
    for band in BANDS:
        mine, other = cube[band].values.astype(float), theirs[band].values.astype(float)
        inner = (mine != 0) & (other != 0) & ~border
        assert inner.mean() > 0.2
        contrast = np.zeros(mine.shape)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                contrast = np.maximum(contrast, abs(np.roll(mine, (dy, dx), axis=(1, 2)) - mine))
        off = abs(mine - other)
        assert (off <= share * contrast + 1.0)[inner].all()
        assert not ((mine != 0) != (other != 0))[:, ~border].any()
