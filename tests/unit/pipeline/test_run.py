"""Whole pipelines on generated and on real scenes, against rasterio and NumPy."""

from __future__ import annotations

import shutil
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from rasterio.windows import from_bounds

from rasteret_dask.cluster.profiles import Local, open_profile
from rasteret_dask.errors import (
    ArgumentError,
    ConfigError,
    EmptySelectionError,
    RasteretError,
    UnknownBandError,
)
from rasteret_dask.model import RetryPolicy
from rasteret_dask.pipeline import config
from rasteret_dask.pipeline import run as runner
from rasteret_dask.pipeline.run import run
from rasteret_dask.resources import folder
from rasteret_dask.runs import record as runs
from rasteret_dask.testing.catalog import write_demo_catalog

SHIPPED = folder("pipelines") / "ndvi_median.yaml"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """Two tiles, three dates, 256 pixels a side."""
    root = tmp_path_factory.mktemp("scenes")
    dates = ("2023-07-03", "2023-07-08", "2023-07-13")
    return write_demo_catalog(root, size=256, dates=dates, blocksize=64)


@pytest.fixture
def ndvi(scenes, tmp_path):
    """The shipped pipeline on the generated scenes; call it with further --set values."""

    def make(*sets: str, source: Path = scenes) -> config.Pipeline:
        own = [
            f"collection.build.static_catalog={source}",
            "collection.build.bbox=null",
            "collection.build.date_range=null",
            f"collection.build.workspace_dir={tmp_path}/workspace",
            "collection.subset=null",
            "cube.bbox=null",
            f"outputs[0].zarr={tmp_path}/ndvi.zarr",
            f"outputs[1].cog={tmp_path}/ndvi.tif",
            f"outputs[2].png={tmp_path}/ndvi.png",
        ]
        return config.from_file(SHIPPED, [*own, *sets])

    return make


def values(path) -> np.ndarray:
    with rasterio.open(path) as image:
        return image.read(1)


def test_who_goes_on_reaches_the_rasters_as_before(ndvi, tmp_path):
    """The collection of a run before is opened by its snapshot: with the pipeline's limits and retries, not with those that are usual."""
    limits = tmp_path / "limits.yaml"
    limits.write_text("retry: {stall: 7.5, attempts: 2}")
    pipeline = ndvi(f"collection.storage={limits}")
    run(pipeline)
    before = runs.load(runner.record_url(pipeline))
    found = runner.pinned_collection(pipeline, {}, before)
    assert found.storage.retry == RetryPolicy(stall=7.5, attempts=2)


def test_the_shipped_pipeline(ndvi, tmp_path):
    account = run(ndvi())
    assert account.items == 6
    assert account.headers == 30
    assert account.tasks > 0
    assert account.outputs == tuple(str(tmp_path / f"ndvi.{e}") for e in ("zarr", "tif", "png"))
    with rasterio.open(tmp_path / "ndvi.tif") as image:
        assert image.descriptions == ("ndvi",)
        assert image.dtypes == ("float32",)
        assert image.crs.to_epsg() in (32632, 32633)
        assert image.overviews(1) or max(image.shape) <= 512
        cog = image.read(1)
    stored = xr.open_zarr(tmp_path / "ndvi.zarr")
    assert list(stored.data_vars) == ["ndvi"]
    np.testing.assert_array_equal(stored.ndvi.values, cog)
    assert -1 <= np.nanmin(cog) < 0 < np.nanmax(cog) <= 1
    with rasterio.open(tmp_path / "ndvi.png") as picture:
        assert picture.shape == cog.shape
        np.testing.assert_array_equal(picture.read(4) == 0, np.isnan(cog))


def test_headers_are_read_once_and_pixels_once(ndvi, monkeypatch, tmp_path):
    first = run(ndvi())
    again = run(ndvi())
    assert again.headers == 0
    assert first.requests - again.requests == first.headers
    one_output = run(ndvi(f"outputs=[{{cog: {tmp_path}/one.tif}}]"))
    assert one_output.requests == again.requests
    # A result that is too large to keep goes through the Zarr store, not through the scenes again.
    monkeypatch.setattr(runner, "_SMALL", 0)
    large = run(ndvi(f"outputs=[{{cog: {tmp_path}/two.tif}}, {{zarr: {tmp_path}/two.zarr}}]"))
    assert large.requests == again.requests
    assert large.outputs == (f"{tmp_path}/two.tif", f"{tmp_path}/two.zarr")
    for name in ("one.tif", "two.tif"):
        np.testing.assert_array_equal(values(tmp_path / name), values(tmp_path / "ndvi.tif"))


@pytest.mark.parametrize(
    "chunks", ["tile", "{time: 1}", "{time: -1, y: 100, x: 37}", "{y: -1, x: -1}"]
)
def test_the_result_does_not_depend_on_chunks(ndvi, tmp_path, chunks):
    run(ndvi())
    run(ndvi(f"cube.chunks={chunks}", f"outputs=[{{cog: {tmp_path}/other.tif}}]"))
    np.testing.assert_array_equal(values(tmp_path / "other.tif"), values(tmp_path / "ndvi.tif"))


@pytest.mark.parametrize("processes", [False, True])
def test_the_result_does_not_depend_on_the_scheduler(ndvi, tmp_path, processes):
    here = run(ndvi())
    profile = Local(kind="local", workers=2, threads=1, processes=processes)
    with open_profile(profile) as client:
        there = run(
            ndvi("collection.build.name=other", f"outputs=[{{cog: {tmp_path}/other.tif}}]"),
            client=client,
        )
    assert (there.items, there.headers) == (here.items, here.headers)
    assert (there.requests, there.bytes) == (here.requests, here.bytes)
    np.testing.assert_array_equal(values(tmp_path / "other.tif"), values(tmp_path / "ndvi.tif"))


def test_loading_cropping_to_polygons_and_keeping_time(ndvi, tmp_path):
    run(ndvi())
    with rasterio.open(tmp_path / "ndvi.tif") as image:
        box, crs = image.bounds, image.crs
    circle = shapely.Point((box.left + box.right) / 2, (box.bottom + box.top) / 2).buffer(500)
    geopandas.GeoSeries([circle], crs=crs).to_file(tmp_path / "aoi.geojson", driver="GeoJSON")
    pipeline = ndvi(
        "collection.build=null",
        f"collection.load={tmp_path}/workspace/ndvi-median",
        "collection.subset={date_range: [2023-07-08, 2023-07-13]}",
        f"cube.geometries={tmp_path}/aoi.geojson",
        "steps=[{expression: {ndvi: (B08 - B04) / (B08 + B04)}, keep: [B08]}]",
        f"outputs=[{{zarr: {tmp_path}/series.zarr}}]",
    )
    account = run(pipeline)
    assert (account.items, account.headers) == (4, 0)
    series = xr.open_zarr(tmp_path / "series.zarr")
    assert series.ndvi.dims == ("time", "y", "x")
    assert list(series.data_vars) == ["B08", "ndvi"]
    assert series.sizes["time"] == 2
    assert series.sizes["x"] <= 112
    assert np.isnan(series.ndvi.values[:, 0, 0]).all()  # a corner lies outside the circle
    assert 0 < np.nanmax(series.B08) < 2  # reflectance, not digital numbers


def test_no_steps_gives_the_bands_as_they_are(ndvi, tmp_path):
    output = f"outputs=[{{zarr: {tmp_path}/plain.zarr}}]"
    run(ndvi("steps=[]", "cube.scale=false", "cube.mask=null", "cube.masked=null", output))
    stored = xr.open_zarr(tmp_path / "plain.zarr", mask_and_scale=False)
    assert stored.B04.dtype == np.uint16


@pytest.mark.parametrize(
    ("sets", "error", "words"),
    [
        (["cube.bands[0]=B99", "steps[0].expression.ndvi=B99 + B08"], UnknownBandError, "B99"),
        (["collection.subset.date_range=[1999-01-01, 1999-02-01]"], EmptySelectionError, "1999"),
        (["cube.bbox=[0, 0, 1, 1]"], EmptySelectionError, "meets the area"),
        (["cube.mask.band=CLD"], UnknownBandError, "CLD"),
        (["cube.crs=EPSG:999999"], ArgumentError, "999999"),
        (["cube.resampling=magic"], ArgumentError, "magic"),
        (["cube.geometries=nowhere.geojson"], ConfigError, "cube.geometries"),
    ],
)
def test_errors_say_what_is_wrong(ndvi, tmp_path, sets, error, words):
    with pytest.raises(error, match=words):
        run(ndvi(*sets))
    assert not (tmp_path / "ndvi.tif").exists()


@pytest.mark.parametrize("damage", ["no TIFF", "missing", "truncated"])
def test_a_bad_file_is_named_and_never_a_hole(ndvi, scenes, tmp_path, damage):
    shutil.copytree(scenes.parent, tmp_path / "scenes")
    bad = next((tmp_path / "scenes").glob("*32TQT_20230708*")) / "B08.tif"
    if damage == "missing":
        bad.unlink()
    elif damage == "no TIFF":
        bad.write_bytes(b"<html>not here</html>")
    else:
        bad.write_bytes(bad.read_bytes()[:-2000])
    with pytest.raises(RasteretError) as caught:
        run(ndvi(source=tmp_path / "scenes" / "catalog.json"))
    said = str(caught.value)
    assert "32TQT_20230708" in said
    assert "B08" in said
    assert not (tmp_path / "ndvi.tif").exists()
    # Without that day the rest is as good as ever.
    rest = ndvi(
        "collection.subset={date_range: [2023-07-12, 2023-07-14]}",
        source=tmp_path / "scenes" / "catalog.json",
    )
    assert run(rest).items == 2


def test_ndvi_median_of_real_scenes_equals_rasterio(ndvi, austria, tmp_path):
    """An area that only tile 33TWL covers; both tiles and both masks take part in the build."""
    run(ndvi("cube.bbox=[15.2, 45.3, 15.5, 45.5]", source=austria / "catalog.json"))
    with rasterio.open(tmp_path / "ndvi.tif") as image:
        result, bounds = image.read(1), image.bounds
    looks = []
    for item in sorted(austria.glob("*_33TWL_*")):
        bands = {}
        for band in ("B04", "B08", "SCL"):
            with rasterio.open(item / f"{band}.tif") as image:
                bands[band] = image.read(1, window=from_bounds(*bounds, image.transform))
        red, nir = (np.float32(bands[b]) * np.float32(1e-4) for b in ("B04", "B08"))
        clear = np.isin(bands["SCL"], [4, 5, 6, 7]) & (bands["B04"] != 0) & (bands["B08"] != 0)
        with np.errstate(all="ignore"):
            looks.append(np.where(clear, (nir - red) / (nir + red), np.nan))
    assert len(looks) == 5
    seen = ~np.isnan(looks).all(axis=0)
    expected = np.full(result.shape, np.nan)
    expected[seen] = np.nanmedian(np.array(looks)[:, seen], axis=0)
    assert seen.mean() > 0.9
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)
