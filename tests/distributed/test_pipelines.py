"""Pipelines as people run them: broken off and gone on with, unit by unit, and those that ship."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pystac
import pytest
import rasterio
import shapely
import xarray as xr
from rasterio.features import geometry_mask

from rasteret_dask import resources
from rasteret_dask.pipeline import config, foreach
from rasteret_dask.pipeline.report import page
from rasteret_dask.pipeline.run import run
from rasteret_dask.runs.alive import standing
from rasteret_dask.testing.catalog import write_demo_catalog

DATES = ("2023-07-03", "2023-07-08", "2023-07-13")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """Two tiles, three dates, 128 pixels a side."""
    root = tmp_path_factory.mktemp("scenes")
    return write_demo_catalog(root, size=128, dates=DATES, blocksize=64)


@pytest.fixture
def sets(scenes, tmp_path):
    """--set values that point a shipped pipeline at the generated scenes."""
    return [
        f"collection.build.static_catalog={scenes}",
        "collection.build.bbox=null",
        "collection.build.date_range=null",
        f"collection.build.workspace_dir={tmp_path}/workspace",
        "collection.subset=null",
        "cube.bbox=null",
    ]


# --- broken off ----------------------------------------------------------------------------------
SLOW = """
import time

def nap(block):
    time.sleep(0.1)
    return block

def slow(ds):
    return ds.map(lambda a: a.copy(data=a.data.map_blocks(nap, dtype=a.dtype, meta=a.data._meta)))
"""


@pytest.mark.parametrize(
    "sign",
    [signal.SIGKILL, signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
)
def test_a_run_that_was_broken_off_goes_on(sets, tmp_path, sign):
    (tmp_path / "slow_step.py").write_text(SLOW)
    store = tmp_path / "ndvi.zarr"
    own = [
        *sets,
        "cube.chunks={time: -1, y: 32, x: 32}",
        "steps[2].custom={function: 'slow_step:slow', variables: [ndvi]}",
        f"outputs=[{{zarr: {store}}}, {{cog: {tmp_path}/ndvi.tif}}]",
    ]
    command = [sys.executable, "-c", "from rasteret_dask.cli import main; main()", "run"]
    command += ["ndvi_median", "--allow-custom", "--json"]
    command += [part for one in own for part in ("--set", one)]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    options = {"cwd": tmp_path, "env": environment, "text": True}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

    def markers() -> int:
        return len(list(Path(f"{store}.regions").glob("*.done")))

    # A shell that runs the tests in the background has told them to ignore Ctrl-C, and what they start would inherit that.
    of_shell = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, **options, **pipes)
    signal.signal(signal.SIGINT, of_shell)
    while markers() < 5:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(sign)
    _, stderr = process.communicate()
    record = json.loads(Path(f"{store}.run.json").read_text())
    if sign == signal.SIGKILL:
        assert record["state"] == "running"  # nobody was left to write an end, so it is looked at
        state, note = standing(record)
        assert state == "broken off"
        assert f"process {process.pid} of {socket.gethostname()} is gone" in note
        assert note in page(f"{store}.run.json")
    else:
        assert process.returncode == 75
        assert "--resume" in stderr
        assert record["state"] == "interrupted"
    there = markers()
    assert there >= 5
    with pytest.raises(FileNotFoundError):
        xr.open_zarr(store)
    again = subprocess.run([*command, "--resume"], **options, capture_output=True, check=True)
    if sign == signal.SIGKILL:
        assert "goes on with a run that is broken off" in again.stderr
    account = json.loads(again.stdout)
    assert account["regions"] > there
    assert account["computed"] == account["regions"] - there
    whole = config.from_file(
        resources.find("ndvi_median", "pipelines"), [*sets, f"outputs=[{{cog: {tmp_path}/w.tif}}]"]
    )
    run(whole)
    with rasterio.open(tmp_path / "w.tif") as expected, rasterio.open(tmp_path / "ndvi.tif") as cog:
        np.testing.assert_array_equal(cog.read(1), expected.read(1))
        np.testing.assert_array_equal(xr.open_zarr(store).ndvi.values, expected.read(1))
    third = subprocess.run([*command, "--resume"], **options, capture_output=True, check=True)
    assert json.loads(third.stdout)["reused"]
    assert json.loads(Path(f"{store}.run.json").read_text())["state"] == "done"


# --- foreach -------------------------------------------------------------------------------------
@pytest.fixture
def districts(scenes, tmp_path) -> Path:
    """Four squares of 300 m within the scenes, and one far away."""
    squares = [shapely.box(12 + n * 0.001, 47.2, 12.004 + n * 0.001, 47.203) for n in range(4)]
    frame = geopandas.GeoDataFrame(
        {"code": ["a", "b", "c", "d", "far"]}, geometry=[*squares, shapely.box(0, 0, 1, 1)]
    )
    frame.set_crs("OGC:CRS84").to_parquet(tmp_path / "districts.parquet")
    return tmp_path / "districts.parquet"


def each(sets, tmp_path, districts, *more) -> config.Pipeline:
    own = [
        f"foreach={{table: {districts}, id: code}}",
        f"outputs=[{{cog: '{tmp_path}/out/{{code}}.tif'}}]",
        f"collection.build.name=each-{len(more)}",
        "cube.crs=EPSG:32633",
    ]
    return config.from_file(resources.find("ndvi_median", "pipelines"), [*sets, *own, *more])


def test_foreach(sets, tmp_path, districts):
    told = foreach.run_each(each(sets, tmp_path, districts))
    assert [(u.id, u.state) for u in told.units] == [
        ("a", "done"),
        ("b", "done"),
        ("c", "done"),
        ("d", "done"),
        ("far", "empty"),
    ]
    with rasterio.open(tmp_path / "out" / "a.tif") as a, rasterio.open(tmp_path / "out/b.tif") as b:
        assert a.bounds.left < b.bounds.left
        assert max(a.shape) < 50
    # Again: what is done stays; a unit whose record is gone, or whose district moved, is run.
    (tmp_path / "out" / "b.tif.run.json").unlink()
    frame = geopandas.read_parquet(districts)
    frame.loc[frame.code == "c", "geometry"] = shapely.box(12.001, 47.2, 12.003, 47.202)
    frame.to_parquet(districts)
    again = foreach.run_each(each(sets, tmp_path, districts), resume=True)
    assert [u.state for u in again.units] == ["there", "done", "done", "there", "empty"]
    record = json.loads((tmp_path / "out" / "c.tif.run.json").read_text())
    assert record["pipeline"]["outputs"] == [{"cog": f"{tmp_path}/out/c.tif"}]
    assert shapely.from_wkt(record["area"]["wkt"][0]).bounds == (12.001, 47.2, 12.003, 47.202)


def test_a_unit_that_fails_stops_nobody(sets, tmp_path, districts):
    (tmp_path / "out" / "b.tif").mkdir(parents=True)  # where the output should go is a folder
    (tmp_path / "out" / "c.tif.run.json").write_text("not a record")
    told = foreach.run_each(each(sets, tmp_path, districts, "name=x"))
    assert [u.state for u in told.units] == ["done", "failed", "failed", "done", "empty"]
    first, second = told.failed
    assert "b.tif could not be written: Is a directory" in first.error
    assert json.loads(Path(first.record).read_text())["state"] == "failed"
    assert "is no record" in second.error


def test_shards_share_nothing_and_leave_nothing_out(sets, tmp_path, districts):
    found = [
        [u.id for u in foreach.units(each(sets, tmp_path, districts, f"foreach.shard={i}/3"))]
        for i in range(3)
    ]
    assert found == [["a", "d"], ["b", "far"], ["c"]]


# --- those that ship -----------------------------------------------------------------------------
@pytest.fixture
def shipped(scenes, tmp_path, monkeypatch):
    """Run a shipped pipeline on generated scenes (or others); outputs go to tmp_path/output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RASTERET_DASK_WORKSPACE", str(tmp_path / "workspace"))

    def go(name: str, source: Path = scenes, *more: str):
        own = [
            f"collection.build.static_catalog={source}",
            "collection.build.bbox=null",
            "collection.build.date_range=null",
            "collection.subset=null",
        ]
        text = resources.find(name, "pipelines").read_text()
        own += ["cube.bbox=null"] if "\n  bbox:" in text.split("cube:")[1] else []
        pipeline = config.from_file(resources.find(name, "pipelines"), [*own, *more])
        runner = run if pipeline.foreach is None else foreach.run_each
        return runner(pipeline)

    return go


def squares(path: Path, n: int = 3, **columns: object) -> Path:
    shapes = [shapely.box(12 + k * 0.002, 47.2, 12.0015 + k * 0.002, 47.2012) for k in range(n)]
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")
    frame.to_file(path, driver="GeoJSON")
    return path


def test_every_shipped_pipeline_has_a_test():
    here = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert all(f'"{name}"' in here for name in resources.names("pipelines"))


def test_cloud_free_mosaic(shipped, tmp_path):
    account = shipped("cloud_free_mosaic")
    assert account.outputs[-1] == "output/mosaic.json"
    with rasterio.open("output/mosaic.tif") as image:
        assert image.descriptions == ("B02", "B03", "B04", "B08")
        mosaic, bounds = image.read(), image.bounds
    with rasterio.open("output/looks.tif") as image:
        looks = image.read(1)
    assert np.array_equal(np.isnan(mosaic[0]), looks == 0)
    assert 0 < np.nanmedian(mosaic[2]) < np.nanmedian(mosaic[3]) < 1
    item = pystac.Item.from_file("output/mosaic.json")
    assert set(item.assets) == {"cog", "cog-looks", "png"}
    assert item.assets["cog"].href == "mosaic.tif"
    west, south, east, north = item.bbox
    assert west < 12.0 < east
    assert south < 47.2 < north
    assert item.common_metadata.start_datetime.day == 3
    assert item.common_metadata.end_datetime.day == 13
    assert item.properties["proj:shape"] == list(mosaic.shape[1:])
    assert item.properties["proj:transform"][2] == bounds.left


def test_greenest_look(shipped):
    shipped("greenest_look")
    stored = xr.open_zarr("output/greenest.zarr")
    assert list(stored.data_vars) == ["B02", "B03", "B04", "B08", "ndvi"]
    red, nir = stored.B04.values, stored.B08.values
    np.testing.assert_allclose(stored.ndvi, (nir - red) / (nir + red), atol=1e-6)
    with rasterio.open("output/greenest.tif") as image:
        np.testing.assert_array_equal(image.read(4), nir)
    shipped("ndvi_median")
    with rasterio.open("output/ndvi.tif") as image:
        median = image.read(1)
    assert (stored.ndvi.values >= median - 1e-6)[~np.isnan(median)].all()


def test_ndvi_monthly(shipped):
    shipped("ndvi_monthly")
    shipped("ndvi_median")
    stored = xr.open_zarr("output/ndvi_monthly.zarr")
    assert [str(t)[:10] for t in stored.time.values] == ["2023-07-01"]
    with rasterio.open("output/ndvi.tif") as image:
        np.testing.assert_array_equal(stored.ndvi[0], image.read(1))


def test_ndvi_fields(shipped, tmp_path, monkeypatch):
    fields = squares(tmp_path / "f.geojson", id=["x", "y", "z"])
    monkeypatch.setenv("FIELDS", str(fields))
    account = shipped("ndvi_fields")
    rows = pandas.read_parquet("output/ndvi_fields.parquet")
    assert list(rows.id.unique()) == ["x", "y", "z"]
    assert len(rows) == 9
    assert rows.ndvi_count.max() > 100
    seen = rows[rows.ndvi_count > 0]
    assert (seen.ndvi_p10 <= seen.ndvi_median).all()
    assert (seen.ndvi_median <= seen.ndvi_p90).all()
    text = pandas.read_csv("output/ndvi_fields.csv")
    np.testing.assert_allclose(text.ndvi_mean, rows.ndvi_mean)
    assert account.items == 6


def test_training_points(shipped, tmp_path, monkeypatch):
    shapes = [shapely.Point(12.001, 47.2005), shapely.Point(12.003, 47.201)]
    frame = geopandas.GeoDataFrame(
        {"id": [7, 8], "label": ["oak", "lake"]}, geometry=shapes, crs="EPSG:4326"
    )
    frame.to_file(tmp_path / "p.geojson", driver="GeoJSON")
    monkeypatch.setenv("POINTS", str(tmp_path / "p.geojson"))
    shipped("training_points")
    rows = pandas.read_parquet("output/training_points.parquet")
    assert list(rows.columns) == ["id", "label", "time", "B02", "B03", "B04", "B08", "ndvi", "ndwi"]
    assert list(rows.label) == ["oak"] * 3 + ["lake"] * 3
    np.testing.assert_allclose(rows.ndvi, (rows.B08 - rows.B04) / (rows.B08 + rows.B04), atol=1e-6)


def test_ndvi_districts(shipped, districts, monkeypatch):
    monkeypatch.setenv("DISTRICTS", str(districts))
    told = shipped("ndvi_districts")
    assert [u.state for u in told.units] == ["done"] * 4 + ["empty"]
    assert sorted(p.name for p in Path("output/districts").glob("*.tif")) == [
        "a.tif",
        "b.tif",
        "c.tif",
        "d.tif",
    ]


# --- on real scenes ------------------------------------------------------------------------------
AREA = "cube.bbox=[15.2, 45.3, 15.3, 45.37]"


def test_mosaic_of_real_scenes(shipped, austria):
    shipped("cloud_free_mosaic", austria / "catalog.json", AREA)
    with rasterio.open("output/looks.tif") as image:
        looks = image.read(1)
    with rasterio.open("output/mosaic.tif") as image:
        mosaic = image.read()
    assert looks.max() <= 5
    assert (looks > 0).mean() > 0.9
    assert 0 < np.nanmedian(mosaic[2]) < 0.2 < np.nanmedian(mosaic[3]) < 0.6


def test_fields_of_real_scenes_equal_rasterio(shipped, austria, tmp_path, monkeypatch):
    """Two fields in the tile 33TWL, all dates, against rasterio.mask and NumPy."""
    shapes = [shapely.Point(15.24, 45.33).buffer(0.006), shapely.Point(15.28, 45.35).buffer(0.01)]
    frame = geopandas.GeoDataFrame({"id": [1, 2]}, geometry=shapes, crs="EPSG:4326")
    frame.to_file(tmp_path / "f.geojson", driver="GeoJSON")
    monkeypatch.setenv("FIELDS", str(tmp_path / "f.geojson"))
    shipped("ndvi_fields", austria / "catalog.json")
    rows = pandas.read_parquet("output/ndvi_fields.parquet").set_index(["id", "time"])
    dates = sorted(rows.index.get_level_values("time").unique())
    items = sorted(austria.glob("*_33TWL_*"), key=lambda item: item.name.split("_")[2])
    assert len(dates) == len(items) == 5
    for date, item in zip(dates, items, strict=True):
        with rasterio.open(item / "B04.tif") as image:
            crs, transform, shape = image.crs, image.transform, image.shape
            red = image.read(1)
        with rasterio.open(item / "B08.tif") as image:
            nir = image.read(1)
        with rasterio.open(item / "SCL.tif") as image:
            classes = image.read(1)
        clear = np.isin(classes, [4, 5, 6, 7]) & (red != 0) & (nir != 0)
        for number, geometry in zip((1, 2), frame.to_crs(crs).geometry, strict=True):
            inside = geometry_mask([geometry], shape, transform, invert=True) & clear
            r, n = (band[inside].astype("float64") for band in (red, nir))
            row = rows.loc[(number, date)]
            assert row.ndvi_count == inside.sum()
            if inside.any():
                np.testing.assert_allclose(row.ndvi_mean, np.mean((n - r) / (n + r)), atol=1e-6)
