"""Pipelines as people run them: broken off and gone on with, unit by unit, and those that ship."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr

from rasteret_dask import resources
from rasteret_dask.pipeline import config, foreach
from rasteret_dask.pipeline.run import run
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


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
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

    process = subprocess.Popen(command, **options, **pipes)
    while markers() < 5:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(sign)
    _, stderr = process.communicate()
    record = json.loads(Path(f"{store}.run.json").read_text())
    if sign == signal.SIGINT:
        assert process.returncode == 130
        assert "--resume" in stderr
        assert record["state"] == "interrupted"
    else:
        assert record["state"] == "running"
    there = markers()
    assert there >= 5
    with pytest.raises(FileNotFoundError):
        xr.open_zarr(store)
    again = subprocess.run([*command, "--resume"], **options, capture_output=True, check=True)
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
