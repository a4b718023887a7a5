"""Tiles of which only upper rows are wanted: fewer bytes, the same pixels, and the whole tile where the guess was too low."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from handmade import Scene, collect
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely import box, points

import rasteret_dask as rd
from rasteret_dask.errors import TileReadError
from rasteret_dask.model import RatePolicy, StorageOptions
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import RangeServer

TILE, SIDE = 512, 1300
CODECS = ("deflate", "zstd", "none", "lzw")


def image_of(seed: int) -> np.ndarray:
    """Noise in 12 of 16 bits, as a sensor gives it."""
    return np.random.default_rng(seed).integers(1, 4096, (SIDE, SIDE)).astype("u2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenes")
    for number, codec in enumerate(CODECS):
        compress = None if codec == "none" else codec
        make_cog(path / f"{codec}.tif", image_of(number), blocksize=TILE, compress=compress)
    # At the edge of a swath there is nothing below: what there is lies in the first bytes of each tile.
    edge = image_of(9)
    for top in range(0, SIDE, TILE):
        edge[top + 150 : top + TILE] = 7
    for number in ("", *range(1, 6)):
        make_cog(path / f"edge{number}.tif", edge, blocksize=TILE)
    make_cog(path / "edge-zstd.tif", edge, blocksize=TILE, compress="zstd")
    return path


@pytest.fixture(scope="module")
def collection(running: RangeServer) -> rd.Collection:
    names = (*CODECS, "edge", "edge-zstd")
    files = {name: f"{running.url}/{name}.tif" for name in names}
    return collect(Scene("one", files, "2023-07-01T10:00:00"))


def truth(folder: Path, name: str) -> np.ndarray:
    with rasterio.open(folder / f"{name}.tif") as file:
        image: np.ndarray = file.read(1)
    return image


def size_of(folder: Path, name: str, row: int, col: int) -> int:
    with rasterio.open(folder / f"{name}.tif") as file:
        return int(file.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=1))


@pytest.mark.parametrize("codec", CODECS)
def test_upper_rows_cost_a_part_of_the_tile(
    collection: rd.Collection, server: RangeServer, folder: Path, codec: str
) -> None:
    cube = collection.get_xarray(bands=[codec])
    found = cube[codec].isel(time=0, y=slice(TILE, TILE + 64), x=slice(TILE, 700)).values
    assert np.array_equal(found, truth(folder, codec)[TILE : TILE + 64, TILE:700])
    seen = server.counters()
    whole = size_of(folder, codec, 1, 1)
    assert seen.requests == 1
    if codec == "lzw":
        assert seen.bytes == whole
    else:
        assert whole / 8 <= seen.bytes < whole * (0.4 if codec == "zstd" else 0.25)


@pytest.mark.parametrize("chunks", ["auto", "tile", "tiles", {"y": 200, "x": 300}])
@pytest.mark.parametrize("codec", CODECS)
def test_explain_is_the_servers_count(
    collection: rd.Collection, server: RangeServer, codec: str, chunks: Any
) -> None:
    how = {"bands": [codec], "chunks": chunks}
    told = collection.explain(**how).total
    collection.get_xarray(**how).compute()
    seen = server.counters()
    assert (seen.requests, seen.bytes) == (told.requests, told.bytes)


def test_explain_of_a_window_is_the_servers_count(
    collection: rd.Collection, server: RangeServer, folder: Path
) -> None:
    cube = collection.get_xarray(bands=["deflate", "none"]).isel(
        y=slice(400, 600), x=slice(500, 530)
    )
    told = cube.rasteret.explain().total
    cube.compute()
    seen = server.counters()
    assert (seen.requests, seen.bytes) == (told.requests, told.bytes)
    whole = sum(
        size_of(folder, name, r, c) for name in ("deflate", "none") for r in (0, 1) for c in (0, 1)
    )
    assert seen.bytes < 0.75 * whole


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from([*CODECS, "edge", "edge-zstd"]),
    st.integers(0, SIDE - 1),
    st.integers(1, 700),
    st.integers(0, SIDE - 1),
    st.integers(1, 100),
)
def test_any_window_is_rasterios(
    collection: rd.Collection, folder: Path, codec: str, y: int, h: int, x: int, w: int
) -> None:
    window = (slice(y, y + h), slice(x, x + w))
    cube = collection.get_xarray(bands=[codec])
    found = cube[codec].isel(time=0, y=window[0], x=window[1]).values
    assert np.array_equal(found, truth(folder, codec)[window])


# --- when the first bytes do not suffice ---------------------------------------------------------
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("budget", [1, 2**30])
def test_the_whole_tile_is_fetched_then(
    running: RangeServer, server: RangeServer, folder: Path, scheduler: str, budget: int
) -> None:
    storage = StorageOptions(rate=RatePolicy(budget=budget))
    days = [
        Scene(f"s{d}", {"edge": f"{running.url}/edge{d}.tif"}, f"2023-07-0{d}T10:00:00")
        for d in range(1, 6)
    ]
    cube = collect(*days).get_xarray(bands=["edge"], storage=storage, chunks={"time": 5})
    server.reset()
    part = cube.edge.isel(y=slice(0, 150), x=slice(0, 400))
    found = part.compute(scheduler=scheduler).values
    assert (found == truth(folder, "edge")[:150, :400]).all()
    seen = server.counters()
    whole = size_of(folder, "edge", 0, 0)
    # Each tile twice: its beginning, and then all of it.
    assert (seen.requests, found.shape) == (10, (5, 150, 400))
    assert 5 * whole < seen.bytes < 1.5 * 5 * whole


def test_points_and_arrays_too(
    collection: rd.Collection, server: RangeServer, folder: Path
) -> None:
    image = truth(folder, "edge")
    with rasterio.open(folder / "edge.tif") as file:
        where, crs = file.transform, file.crs
    rows, cols = np.array([5, 149]), np.array([9, 3])
    x, y = where @ (cols + 0.5, rows + 0.5)
    got = collection.sample_points(points(x, y), ["edge"], geometry_crs=crs.to_epsg())
    assert got["value"].to_numpy().tolist() == image[rows, cols].tolist()
    assert server.counters().requests == 2
    left, top = where @ (20, 10)
    right, bottom = where @ (60, 150)
    array = collection.get_numpy(
        [box(left, bottom, right, top)], ["edge"], geometry_crs=crs.to_epsg()
    )
    assert np.array_equal(np.squeeze(array), image[10:150, 20:60])


@pytest.mark.parametrize("codec", ["deflate", "zstd"])
def test_bytes_that_are_broken_are_told_of_the_whole_tile(
    server: RangeServer, folder: Path, codec: str
) -> None:
    with rasterio.open(folder / f"{codec}.tif") as file:
        start, size = (
            int(file.get_tag_item(f"BLOCK_{kind}_0_0", "TIFF", bidx=1))
            for kind in ("OFFSET", "SIZE")
        )
    broken = bytearray((folder / f"{codec}.tif").read_bytes())
    broken[start : start + 600] = bytes(600)
    (folder / f"broken-{codec}.tif").write_bytes(broken)
    scene = Scene("bad", {codec: f"{server.url}/broken-{codec}.tif"}, "2023-07-01T10:00:00")
    part = (
        collect(scene).get_xarray(bands=[codec])[codec].isel(time=0, y=slice(0, 64), x=slice(0, 64))
    )
    with pytest.raises(TileReadError) as caught:
        part.compute()
    assert caught.value.range == (start, start + size)
    assert (caught.value.item, caught.value.band, caught.value.tile) == ("bad", codec, (0, 0))
