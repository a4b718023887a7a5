"""What the cache of tiles does to the memory of its process, in forked ones, and after errors; what it reads is tested with TorchGeo."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rasteret_dask.grid.tiles import Piece
from rasteret_dask.integrations import tilecache
from rasteret_dask.integrations.tilecache import TileCache, give_back
from rasteret_dask.model import StorageOptions
from rasteret_dask.plan.sources import SourceRead
from rasteret_dask.read.engine import Load
from rasteret_dask.read.pixels import _source, open_tiff
from rasteret_dask.testing.cog import make_cog

MB = 1024 * 1024


def resident() -> int:
    """Bytes of this process that are in memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_holes_between_blocks_that_stay_go_back_to_the_system() -> None:
    give_back()
    before = resident()
    # Below what C's library maps by itself; every twentieth stays.
    blocks = [bytes(100_000) for _ in range(1_000)]
    stay = blocks[::20]
    del blocks
    held = resident() - before
    give_back()
    left = resident() - before
    assert held > 60 * MB
    assert left < 30 * MB
    assert len(stay) == 50


# --- tiles that a thread was fetching ------------------------------------------------------------
VALUES = np.random.default_rng(0).integers(0, 255, (128, 128)).astype("uint8")
WHOLE = Piece(0, 0, (0, 128), (0, 128), 0, 0)


@pytest.fixture
def source(tmp_path: Path) -> SourceRead:
    """A file of one tile."""
    path = make_cog(tmp_path / "a.tif", VALUES, blocksize=128, overviews=0)
    return _source(open_tiff(str(path)).layers[0], 0, None)


def pixels(cache: TileCache, source: SourceRead, *more: Piece) -> np.ndarray:
    out = np.zeros((128, 128), "uint8")
    cache.load([Load(source, [WHOLE, *more], out, "b")], StorageOptions())
    return out


class Gated(TileCache):
    """Has a tile, and waits before it decodes it."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.begun, self.go = threading.Event(), threading.Event()

    def _decode(self, use: Any, data: memoryview) -> None:
        self.begun.set()
        self.go.wait(20)
        super()._decode(use, data)


def in_a_child(work: Any) -> int:
    """The exit code of a forked child: 0 where `work` says that all is well."""
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)  # ends one that waits for ever
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_waits_for_no_thread_of_its_parent(source: SourceRead) -> None:
    """As a DataLoader's worker would, forked while a loader's thread fetches."""
    cache = Gated(2**20)
    parent = threading.Thread(target=pixels, args=(cache, source), daemon=True)
    parent.start()
    assert cache.begun.wait(20)

    def work() -> bool:
        cache.go.set()
        return np.array_equal(pixels(cache, source), VALUES)

    try:
        assert in_a_child(work) == 0
    finally:
        cache.go.set()
        parent.join()
    assert np.array_equal(pixels(cache, source), VALUES)


@pytest.mark.parametrize("locked", [False, True])
def test_a_forked_child_has_what_its_parent_held(source: SourceRead, locked: bool) -> None:
    """Unless a thread was just changing it: the child would wait for its lock for ever."""
    cache = TileCache(2**20)
    pixels(cache, source)
    held = cache.size
    assert held > 0

    def work() -> bool:
        begins_empty = cache.size == 0
        return begins_empty == locked and np.array_equal(pixels(cache, source), VALUES)

    if locked:
        with cache._lock:
            assert in_a_child(work) == 0
    else:
        assert in_a_child(work) == 0
    assert cache.size == held


@pytest.mark.parametrize("where", ["no such tile", "no memory for the fetch"])
def test_nobody_waits_for_a_tile_that_was_never_fetched(
    source: SourceRead, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    cache = TileCache(2**20)
    with monkeypatch.context() as patch:
        if where == "no such tile":
            with pytest.raises(IndexError):
                pixels(cache, source, Piece(7, 0, (0, 128), (0, 128), 0, 0))
        else:
            patch.setattr(tilecache, "Loading", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                pixels(cache, source)
    found: list[np.ndarray] = []
    other = threading.Thread(target=lambda: found.append(pixels(cache, source)), daemon=True)
    other.start()
    other.join(20)
    assert np.array_equal(found, [VALUES])
