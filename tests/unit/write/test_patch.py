"""Regions of a store put anew: those that are wanted, each once, whatever the store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from rasteret_dask.errors import ArgumentError
from rasteret_dask.read.concerned import depending, touched
from rasteret_dask.write.patch import beside, open_target, patch
from rasteret_dask.write.regions import Journal
from rasteret_dask.write.zarr import write_zarr

CHUNKS = (1, 4, 4)


def made(calls: list[Any], value: float, fail_after: int | None = None) -> xr.Dataset:
    """Two variables of 2 × 8 × 12 pixels that say which of their blocks are computed."""

    def block(name: str, block_id: Any = None) -> np.ndarray:
        calls.append((name, block_id))
        if fail_after is not None and len(calls) > fail_after:
            raise OSError("no more")
        return np.full(CHUNKS, value, "float32")

    shape = tuple((n,) * k for n, k in zip(CHUNKS, (2, 2, 3)))
    arrays = {
        name: da.map_blocks(block, name, chunks=shape, dtype="float32", meta=np.empty((0,) * 3))
        for name in ("a", "b")
    }
    coords = {"time": [0, 1], "y": np.arange(8.0), "x": np.arange(12.0)}
    return xr.Dataset({n: (("time", "y", "x"), array) for n, array in arrays.items()}, coords)


WANTED = {
    "a": frozenset({(0, 0, 0), (0, 0, 1), (1, 1, 2)}),
    "b": frozenset({(0, 0, 1)}),
}


@pytest.fixture(params=["ours", "xarray's, format 2", "xarray's, format 3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    before = made([], 1.0)
    if request.param == "ours":
        write_zarr(before, tmp_path / "s.zarr")
    else:
        form = int(request.param[-1])
        before.to_zarr(tmp_path / "s.zarr", zarr_format=form, consolidated=False)
    return tmp_path / "s.zarr"


def test_only_what_is_wanted_is_computed_and_put(store: Path) -> None:
    calls: list[Any] = []
    target = open_target(store, made(calls, 2.0))
    with dask.config.set(scheduler="sync"):
        assert patch(target, WANTED, Journal(beside(str(store))), "x") == 3
    assert sorted(calls) == sorted((n, i) for n, wanted in WANTED.items() for i in wanted)
    after = xr.open_zarr(store, consolidated=False).load()
    assert (after.a.values == 2.0).sum() == 3 * 16
    assert (after.b.values[0, :4, 4:8] == 2.0).all()
    assert (after.b.values == 2.0).sum() == 16
    assert (after.a.values[0, :4, :8] == 2.0).all()
    assert (after.a.values[1, 4:, 8:] == 2.0).all()


@pytest.mark.parametrize("value", [2.0, np.nan])
def test_a_patch_that_was_broken_off_goes_on_also_where_all_is_fill(
    store: Path, value: float
) -> None:
    """Of a region that is all fill no chunk is stored, so chunks cannot say what was done."""
    calls: list[Any] = []
    every = dict.fromkeys("ab", touched(((1, 1), (4, 4), (4, 4, 4)), [((0, 2), (0, 8), (0, 12))]))
    journal = Journal(beside(str(store)))
    with dask.config.set(scheduler="sync"):
        with pytest.raises(OSError, match="no more"):
            patch(open_target(store, made(calls, value, fail_after=11)), every, journal, "x")
        again: list[Any] = []
        computed = patch(open_target(store, made(again, value)), every, journal, "x")
    assert 0 < computed < 12
    assert len(again) == 2 * computed
    whole = xr.open_zarr(store, consolidated=False)
    assert np.array_equal(whole.a, np.full((2, 8, 12), value), equal_nan=True)
    assert np.array_equal(whole.b, np.full((2, 8, 12), value), equal_nan=True)
    # Another attempt does not take them for its own.
    with dask.config.set(scheduler="sync"):
        assert patch(open_target(store, made([], value)), every, journal, "y") == 12
    journal.end()
    assert not Path(beside(str(store))).exists()


def test_another_dataset_is_refused(store: Path) -> None:
    dataset = made([], 2.0)
    with pytest.raises(ArgumentError, match="the run makes c"):
        open_target(store, dataset[["a"]].rename(a="c"))
    with pytest.raises(ArgumentError, match="coordinates differ"):
        open_target(store, dataset.assign_coords(x=np.arange(12.0) + 1))
    assert set(open_target(store, dataset[["a"]]).arrays) == {"a"}
    with pytest.raises(ArgumentError, match="no whole Zarr store"):
        open_target(store.with_name("t.zarr"), dataset)


def test_chunks_that_boxes_meet() -> None:
    chunks = ((1, 1), (4, 4), (4, 4, 4))
    assert touched(chunks, [((0, 1), (0, 4), (4, 8))]) == {(0, 0, 1)}
    assert touched(chunks, [((0, 1), (3, 5), (4, 9))]) == {
        (0, y, x) for y in (0, 1) for x in (1, 2)
    }
    assert touched(chunks, [((1, 2), (4, 4), (0, 12))]) == frozenset()
    assert touched(chunks, []) == frozenset()


def test_a_neighbourhood_reaches_the_neighbours() -> None:
    source = da.zeros((8, 12), chunks=4, name="source")
    one = frozenset({(0, 0)})
    plain = {"plain": source + 1, "wide": source.map_overlap(lambda b: b, depth=1)}
    found = depending(plain, {"source": (source, one)})
    assert found["plain"] == one
    assert found["wide"] == {(0, 0), (0, 1), (1, 0), (1, 1)}
    whole = depending({"sum": source.sum(axis=0).rechunk(2)}, {"source": (source, one)})
    assert whole["sum"] == {(0,), (1,)}
