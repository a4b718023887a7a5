"""``mosaic_mask="all"``: all bands of a pixel come from one item; expectations by NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from handmade import Scene, collect

import rasteret_dask as rd
from rasteret_dask.read.ledger import read_ledger
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import RangeServer

LEFT, TOP = 500_000.0, 5_200_000.0
CHUNKS = ["auto", "tile", {"time": -1, "y": 33, "x": 51}]


def cog(path: Path, name: str, array: np.ndarray, res: float = 10.0, **how: Any) -> Path:
    options = {"nodata": 0, "blocksize": 32, "overviews": 0, **how}
    at = Affine(res, 0, LEFT, 0, -res, TOP)
    return make_cog(path / f"{name}.tif", array, transform=at, crs="EPSG:32633", **options)


@pytest.fixture(scope="module")
def stack() -> np.ndarray:
    """Items, bands, rows, columns; each item says in the values which one it is."""
    rng = np.random.default_rng(17)
    out = rng.integers(1, 999, (3, 2, 100, 120)).astype(np.uint16)
    out += (1000 * np.arange(1, 4, dtype=np.uint16))[:, None, None, None]
    out[rng.random(out.shape) < 0.35] = 0
    out[:, :, 40:50, 40:50] = 0
    return out


@pytest.fixture(scope="module")
def folder(stack: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bands")
    for k in range(3):
        for b, band in enumerate("ab"):
            cog(path, f"{k}{band}", stack[k, b])
    return path


def scenes(base: Any) -> rd.Collection:
    made = [
        Scene(f"i{k}", {b: f"{base}/{k}{b}.tif" for b in "ab"}, f"2023-07-01T10:00:0{k}")
        for k in range(3)
    ]
    return collect(*made)


def expected(stack: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    out = np.zeros(stack.shape[1:], stack.dtype)
    for k in reversed(order):
        both = (stack[k] != 0).all(axis=0)
        out[:, both] = stack[k][:, both]
    return out


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("mosaic", ["first", "last"])
@pytest.mark.parametrize("chunks", CHUNKS)
def test_all_bands_of_a_pixel_come_from_one_item(
    folder: Path, stack: np.ndarray, mosaic: str, chunks: Any, early: bool
) -> None:
    how: dict[str, Any] = {"groupby": "1D", "mosaic": mosaic, "chunks": chunks}
    cube = scenes(folder).get_xarray(mosaic_mask="all", early_exit=early, **how).compute()
    order = (0, 1, 2) if mosaic == "first" else (2, 1, 0)
    want = expected(stack, order)
    assert np.array_equal(cube.a.values[0], want[0])
    assert np.array_equal(cube.b.values[0], want[1])
    assert np.array_equal(cube.a.values[0] // 1000, cube.b.values[0] // 1000)
    apart = scenes(folder).get_xarray(**how).compute()
    assert (apart.a.values[0] // 1000 != apart.b.values[0] // 1000).mean() > 0.2


def test_slices_and_single_bands(folder: Path, stack: np.ndarray) -> None:
    cube = scenes(folder).get_xarray(groupby="1D", mosaic_mask="all", masked=True)
    want = expected(stack, (0, 1, 2)).astype(np.float32)
    want[want == 0] = np.nan
    part = cube.isel(time=0, y=slice(13, 71), x=slice(50, 99))
    assert np.array_equal(part.b.values, want[1, 13:71, 50:99], equal_nan=True)
    # A cube of one band has nothing to be taken together.
    alone = scenes(folder).get_xarray(bands=["a"], groupby="1D", mosaic_mask="all")
    plain = scenes(folder).get_xarray(bands=["a"], groupby="1D")
    assert np.array_equal(alone.a.values, plain.a.values)


@pytest.mark.parametrize("chunks", CHUNKS)
def test_bands_of_two_resolutions_and_a_mask(tmp_path: Path, chunks: Any) -> None:
    rng = np.random.default_rng(4)
    fine = rng.integers(1, 9, (2, 80, 96)).astype(np.uint8)
    coarse = rng.integers(1, 9, (2, 40, 48)).astype(np.uint8)
    classes = rng.integers(3, 6, (2, 40, 48)).astype(np.uint8)
    fine[rng.random(fine.shape) < 0.3] = 0
    coarse[rng.random(coarse.shape) < 0.3] = 0
    made = []
    for k in range(2):
        files = {
            "f": cog(tmp_path, f"f{k}", fine[k]),
            "c": cog(tmp_path, f"c{k}", coarse[k], 20.0, blocksize=16),
            "m": cog(tmp_path, f"m{k}", classes[k], 20.0, nodata=None),
        }
        made.append(Scene(f"i{k}", files, f"2023-07-01T10:00:0{k}"))
    cube = collect(*made).get_xarray(
        bands=["f", "c"],
        groupby="1D",
        mosaic_mask="all",
        mask={"band": "m", "keep": [4, 5]},
        chunks=chunks,
    )
    twice = np.ones((1, 2, 2), np.uint8)
    large, kept = np.kron(coarse, twice), np.kron(classes, twice) != 3
    both = np.where(kept[:, None], np.stack([fine, large], axis=1), 0)
    want = expected(both, (0, 1))
    assert np.array_equal(cube.f.values[0], want[0])
    assert np.array_equal(cube.c.values[0], want[1])


def test_what_it_costs_is_what_explain_says(folder: Path) -> None:
    with RangeServer(folder) as server:
        collection = scenes(server.url)
        how: dict[str, Any] = {"groupby": "1D", "chunks": {"y": 64, "x": 64}}
        told = collection.explain(mosaic_mask="all", **how)
        server.reset()
        cube = collection.get_xarray(mosaic_mask="all", **how)
        cube.compute(scheduler="synchronous")
        counted = server.counters()
        assert (counted.requests, counted.bytes) == (told.requests, told.bytes)
        assert told.bytes == 2 * collection.explain(**how).bytes
        part = cube.isel(y=slice(0, 30), x=slice(0, 30))
        few = part.rasteret.explain()
        server.reset()
        part.compute(scheduler="synchronous")
        counted = server.counters()
        assert (counted.requests, counted.bytes) == (few.requests, few.bytes)
        assert few.total.tiles == 2 * 2 * 3


def test_a_tile_that_fails_takes_the_pixel_out_of_all_bands(
    folder: Path, stack: np.ndarray, tmp_path: Path
) -> None:
    for file in folder.glob("*.tif"):
        data = bytearray(file.read_bytes())
        if file.name == "0b.tif":
            whole = scenes(folder).to_table().column("b_metadata")[0].as_py()
            start = whole["tile_offsets"][5]
            data[start : start + 20] = bytes(20)
        (tmp_path / file.name).write_bytes(data)
    cube = scenes(tmp_path).get_xarray(
        groupby="1D", mosaic_mask="all", on_error="record", ledger=str(tmp_path / "ledger")
    )
    broken = stack.copy()
    broken[0, 1, 32:64, 32:64] = 0  # tile 5 of four across
    want = expected(broken, (0, 1, 2))
    done = cube.compute()
    assert np.array_equal(done.a.values[0], want[0])
    assert np.array_equal(done.b.values[0], want[1])
    rows = read_ledger(str(tmp_path / "ledger"), cube.attrs["rasteret_run"]).to_pylist()
    assert {(r["band"], r["source_band"], r["tile_row"], r["tile_col"]) for r in rows} == {
        ("a", "b", 1, 1),
        ("b", "b", 1, 1),
    }


def test_what_cannot_mean_anything_is_refused(folder: Path) -> None:
    with pytest.raises(rd.RasteretError, match="mosaic_mask"):
        scenes(folder).get_xarray(mosaic_mask="both")
    with pytest.raises(rd.RasteretError, match="several"):
        scenes(folder).get_xarray(mosaic_mask="all", mosaic="mean")
