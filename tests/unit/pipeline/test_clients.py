"""A client that is handed over computes, whatever else Dask would compute on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dask
import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from distributed import Client, LocalCluster

import rasteret_dask as rd
from rasteret_dask.model import RetryPolicy, StorageOptions
from rasteret_dask.pipeline import foreach
from rasteret_dask.pipeline.run import run
from rasteret_dask.write.zarr import write_zarr

HERE = {"processes": False, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}


@pytest.fixture
def client() -> Iterator[Client]:
    """Of a cluster in this process, and nobody's default."""
    with (
        LocalCluster(n_workers=1, **HERE) as cluster,
        Client(cluster, set_as_default=False) as found,
    ):
        yield found


@pytest.fixture(params=["nothing", "threads", "another client"])
def elsewhere(request) -> Iterator[None]:
    """What Dask would compute on by itself."""
    if request.param == "another client":
        with LocalCluster(n_workers=1, **HERE) as cluster, Client(cluster):
            yield
    else:
        with dask.config.set({"scheduler": "threads"} if request.param == "threads" else {}):
            yield


@contextmanager
def tasks_of(client: Client) -> Iterator[list[int]]:
    """How many tasks its scheduler has had in memory, before and after the block."""

    def count() -> int:
        prefixes = client.cluster.scheduler.task_prefixes.values()
        return sum(prefix.state_counts["memory"] for prefix in prefixes)

    counts = [count()]
    yield counts
    counts.append(count())


@pytest.mark.usefixtures("elsewhere")
def test_a_run(client, make, tmp_path):
    outputs = [{"zarr": f"{tmp_path}/o.zarr"}, {"png": f"{tmp_path}/o.png"}]
    with tasks_of(client) as counts:
        account = run(make(outputs=outputs), client=client)
    assert account.tasks == counts[1] - counts[0] > 0


def test_a_run_that_keeps_its_result_in_memory(client, make, tmp_path):
    outputs = [{"png": f"{tmp_path}/o.png"}, {"cog": f"{tmp_path}/o.tif"}]
    with tasks_of(client) as counts:
        run(make(outputs=outputs), client=client)
    assert counts[1] > counts[0]
    with rasterio.open(tmp_path / "o.tif") as image:
        assert np.isfinite(image.read()).any()


def test_units(client, make, tmp_path):
    field = shapely.box(12.0, 47.2, 12.002, 47.201)
    frame = geopandas.GeoDataFrame({"code": ["a", "b"]}, geometry=[field, field], crs=4326)
    frame.to_parquet(tmp_path / "d.parquet")
    each = {"table": f"{tmp_path}/d.parquet", "id": "code"}
    told = foreach.run_each(
        make(foreach=each, outputs=[{"cog": f"{tmp_path}/{{code}}.tif"}]), client=client
    )
    assert all(unit.account is not None and unit.account.tasks > 0 for unit in told.units)


@pytest.mark.usefixtures("elsewhere")
def test_a_repair(client, make, collection, tmp_path):
    quick = StorageOptions(retry=RetryPolicy(attempts=1))
    how = {"bands": ["B04"], "crs": "EPSG:32633", "groupby": "solar_day", "masked": True}
    cube = collection.get_xarray(**how)
    ledger = str(tmp_path / "ledger")
    holey = collection.get_xarray(**how, on_error="record", ledger=ledger, storage=quick)
    [scene, *_] = sorted((tmp_path / "scenes").rglob("B04.tif"))
    scene.rename(scene.with_suffix(".away"))
    write_zarr(holey, tmp_path / "o.zarr")
    scene.with_suffix(".away").rename(scene)
    with tasks_of(client) as counts:
        done = rd.repair(holey.attrs["rasteret_record"], tmp_path / "o.zarr", client=client)
    assert (done.failures, done.computed > 0) == (0, True)
    assert counts[1] > counts[0]
    mended = xr.open_zarr(tmp_path / "o.zarr").B04
    assert np.array_equal(mended, cube.B04, equal_nan=True)


# --- within a task -------------------------------------------------------------------------------
def test_a_run_within_a_task(make, tmp_path):
    """The worker has one thread, and the run would keep it from the tasks that it waits for."""
    made = make(outputs=[{"png": f"{tmp_path}/o.png"}, {"cog": f"{tmp_path}/o.tif"}])
    with LocalCluster(n_workers=1, **HERE) as cluster, Client(cluster) as client:
        tasks = client.submit(lambda: run(made).tasks).result(timeout=60)
    assert tasks > 0
