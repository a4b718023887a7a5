"""One cube, the same bits: threads, no threads, workers in this process and in two others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import rasteret_dask as rd
from rasteret_dask import errors
from rasteret_dask.testing.catalog import write_demo_catalog
from rasteret_dask.testing.server import Fault, RangeServer

CHUNKS = ["auto", {"time": -1, "y": 150, "x": 333}, {"time": 1, "y": 64, "x": 1000}]
CUBE: dict[str, Any] = {
    "bands": ["red", "nir"],
    "groupby": "solar_day",
    "masked": True,
    "scale": True,
    "mask": {"band": "scl", "keep": [4, 5, 6, 7]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo")
    write_demo_catalog(path, size=384, blocksize=128)
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RangeServer]:
    with RangeServer(folder) as found:
        yield found


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def collection(server: RangeServer, workspace: Path) -> rd.Collection:
    return rd.build_from_stac(
        static_catalog=f"{server.url}/catalog.json",
        name="demo",
        bands=["red", "nir", "scl"],
        workspace_dir=workspace,
    )


@pytest.fixture(scope="module")
def reference(collection: rd.Collection) -> xr.Dataset:
    found: xr.Dataset = collection.get_xarray(**CUBE).compute(scheduler="synchronous")
    assert float(found.red.notnull().mean()) > 0.2
    return found


def same(cube: xr.Dataset, reference: xr.Dataset) -> None:
    assert cube.identical(reference)
    for band in reference.data_vars:
        assert cube[band].values.tobytes() == reference[band].values.tobytes()


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_in_this_process(
    collection: rd.Collection, reference: xr.Dataset, chunks: Any, scheduler: str
) -> None:
    with dask.config.set(scheduler=scheduler):
        same(collection.get_xarray(chunks=chunks, **CUBE).compute(), reference)


@pytest.fixture(scope="module", params=["one process", "two processes"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    how: dict[str, Any] = (
        {"processes": False} if request.param == "one process" else {"host": "127.0.0.1"}
    )
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, **how) as cluster,
        Client(cluster) as found,
    ):
        yield found


@pytest.mark.parametrize("chunks", CHUNKS)
def test_on_a_cluster(
    collection: rd.Collection, reference: xr.Dataset, client: Client, chunks: Any
) -> None:
    same(collection.get_xarray(chunks=chunks, **CUBE).compute(), reference)


def test_a_slice_of_a_persisted_and_a_lazy_cube(
    collection: rd.Collection, reference: xr.Dataset, client: Client, server: RangeServer
) -> None:
    cube = collection.get_xarray(**CUBE)
    place = {"time": 1, "x": slice(40, 100), "y": slice(10, 90, 2)}
    server.reset()
    part = cube.isel(place).compute()
    cost = server.counters()
    same(part, reference.isel(place))
    assert cost.requests < collection.explain(**CUBE).total.requests / 3
    same(cube.persist().isel(place).compute(), reference.isel(place))


def test_an_index_of_bands_is_the_same_on_a_cluster(
    collection: rd.Collection, reference: xr.Dataset, client: Client
) -> None:
    cube = collection.get_xarray(**CUBE)
    ndvi = (cube.nir - cube.red) / (cube.nir + cube.red)
    expected = (reference.nir - reference.red) / (reference.nir + reference.red)
    assert np.array_equal(ndvi.values, expected.values, equal_nan=True)


def test_bands_of_a_task_are_under_way_together(
    collection: rd.Collection, client: Client, server: RangeServer
) -> None:
    """One thread of one worker reads both; the second must not wait until the first is there."""
    whole = {"bands": ["red", "nir"], "groupby": "solar_day", "chunks": {"time": 1}}
    cube = collection.get_xarray(**whole).isel(time=0)
    told = cube.rasteret.explain()
    server.configure(latency=0.2)
    server.reset()
    try:
        worker = next(iter(client.scheduler_info(n_workers=-1)["workers"]))
        client.compute((cube.nir.astype("f4") - cube.red).data, workers=[worker]).result()
    finally:
        server.configure(latency=0.0)
    seen = server.counters()
    assert (seen.requests, seen.bytes) == (told.requests, told.bytes)
    assert seen.peak_in_flight == seen.requests > 1


def test_an_error_arrives_as_it_left(
    collection: rd.Collection, client: Client, server: RangeServer
) -> None:
    server.configure(faults=[Fault("corrupt", match="*/B04.tif")])
    try:
        with pytest.raises(errors.TileReadError) as caught:
            collection.get_xarray(bands=["red"], groupby="id").compute()
    finally:
        server.configure(faults=[])
    assert caught.value.band == "red"
    assert caught.value.item
    assert caught.value.url.startswith(server.url)
    assert caught.value.tile is not None


NAMES = """
import sys, rasteret_dask as rd
c = rd.load(sys.argv[1])
for how in ({}, {"crs": "EPSG:3035", "resolution": 20}, {"masked": True, "mask": {"band": "scl", "keep": [4]}}):
    cube = c.get_xarray(bands=["red", "nir"], groupby="solar_day", **how)
    print(cube.red.data.name, cube.nir.data.name)
"""


def test_equal_arguments_give_equal_names_in_every_process(
    collection: rd.Collection, workspace: Path
) -> None:
    texts = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", NAMES, str(workspace / "demo")],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in (1, 2)
    ]
    assert texts[0] == texts[1]
    names = texts[0].split()
    assert len(set(names)) == 6
    here = collection.get_xarray(bands=["red"], groupby="solar_day")
    # Equal plans have equal names, whatever is read beside them.
    assert here.red.data.name == names[0]
    other = collection.get_xarray(bands=["red"], groupby="solar_day", masked=True)
    assert other.red.data.name not in names
