"""Cubes through xarray's own door, and what ``ds.rasteret`` says of them, held to a server's count."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import rasteret_dask as rd
from rasteret_dask.read import accessor
from rasteret_dask.testing.server import RangeServer

CUBE: dict[str, Any] = {
    "bands": ["red", "nir"],
    "groupby": "solar_day",
    "masked": True,
    "mask": {"band": "scl", "keep": [4, 5], "dilate": 240},
}


@pytest.fixture(scope="module")
def server(austria: Path) -> Iterator[RangeServer]:
    with RangeServer(austria, log=True) as running:
        yield running


@pytest.fixture(scope="module")
def place(server: RangeServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("workspace")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        rd.build_from_stac(
            static_catalog=f"{server.url}/catalog.json", name="austria", workspace_dir=where
        )
    return where / "austria"


@pytest.fixture(scope="module")
def collection(place: Path) -> Any:
    return rd.load(place)


@pytest.mark.parametrize("chunks", [None, {}, "auto"])
def test_the_engine_opens_the_cube_that_get_xarray_opens(
    place: Path, collection: Any, server: RangeServer, chunks: Any
) -> None:
    server.reset()
    opened = xr.open_dataset(place, engine="rasteret_dask", chunks=chunks, **CUBE)
    assert server.counters().requests == 0
    expected = collection.get_xarray(**CUBE)
    if chunks is None:
        assert opened.red.chunks is None
    elif chunks == {}:
        assert opened.red.chunks == expected.red.chunks
    else:
        # xarray's own size, of whole chunks of ours.
        for mine, theirs in zip(expected.red.chunks, opened.red.chunks, strict=True):
            assert set(np.cumsum(theirs).tolist()) <= set(np.cumsum(mine).tolist())
    part = {"time": 1, "x": slice(10, 300), "y": slice(700, 1000)}
    xr.testing.assert_identical(
        opened.isel(part).compute().drop_encoding(), expected.isel(part).compute().drop_encoding()
    )


def test_the_engine_reads_what_it_is_indexed_with(place: Path, collection: Any) -> None:
    grid = {"crs": "EPSG:4326", "resolution": 0.01, "resampling": "bilinear"}
    opened = xr.open_dataset(place, engine="rasteret_dask", **CUBE, **grid)
    whole = collection.get_xarray(**CUBE, **grid).compute()
    index = {"time": [3, 0], "y": slice(50, 3, -7), "x": [3, 9, 5]}
    assert np.array_equal(
        opened.isel(index).nir.values, whole.isel(index).nir.values, equal_nan=True
    )
    assert whole.nir.notnull().any()


def test_explain_of_a_slice_is_the_servers_count(collection: Any, server: RangeServer) -> None:
    cube = collection.get_xarray(**CUBE, chunks={"time": 1, "y": 512, "x": 512})
    for part in (cube, cube.isel(time=2), cube.isel(time=0, x=slice(0, 256), y=slice(100, 400))):
        told = part.rasteret.explain()
        server.reset()
        part.compute()
        seen = server.counters()
        assert (told.requests, told.bytes) == (seen.requests, seen.bytes)
        assert told.requests > 0


@pytest.mark.parametrize("chunks", ["auto", "tile", {"time": -1, "y": 300, "x": 200}])
def test_explain_of_a_whole_cube_is_what_its_graph_says(
    collection: Any, monkeypatch: pytest.MonkeyPatch, chunks: Any
) -> None:
    cube = collection.get_xarray(**CUBE, chunks=chunks)
    told = cube.rasteret.explain()
    monkeypatch.setattr(accessor, "plan_of", lambda array: None)
    assert cube.rasteret.explain() == told
    assert told == collection.explain(**CUBE, chunks=chunks)


def test_explain_refuses_what_is_no_longer_a_read(collection: Any) -> None:
    cube = collection.get_xarray(**CUBE)
    with pytest.raises(rd.RasteretError, match="no longer a read"):
        (cube + 1).rasteret.explain()
    with pytest.raises(rd.RasteretError, match="in memory"):
        cube.isel(time=0, x=slice(0, 8), y=slice(0, 8)).compute().rasteret.explain()


def test_both_bands_of_an_expression_are_in_flight_together(
    austria: Path, collection: Any, server: RangeServer
) -> None:
    """One thread, one task: left to its turn the second band would wait for the first."""
    one = collection.get_xarray(bands=["red", "nir"], groupby="id").isel(time=0)
    server.configure(latency=0.05)
    try:
        server.reset()
        with dask.config.set(scheduler="synchronous"):
            (one.nir.astype("f4") - one.red).compute()
        log = server.log()
    finally:
        server.configure(latency=0.0)
    spans = {band: [(e.t_start, e.t_end) for e in log if band in e.path] for band in ("B04", "B08")}
    assert spans["B04"]
    assert spans["B08"]
    starts = {band: min(s for s, _ in found) for band, found in spans.items()}
    ends = {band: max(e for _, e in found) for band, found in spans.items()}
    assert starts["B08"] < ends["B04"]
    assert starts["B04"] < ends["B08"]


def test_quicklook_is_a_small_picture(collection: Any) -> None:
    cube = collection.get_xarray(bands=["red", "green", "blue"], groupby="solar_day")
    picture = cube.rasteret.quicklook(["red", "green", "blue"], size=200)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert max(picture.shape) <= 200
    assert picture.std() > 10


def test_quicklook_of_an_image_without_time_and_of_what_is_not_there(collection: Any) -> None:
    cube = collection.get_xarray(bands=["red", "green", "blue"], groupby="solar_day")
    bands = ["red", "green", "blue"]
    one = cube.isel(time=0).rasteret.quicklook(bands, size=64)
    np.testing.assert_array_equal(one, cube.rasteret.quicklook(bands, size=64))
    for wrong, words in (
        ({"rgb": ["red", "green", "swir"]}, "no band 'swir'"),
        ({"rgb": ["red"]}, "three bands"),
        ({"time": 99}, "no step 99"),
        ({"size": 0}, "positive"),
    ):
        with pytest.raises(rd.errors.ArgumentError, match=words):
            cube.rasteret.quicklook(**wrong)
