"""A cube that is computed whole is decoded into its result; nothing that is computed twice or beside it shares memory with it."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from dask._task_spec import Task, TaskRef
from dask.array.core import finalize, getter
from handmade import Scene, collect

import rasteret_dask as rd
from rasteret_dask.read import ahead, upcoming, whole
from rasteret_dask.read.graph import plan_of
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import RangeServer

SIDE, DAYS = 512, (1, 2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole")
    rng = np.random.default_rng(11)
    for day in DAYS:
        image = rng.integers(1, 60_000, (SIDE, SIDE)).astype("uint16")
        image[:40, :60] = 0
        make_cog(path / f"{day}.tif", image, nodata=0, blocksize=128, overviews=0)
    return path


@pytest.fixture(scope="module")
def collection(running: RangeServer) -> rd.Collection:
    return collect(
        *(Scene(f"s{d}", {"red": f"{running.url}/{d}.tif"}, f"2023-07-0{d}T10:00:00") for d in DAYS)
    )


@pytest.fixture(scope="module")
def truth(folder: Path) -> np.ndarray[Any, Any]:
    return np.stack([rasterio.open(folder / f"{d}.tif").read(1) for d in DAYS])


@pytest.fixture
def uncopied(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(blocks: Any) -> None:
        raise AssertionError("Dask has put it together")

    monkeypatch.setattr(whole, "finalize", never)


def red(collection: rd.Collection, **options: Any) -> Any:
    return collection.get_xarray(**{"chunks": "tile", **options}).red


@pytest.mark.usefixtures("server", "uncopied")
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
@pytest.mark.parametrize(
    "chunks", ["tile", {"time": 1}, {"time": 2, "y": 100, "x": 130}, {"time": -1, "y": -1, "x": -1}]
)
def test_chunks_are_decoded_into_the_result(
    collection: rd.Collection, truth: np.ndarray[Any, Any], scheduler: str, chunks: Any
) -> None:
    cube = red(collection, chunks=chunks)
    for got in (cube.compute(scheduler=scheduler), dask.compute(cube.data, scheduler=scheduler)[0]):
        np.testing.assert_array_equal(got, truth)


@pytest.mark.usefixtures("server", "uncopied")
def test_masked_floats_and_polygons_as_well(
    collection: rd.Collection, truth: np.ndarray[Any, Any]
) -> None:
    """What is not a tile's own pixels goes through arrays of its own first."""
    floats = truth.astype("float32")
    floats[truth == 0] = np.nan
    got = red(collection, masked=True).compute()
    np.testing.assert_array_equal(got, floats)
    left, bottom, right, top = got.rio.bounds()
    corner = {
        "type": "Polygon",
        "coordinates": [
            [[left, top], [right, top], [left, bottom], [left, top]],
        ],
    }
    some = red(collection, geometries=corner, geometry_crs=got.rio.crs, masked=True).compute()
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    floats[:, x + y > SIDE] = np.nan
    off = x + y != SIDE  # the hypotenuse itself
    np.testing.assert_array_equal(some.values[:, off], floats[:, off])


@pytest.mark.usefixtures("server")
def test_what_others_depend_on_is_their_own(
    collection: rd.Collection, truth: np.ndarray[Any, Any]
) -> None:
    cube = red(collection)
    total, got, tenfold = dask.compute(cube.data.sum(), cube.data, cube.data * 1)
    np.testing.assert_array_equal(got, truth)
    np.testing.assert_array_equal(tenfold, truth)
    assert total == truth.sum(dtype="uint64")
    assert not np.shares_memory(got, tenfold)
    kept = cube.persist()
    again = kept.compute()
    again[:] = 0
    np.testing.assert_array_equal(kept, truth)


@pytest.mark.usefixtures("server")
def test_graphs_that_run_at_once_share_nothing(
    collection: rd.Collection, server: RangeServer, truth: np.ndarray[Any, Any]
) -> None:
    """The same lazy cube, computed by several threads: reads that one has begun are there for another. Floats are NaN before."""
    server.configure(latency=0.002)
    cube = red(collection, masked=True)
    wanted = np.where(truth == 0, np.nan, truth.astype("float32"))
    gate = threading.Barrier(4)

    def one(_: int) -> Any:
        gate.wait()
        return [cube.data.compute(scheduler="threads", num_workers=2) for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        found = [array for arrays in pool.map(one, range(4)) for array in arrays]
    for number, array in enumerate(found):
        np.testing.assert_array_equal(array, wanted)
        assert not any(np.shares_memory(array, other) for other in found[:number])


def test_a_read_begun_for_another_graph_is_given_up() -> None:
    """It would be written into that graph's result, which may be in its user's hands by then."""

    class Begun:
        closed = False

        def begin(self) -> None: ...

        def close(self) -> None:
            self.closed = True

        def finish(self) -> str:
            return "theirs"

    own = SimpleNamespace(finish=lambda: "own")
    block: Any = SimpleNamespace(plan=None, seen=set(), claims={})
    run = upcoming.Run({}, {"running": [], "ready": []}, 1)
    for placed in (True, False):
        begun, promise = Begun(), Future[Any]()
        promise.set_result(begun)
        coming = upcoming.Next("task", block, (), ())
        block.claims[()] = ahead.Claim(coming, promise, run, placed=placed)
        # A worker's reads are begun for a run of their own, and lie nowhere else.
        assert ahead.read(block, (), lambda *_, out: own) == ("own" if placed else "theirs")
        assert begun.closed is placed


def blocks_of(array: Any) -> list[Any]:
    return [task.args[0].value for task in dict(array.__dask_graph__()).values()]


def graph_of(block: Any, *, users: int = 1, shape: tuple[int, ...] = (3, 64, 64)) -> upcoming.Run:
    """A graph whose only chunk is at work."""
    own = Task("own", getter, block, (slice(None),) * 3)
    last = {
        f"last{n}": Task(f"last{n}", whole.together, [TaskRef("own")], shape) for n in range(users)
    }
    state = {"running": ["own"], "ready": [], "dependents": {"own": set(last)}}
    return upcoming.Run({"own": own, **last}, state, 1)


def test_only_what_one_result_is_made_of_is_placed(collection: rd.Collection) -> None:
    block = blocks_of(red(collection, chunks={"time": 3, "y": -1, "x": -1}).data)[0]
    plan = block.plan
    fits = graph_of(block, shape=plan.shape)
    place = whole.room(fits, "own", plan)
    assert place is not None
    assert place.shape == plan.shape
    # A thread of a graph that Dask told nobody of may come for it, too: a place has one that writes.
    assert whole.room(fits, "own", plan) is None
    assert whole.room(graph_of(block, users=2, shape=plan.shape), "own", plan) is None
    assert whole.room(graph_of(block, users=0, shape=plan.shape), "own", plan) is None
    assert whole.room(graph_of(block), "own", plan) is None
    assert ahead._room(fits, "own", block, upcoming.exact((slice(0, 1),) * 3)) is None
    other = graph_of(block, shape=plan.shape)
    other.graph["last0"] = Task("last0", finalize, [TaskRef("own")])
    assert whole.room(other, "own", plan) is None


@pytest.mark.usefixtures("server")
def test_of_two_graphs_that_read_a_chunk_at_once_neither_places_it(
    collection: rd.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = red(collection, chunks={"time": 3, "y": -1, "x": -1}).data
    block = blocks_of(array)[0]
    runs = [graph_of(block, shape=block.plan.shape) for _ in range(2)]
    asked = []

    class Stop(Exception):
        pass

    def start(*_: Any, out: Any) -> None:
        asked.append(out is not None)
        raise Stop

    for some in (runs, runs[:1]):
        monkeypatch.setattr(upcoming, "_runs", list(some))
        with pytest.raises(Stop):
            ahead.read(block, (slice(None),) * 3, start)
    assert asked == [False, True]


@pytest.mark.usefixtures("server")
def test_elsewhere_dask_puts_it_together(
    collection: rd.Collection, truth: np.ndarray[Any, Any]
) -> None:
    cube = red(collection, chunks={"time": 1, "y": 256, "x": 512})
    np.testing.assert_array_equal(cube.compute(scheduler="processes", num_workers=1), truth)


def test_parts_that_lie_elsewhere_are_put_together() -> None:
    base = np.arange(24).reshape(1, 4, 6).copy()
    cut = (slice(0, 2), slice(2, 4)), (slice(0, 3), slice(3, 6))

    def blocks(of: Any) -> Any:
        return [[[of[:, y, x] for x in cut[1]] for y in cut[0]]]

    assert whole.together(blocks(base), base.shape) is base
    swapped = blocks(base)
    swapped[0][0].reverse()
    for odd in (swapped, blocks(base.copy())[:1], blocks(base[:, ::-1])):
        got = whole.together(odd, base.shape)
        np.testing.assert_array_equal(got, np.block(odd))
    one = blocks(base)
    one[0][1][1] = one[0][1][1].copy()
    got = whole.together(one, base.shape)
    assert got is not base
    np.testing.assert_array_equal(got, base)
    assert whole.together([], (0, 4, 6)).size == 0


@pytest.mark.usefixtures("server")
def test_it_is_a_dask_array_like_any_other(collection: rd.Collection) -> None:
    array = red(collection).data
    assert isinstance(array, da.Array)
    assert plan_of(array) is not None
    back = pickle.loads(pickle.dumps(array))
    assert back.name == array.name
    assert type(array) is type(array[:1]) is type(array + 1) is da.Array


@pytest.mark.usefixtures("server")
def test_it_goes_together_with_what_is_made_of_it(
    collection: rd.Collection, truth: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    """As xarray has it, which refuses arrays of two classes."""
    cube = collection.get_xarray(chunks="tile")
    both = cube.assign(double=cube.red.astype("uint32") * 2)
    for kept in (both.persist(), both.unify_chunks(), both.chunk({"x": 100})):
        np.testing.assert_array_equal(kept.double, truth.astype("uint32") * 2)
        np.testing.assert_array_equal(kept.red, truth)
    added = xr.apply_ufunc(
        np.add, both.red, both.double, dask="parallelized", output_dtypes=["uint32"]
    )
    np.testing.assert_array_equal(added, truth.astype("uint32") * 3)
    both.to_zarr(tmp_path / "z.zarr", zarr_format=3, consolidated=False)
    with xr.open_zarr(tmp_path / "z.zarr", consolidated=False, mask_and_scale=False) as found:
        np.testing.assert_array_equal(found.red, truth)
    one, two = dask.compute(both.red, both.double)
    np.testing.assert_array_equal(one.astype("uint32") * 2, two)
