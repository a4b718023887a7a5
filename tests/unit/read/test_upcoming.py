"""What comes next is fetched for before its turn, by Dask's own order: nothing in vain, nothing lost, nothing else."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import numpy as np
import pytest
import rasterio
from budget import settles
from dask.callbacks import Callback
from distributed import Client
from handmade import Scene, collect

import rasteret_dask as rd
from rasteret_dask import errors
from rasteret_dask.grid.tiles import Piece
from rasteret_dask.model import RatePolicy, StorageOptions
from rasteret_dask.read import ahead, upcoming
from rasteret_dask.read.engine import Load, Loading
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import Fault, RangeServer

SIDE, TILE = 512, 128
BANDS = ("red", "nir")
STORAGE = StorageOptions(rate=RatePolicy(budget=40_000_003))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(7)
    for day in (1, 2, 3):
        for band in BANDS:
            image = rng.integers(1, 60_000, (SIDE, SIDE)).astype("uint16")
            make_cog(path / f"{band}{day}.tif", image, nodata=0, blocksize=TILE, overviews=0)
    return path


@pytest.fixture(scope="module")
def collection(running: RangeServer) -> rd.Collection:
    days = (1, 2, 3)
    return collect(
        *(
            Scene(
                f"s{d}",
                {b: f"{running.url}/{b}{d}.tif" for b in BANDS},
                f"2023-07-0{d}T10:00:00",
            )
            for d in days
        )
    )


def cube(collection: rd.Collection, **options: Any) -> Any:
    return collection.get_xarray(**{"chunks": "tile", "storage": STORAGE, **options})


def truth(folder: Path, band: str) -> np.ndarray[Any, Any]:
    return np.stack([rasterio.open(folder / f"{band}{d}.tif").read(1) for d in (1, 2, 3)])


# --- what it is for ------------------------------------------------------------------------------
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_one_tile_a_task_does_not_wait_for_every_tile(
    collection: rd.Collection, server: RangeServer, folder: Path, scheduler: str
) -> None:
    server.configure(latency=0.1)
    with dask.config.set(scheduler=scheduler, num_workers=2):
        found = cube(collection, bands=["red"]).red.values
    assert np.array_equal(found, truth(folder, "red"))
    seen = server.counters()
    assert seen.requests == 3 * (SIDE // TILE) ** 2
    assert seen.peak_in_flight > 16


def test_the_next_chunk_is_under_way_while_one_is_read(
    collection: rd.Collection, server: RangeServer
) -> None:
    """Reads of a fused task, then those of the next task; the last of all has nothing to start."""
    server.configure(latency=0.5)
    lazy = cube(collection, chunks={"time": 1, "y": -1, "x": -1}, bands=list(BANDS))
    ratio = lazy.red.astype("f4") / lazy.nir
    tiles = (SIDE // TILE) ** 2
    ratio.data.compute(scheduler="synchronous")
    seen = server.counters()
    told = lazy.rasteret.explain()
    assert (seen.requests, seen.bytes) == (told.requests, told.bytes)
    # All bands and all dates at once, which one thread would else read one by one.
    assert seen.peak_in_flight == seen.requests <= 2 * 3 * tiles


def test_no_more_is_fetched_ahead_than_half_of_the_budget(
    collection: rd.Collection, server: RangeServer, folder: Path
) -> None:
    whole = (folder / "red1.tif").stat().st_size
    tight = StorageOptions(rate=RatePolicy(budget=3 * whole))
    server.configure(latency=0.1)
    one = {"chunks": {"time": 1, "y": -1, "x": -1}, "storage": tight, "bands": ["red"]}
    lazy = cube(collection, **one)
    found = lazy.red.data.compute(scheduler="synchronous")
    assert np.array_equal(found, truth(folder, "red"))
    each = lazy.rasteret.explain().requests // 3
    assert each < server.counters().peak_in_flight < 3 * each


def test_a_cube_that_is_computed_again_is_read_ahead_again(
    collection: rd.Collection, server: RangeServer, folder: Path
) -> None:
    """Dask keeps a layer's tasks, and computes with the same ones."""
    lazy = cube(collection, bands=["red"]).red
    for _ in range(2):
        server.configure(latency=0.05)
        server.reset()
        assert np.array_equal(lazy.compute(num_workers=2).values, truth(folder, "red"))
        seen = server.counters()
        assert seen.requests == 3 * (SIDE // TILE) ** 2
        assert seen.peak_in_flight > 16


# --- exactly what is needed ----------------------------------------------------------------------
SLICES = [
    {"x": slice(60, 300)},
    {"y": slice(130, 131), "time": slice(1, 3)},
    {"x": [3, 200, 500], "y": slice(None, None, 7)},
    {"time": 1},
]


def alone(monkeypatch: pytest.MonkeyPatch, server: RangeServer, *lazy: Any) -> tuple[int, int]:
    """Requests and bytes when every read is left to its turn."""
    with monkeypatch.context() as patch:
        patch.setattr(ahead, "_following", lambda block: iter(()))
        server.reset()
        dask.compute(*lazy, scheduler="synchronous")
        seen = server.counters()
    server.reset()
    return seen.requests, seen.bytes


@pytest.mark.parametrize("index", SLICES)
@pytest.mark.parametrize("chunks", ["tile", {"time": 2, "y": 200, "x": 300}])
def test_slices_stay_exact(
    collection: rd.Collection,
    server: RangeServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    index: Any,
    chunks: Any,
) -> None:
    """A chunk at the edge of a slice is wanted in part; its neighbour does not know in which."""
    whole = cube(collection, bands=list(BANDS), chunks=chunks)
    part = whole.isel(index)
    expected = alone(monkeypatch, server, part)
    server.configure(latency=0.01)
    with dask.config.set(num_workers=2):
        found = part.compute()
    seen = server.counters()
    assert (seen.requests, seen.bytes) == expected
    for band in BANDS:
        right = whole[band].copy(data=truth(folder, band)).isel(index)
        assert np.array_equal(found[band].values, right.values)
    assert settles(STORAGE)


def test_slices_of_one_chunk_that_several_take(
    collection: rd.Collection,
    server: RangeServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lazy = cube(collection, bands=["red"], chunks={"time": 1, "y": -1, "x": -1}).red
    parts = [lazy.isel(y=slice(k, k + 40)) + k for k in (0, 40, 200, 470)]
    expected = alone(monkeypatch, server, *parts)
    server.configure(latency=0.02)
    with dask.config.set(num_workers=2):
        found = dask.compute(*parts)
    seen = server.counters()
    assert (seen.requests, seen.bytes) == expected
    for part, k in zip(found, (0, 40, 200, 470)):
        assert np.array_equal(part.values, truth(folder, "red")[:, k : k + 40] + k)


def test_long_lists_that_print_alike_are_not_alike() -> None:
    ones, others = np.arange(3000), np.arange(3000)
    others[1500] = 7
    assert repr(ones) == repr(others)
    assert upcoming.exact((slice(3), ones)) != upcoming.exact((slice(3), others))
    assert upcoming.exact((slice(3), ones)) == upcoming.exact((slice(3), ones.copy()))
    assert upcoming.exact((np.int64(3),)) == upcoming.exact((3,)) != upcoming.exact(([3],))


def test_a_worker_that_takes_up_another_task_keeps_what_it_has_begun(
    collection: rd.Collection, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same chunk of the other band waits at this worker, though not as the very next."""
    lazy = cube(collection, bands=list(BANDS))
    expected = alone(monkeypatch, server, lazy)
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with (
        dask.config.set({"distributed.scheduler.worker-saturation": "inf"}),
        Client(processes=False, **options),
    ):
        server.reset()
        lazy.compute()
    seen = server.counters()
    assert (seen.requests, seen.bytes) == expected
    assert settles(STORAGE)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_worker_fetches_for_the_tasks_that_it_has_been_given(
    collection: rd.Collection, server: RangeServer, folder: Path, threads: int
) -> None:
    """One tile a task: beside the one at work two that wait, for each thread."""
    lazy = cube(collection, bands=["red"])
    options = {"n_workers": 1, "threads_per_worker": threads, "dashboard_address": None}
    with (
        dask.config.set({"distributed.scheduler.worker-saturation": 3.0}),
        Client(processes=False, **options),
    ):
        server.configure(latency=0.05)
        server.reset()
        found = lazy.red.values
    assert np.array_equal(found, truth(folder, "red"))
    seen = server.counters()
    told = lazy.rasteret.explain()
    # Nobody is there to take a task away.
    assert (seen.requests, seen.bytes) == (told.requests, told.bytes)
    assert 2 * threads < seen.peak_in_flight <= 3 * threads
    assert settles(STORAGE)


def test_a_task_that_was_known_before_looks_at_what_has_come_since(
    collection: rd.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's list of waiting tasks grows while it is at one of them."""
    graph = dict(cube(collection, bands=["red"]).red.data.__dask_graph__())
    first, second, third, fourth = (
        SimpleNamespace(key=key, priority=n, run_spec=task, state="ready")
        for n, (key, task) in enumerate(list(graph.items())[:4])
    )
    every = {task.key: task for task in (first, second, third, fourth)}
    state = SimpleNamespace(tasks=every, ready=[third, second], nthreads=1)
    thread = SimpleNamespace(key=first.key)
    worker = SimpleNamespace(state=state)
    module = SimpleNamespace(thread_state=thread, get_worker=lambda: worker)
    monkeypatch.setitem(sys.modules, "distributed.worker", module)
    monkeypatch.setattr(upcoming, "_own", threading.local())

    def coming(task: Any) -> Any:
        found = upcoming.find(task.run_spec.args[0].value)
        assert found is not None
        run, key = found
        assert (run.running(), key) == ([task.key], task.key)
        return run.ready()

    assert coming(first) == [second.key, third.key]
    thread.key, state.ready = second.key, [fourth, third]
    assert coming(second) == [third.key, fourth.key]


# --- nothing is lost -----------------------------------------------------------------------------
def test_a_failure_gives_up_what_was_fetched_ahead(
    collection: rd.Collection, server: RangeServer
) -> None:
    server.configure(latency=0.02, faults=[Fault("status", status=404, match="nir2.tif")])
    lazy = cube(collection, bands=list(BANDS))
    with pytest.raises(errors.NotFoundError) as info, dask.config.set(num_workers=2):
        lazy.compute()
    assert (info.value.item, info.value.band) == ("s2", "nir")
    assert upcoming._runs == []
    assert settles(STORAGE)


def test_what_is_begun_after_a_failure_is_given_up_as_well() -> None:
    """Other threads are still at work when Dask has ended the graph."""

    class Begun:
        size = 1
        closed = False

        def close(self) -> None:
            self.closed = True

    begun = Begun()
    run = upcoming.Run({}, {"running": [], "ready": []})
    block: Any = SimpleNamespace(plan=None, seen=set(), claims={})

    def claim() -> Any:
        return ahead._claim(upcoming.Next("task", block, (), ()), run, lambda task: True, 99)

    def start(*_: Any, ahead: bool, out: Any) -> Begun:
        upcoming._tell(run)
        return begun

    ahead._begin(claim(), start)
    assert begun.closed
    assert claim() is None
    assert block.claims == {}


def test_a_read_that_fails_lets_go_of_its_own_bytes() -> None:
    """And not with the last traceback that somebody keeps of it."""

    class Failing:
        closed = False

        def finish(self) -> None:
            raise MemoryError

        def close(self) -> None:
            self.closed = True

    begun = Failing()
    block: Any = SimpleNamespace(plan=None, seen=set(), claims={})
    with pytest.raises(MemoryError):
        ahead.read(block, (), lambda *_, out: begun)
    assert begun.closed


def test_what_has_been_read_is_held_by_no_claim() -> None:
    """A worker's thread keeps its claims until its next task, while another thread has read what they were for."""

    class Begun:
        def begin(self) -> None: ...

        def finish(self) -> None: ...

    begun = Begun()
    held = weakref.ref(begun)
    run = upcoming.Run({}, {"running": [], "ready": []})
    block: Any = SimpleNamespace(plan=None, seen=set(), claims={})
    claim = ahead._claim(upcoming.Next("task", block, (), ()), run, lambda task: True, 99)
    assert claim is not None
    claim.promise.set_result(begun)
    del begun
    ahead.read(block, (), None)
    assert claim in run.claims
    assert held() is None


def test_many_threads_compute_at_once(
    collection: rd.Collection, server: RangeServer, folder: Path
) -> None:
    """Graphs of several threads, each with its own order, on one budget."""
    server.configure(latency=0.002)
    expected = {band: truth(folder, band) for band in BANDS}
    gate = threading.Barrier(6)

    def one(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        gate.wait()
        for _ in range(6):
            (a, b), (c, d) = np.sort(rng.integers(0, SIDE, (2, 2)), axis=1)
            window = {"y": slice(a, b + 1), "x": slice(c, d + 1)}
            chunks = {"time": int(rng.integers(1, 4)), "y": int(rng.integers(60, 400)), "x": "tile"}
            got = cube(collection, bands=list(BANDS), chunks=chunks).isel(window)
            total = (got.red.astype("i4") - got.nir).compute(scheduler="threads", num_workers=2)
            wanted = expected["red"].astype("i4") - expected["nir"]
            if not np.array_equal(total.values, wanted[:, a : b + 1, c : d + 1]):
                return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(one, range(6)))
    assert upcoming._runs == []
    assert settles(STORAGE)


def test_nothing_is_written_before_somebody_waits(
    collection: rd.Collection, server: RangeServer
) -> None:
    """Memory that is written to counts; a read that is only fetched for must not have any."""

    class Asked(Load):
        filled = False

        def fill(self, piece: Piece, value: Any) -> None:
            Asked.filled = True

    plan = next(iter(collection.get_xarray(bands=["red"]).red.data.dask.layers.values()))
    source = plan.io_deps[next(iter(plan.io_deps))][0, 0, 0].plan.sources[0]
    source.counts[:] = 0  # as if all its tiles were sparse
    piece = Piece(0, 0, (0, 9), (0, 9), 0, 0)
    loading = Loading([Asked(source, [piece], np.empty((9, 9)), "red")], STORAGE, ahead=True)
    assert loading.size == 0
    assert not Asked.filled
    loading.finish()
    assert Asked.filled


def test_what_is_fetched_ahead_holds_no_memory_of_its_own(
    server: RangeServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What NumPy makes arrays of is resident since the last time; tiles that compress well leave the budget nothing to say."""
    make_cog(folder / "flat.tif", np.ones((2048, 2048), "uint16"), blocksize=512, overviews=0)
    many = 60
    server.configure(aliases={f"flat{k}.tif": "flat.tif" for k in range(many)})
    scenes = [
        Scene(
            f"f{k}",
            {"flat": f"{server.url}/flat{k}.tif"},
            f"2023-{1 + k // 28:02}-{1 + k % 28:02}T10:00:00",
        )
        for k in range(many)
    ]
    lazy = cube(collect(*scenes), chunks={"time": 1, "y": -1, "x": -1}).flat.data.max(axis=(1, 2))
    alone(monkeypatch, server, lazy)  # the allocator keeps arrays of this size from now on
    server.configure(latency=0.05)
    peaks = [resident()]

    class Looks(Callback):
        def _posttask(self, *_: Any) -> None:
            peaks.append(resident())

    with Looks():
        assert (lazy.compute(scheduler="synchronous") == 1).all()
    assert server.counters().peak_in_flight > 32
    assert max(peaks) - peaks[0] < 10 * 8 * 2**20


def resident() -> int:
    """Bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
