"""Cubes as other people's tools take them: rioxarray, Zarr, Dask, and, where they are installed, hvplot and xarray-spatial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from handmade import Scene, collect
from rasterio.features import geometry_mask

import rasteret_dask as rd
from rasteret_dask.testing.cog import make_cog

LEFT, TOP = 500_000.0, 5_200_000.0
AT = Affine(10, 0, LEFT, 0, -10, TOP)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "masked": {"masked": True},
    "scaled": {"masked": True, "scale": True, "mask": {"band": "m", "keep": [4]}},
}


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    path = tmp_path_factory.mktemp("tools")
    rng = np.random.default_rng(3)
    made = []
    for k in range(2):
        values = rng.integers(0, 4000, (150, 170)).astype(np.uint16)
        classes = rng.integers(3, 6, (150, 170)).astype(np.uint8)
        how: dict[str, Any] = {"transform": AT, "blocksize": 64, "overviews": 0}
        files = {
            "v": make_cog(
                path / f"v{k}.tif", values, nodata=0, scales=[1e-3], offsets=[0.5], **how
            ),
            "m": make_cog(path / f"m{k}.tif", classes, **how),
        }
        made.append(Scene(f"i{k}", files, f"2023-07-0{k + 1}T10:00:00"))
    return collect(*made)


@pytest.fixture(params=list(KINDS))
def cube(request: pytest.FixtureRequest, collection: rd.Collection) -> xr.Dataset:
    return collection.get_xarray(bands=["v"], chunks={"y": 64, "x": 64}, **KINDS[request.param])


def test_to_raster(cube: xr.Dataset, tmp_path: Path) -> None:
    cube.v.rio.to_raster(tmp_path / "v.tif")
    with rasterio.open(tmp_path / "v.tif") as file:
        assert file.crs.to_epsg() == 32633
        assert file.transform == AT
        assert np.array_equal(file.read(), cube.v.values, equal_nan=True)
        nodata = file.nodata
    assert nodata == 0 or np.isnan(nodata)


def test_clip_and_reproject(cube: xr.Dataset) -> None:
    area = shapely.Polygon(
        [(LEFT + 133, TOP - 77), (LEFT + 1311, TOP - 301), (LEFT + 707, TOP - 1307)]
    )
    clipped = cube.rio.clip([area])
    outside = geometry_mask([area], (150, 170), AT)
    nothing = np.nan if cube.v.dtype.kind == "f" else 0
    want = np.where(outside, nothing, cube.v.values)
    rows, cols = np.flatnonzero(~outside.all(axis=1)), np.flatnonzero(~outside.all(axis=0))
    box = (slice(None), slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1))
    assert np.array_equal(clipped.v.values, want[box], equal_nan=True)
    assert cube.rio.reproject("EPSG:3035").rio.crs.to_epsg() == 3035


@pytest.mark.parametrize("consolidated", [False, True])
def test_to_zarr_as_it_stands(cube: xr.Dataset, tmp_path: Path, consolidated: bool) -> None:
    cube.to_zarr(
        tmp_path / "v.zarr", consolidated=consolidated, zarr_format=2 if consolidated else 3
    )
    again = xr.open_zarr(tmp_path / "v.zarr", decode_coords="all", mask_and_scale=False)
    assert np.array_equal(again.v.values, cube.v.values, equal_nan=True)
    assert again.rio.crs == cube.rio.crs
    assert again.rio.transform() == cube.rio.transform()
    assert np.array_equal(again.time.values, cube.time.values)
    masked = xr.open_zarr(tmp_path / "v.zarr")
    assert int(masked.v.isnull().sum()) == int((cube.v.isnull() | (cube.v == 0)).sum())


def test_optimize_persist_and_rechunk(cube: xr.Dataset) -> None:
    want = cube.v.values
    (optimised,) = dask.optimize(cube)
    assert np.array_equal(optimised.v.values, want, equal_nan=True)
    assert np.array_equal(cube.persist().v.values, want, equal_nan=True)
    assert np.array_equal(cube.chunk({"time": -1, "y": 50}).v.values, want, equal_nan=True)
    loaded = cube.v.data.map_blocks(lambda block: block * 2, dtype=cube.v.dtype)
    assert np.array_equal(loaded.compute(), want * 2, equal_nan=True)
    stacked = da.stack([cube.v.data, cube.v.data])[1, :, 3:90, 5]
    assert np.array_equal(stacked.compute(), want[:, 3:90, 5], equal_nan=True)


def test_what_xarray_offers(cube: xr.Dataset) -> None:
    want = cube.v.values.astype(float)
    coarse = cube.v.astype(float).coarsen(y=10, x=10).mean()
    np.testing.assert_allclose(
        coarse.values,
        np.nanmean(want.reshape(2, 15, 10, 17, 10), axis=(2, 4)),
        rtol=1e-5,
        equal_nan=True,
    )
    point = cube.v.sel(x=LEFT + 401, y=TOP - 333, method="nearest")
    assert np.array_equal(point.values, cube.v.values[:, 33, 40], equal_nan=True)
    assert cube.v.groupby("time.month").max().sizes["month"] == 1
    assert cube.v.interp(x=[LEFT + 500.0]).shape == (2, 150, 1)
    assert np.array_equal(
        cube.where(cube.y > TOP - 500, drop=True).v.values, want[:, :50], equal_nan=True
    )


def test_functions_over_neighbours_keep_the_labels(cube: xr.Dataset) -> None:
    """The way xarray-spatial works: Dask blocks with a margin, coordinates and attributes handed on."""
    array = cube.v.isel(time=0).astype("float32")
    summed = array.copy(
        data=da.map_overlap(
            lambda block: block + np.roll(block, 1, axis=0), array.data, depth=1, boundary="nearest"
        )
    )
    want = array.values[1:] + array.values[:-1]
    assert np.array_equal(summed.values[1:], want, equal_nan=True)
    assert summed.rio.crs == cube.rio.crs


def test_xarray_spatial(cube: xr.Dataset) -> None:
    spatial = pytest.importorskip("xrspatial")
    array = cube.v.isel(time=0).astype("float32")
    lazy, whole = spatial.slope(array), spatial.slope(array.compute())
    np.testing.assert_allclose(lazy.values, whole.values, rtol=1e-5, equal_nan=True)
    focal = pytest.importorskip("xrspatial.focal")
    np.testing.assert_allclose(
        focal.mean(array).values[2:-2, 2:-2],
        focal.mean(array.compute()).values[2:-2, 2:-2],
        rtol=1e-5,
    )


def test_hvplot(cube: xr.Dataset) -> None:
    pytest.importorskip("hvplot.xarray")
    holoviews = pytest.importorskip("holoviews")

    picture = cube.v.hvplot.image(x="x", y="y", groupby="time", dynamic=False)
    first = picture[cube.time.values[0]]
    assert isinstance(first, holoviews.Image)
    shown = first.dimension_values("v", flat=False)
    want = cube.v.isel(time=0).values
    assert np.array_equal(
        shown[::-1] if shown.shape == want.shape else shown, want, equal_nan=True
    ) or (np.array_equal(shown, want, equal_nan=True))
    series = cube.v.mean(["x", "y"]).hvplot.line(x="time")
    assert len(series.dimension_values("v")) == 2
