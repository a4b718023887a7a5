"""Tiles kept for the next chips, under a limit of bytes; what is missing is fetched together, each tile once.

A tile's bytes are kept when it is first used, and no more of it is decoded than is needed then: chips drawn at random from a large area
may never come back to it. When they do, it is decoded in full, and its pixels are kept instead.

Tiles that stay among those that come and go leave holes in C's heap, which grew by 0.6 MB a chip without end. So what the heap holds
free goes back to the system from time to time.

State: ``_caches`` holds the caches of this process; a forked child keeps what they hold, and nothing of what was under way.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Final
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import RasteretError
from rasteret_dask.grid.tiles import Piece
from rasteret_dask.model import StorageOptions
from rasteret_dask.plan.sources import SourceRead
from rasteret_dask.read.crew import crew
from rasteret_dask.read.engine import Load, Loading, decode_use
from rasteret_dask.read.wanted import Part, TileUse, Wanted

Array = npt.NDArray[Any]
Failure = tuple[TileUse, RasteretError]
Key = tuple[str, str | None, int, int]
"""URL, version, first byte, number of bytes."""

_caches: WeakSet[TileCache] = WeakSet()

TRIM: Final = 128 * 1024 * 1024
"""Bytes fetched until free memory is given back once more: some 30 ms, a hundredth of what decoding these bytes takes."""


@dataclass(eq=False)
class WholeTile:
    """One tile decoded in full, for everyone who wants a piece of it.

    Parameters
    ----------
    source : SourceRead
    band : str
    pieces : tuple of Piece
        The whole tile, as far as it lies within the image.
    key : tuple
    data : bytes
    users : list of (Load, Piece)
    tile : ndarray, optional
        Once it has been decoded.
    """

    source: SourceRead
    band: str
    pieces: tuple[Piece, ...]
    key: Key
    data: bytes
    users: list[tuple[Load, Piece]] = field(default_factory=list)
    tile: Array | None = None

    def place(self, piece: Piece) -> None:
        """Nowhere: the array is made with the pixels."""

    def take(self, piece: Piece, pixels: Array) -> None:
        """Keep the tile, and give every user its piece."""
        self.tile = np.array(pixels)
        for load, part in self.users:
            _give(load, part, self.tile)

    def fill(self, piece: Piece, value: Any) -> None:
        """Sparse tiles have no bytes, so they are never kept."""
        raise AssertionError("a sparse tile has no bytes")

    def use(self) -> TileUse:
        """Return what the engine's decoder takes."""
        start, count = self.key[2:]
        return TileUse(start, start + count, self.source, [(self, self.pieces[0])])


class TileCache:
    """The tiles that were used last; safe for several threads.

    Parameters
    ----------
    limit : int
        Bytes. A tile whose pixels would take more than a quarter of it is never kept; 0 keeps nothing.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # Bytes under the key of the tile; pixels under key and sample.
        self._held: OrderedDict[tuple[Any, ...], bytes | Array] = OrderedDict()
        self._size = 0
        self._pending: dict[Key, threading.Event] = {}
        self._lock = threading.Lock()
        self._fetched = 0  # since free memory was given back
        _caches.add(self)

    def begin_anew(self) -> None:
        """In a forked child: the parent's threads, which were fetching or held the lock, are not there."""
        if self._lock.locked():  # one of them was just changing what is held
            self._held, self._size = OrderedDict(), 0
        self._pending = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> int:
        # Pixels do not travel to other processes.
        return self.limit

    def __setstate__(self, limit: int) -> None:
        TileCache.__init__(self, limit)

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._size

    def load(
        self, loads: Sequence[Load], storage: StorageOptions, *, recording: bool = False
    ) -> list[Failure]:
        """Complete every array: from what is held, from what another thread is fetching, or from the files.

        Returns
        -------
        list of (TileUse, RasteretError)
            When ``recording``: what failed, whose pixels are left as they are. Otherwise it is empty.

        Raises
        ------
        RasteretError
            The first failure, with item, band, URL and tile.
        """
        mine: set[Key] = set()
        waiting: list[tuple[threading.Event, Load, Piece]] = []
        try:
            failures = self._load_own(loads, storage, recording, mine, waiting)
        finally:
            self._let_go(mine)
        if waiting:
            failures += self._after_others(waiting, storage, recording)
        return failures

    def _load_own(
        self,
        loads: Sequence[Load],
        storage: StorageOptions,
        recording: bool,
        mine: set[Key],
        waiting: list[tuple[threading.Event, Load, Piece]],
    ) -> list[Failure]:
        """Load what no other thread is fetching; say in `mine` what this one fetches, and in `waiting` what is left."""
        whole: dict[tuple[Key, int], WholeTile] = {}
        fetched: list[Load] = []
        for load in loads:
            left = [p for p in load.pieces if not self._serve(load, p, mine, waiting, whole)]
            if left:
                fetched.append(replace(load, pieces=left))
        # These are under way while what is held is decoded.
        loading = Loading(fetched, storage, decode=self._decode, recording=recording)
        with closing(loading):
            failures = self._decode_whole(list(whole.values()), recording)
            loading.finish()
        return failures + loading.failures

    def _let_go(self, mine: set[Key]) -> None:
        """Have those who wait for this thread's tiles look for them, or read them themselves."""
        with self._lock:
            for key in mine:
                self._pending.pop(key).set()
            due = self._fetched >= TRIM
            if due:
                self._fetched = 0
        if due:
            give_back()

    def _after_others(
        self,
        waiting: Sequence[tuple[threading.Event, Load, Piece]],
        storage: StorageOptions,
        recording: bool,
    ) -> list[Failure]:
        whole: dict[tuple[Key, int], WholeTile] = {}
        again: list[Load] = []
        for event, load, piece in waiting:
            event.wait()
            if not self._serve(load, piece, None, [], whole):
                # It failed over there, or is gone already: here it is read anew.
                again.append(replace(load, pieces=[piece]))
        failures = self._decode_whole(list(whole.values()), recording)
        loading = Loading(again, storage, recording=recording)
        loading.finish()
        return failures + loading.failures

    def _serve(
        self,
        load: Load,
        piece: Piece,
        mine: set[Key] | None,
        waiting: list[tuple[threading.Event, Load, Piece]],
        whole: dict[tuple[Key, int], WholeTile],
    ) -> bool:
        """Provide for one piece; False when it must be fetched."""
        source, layout = load.source, load.source.layout
        offset, count = source.tile(piece.row, piece.col)
        rows = min(layout.height, source.height - piece.row * layout.height)
        cols = min(layout.width, source.width - piece.col * layout.width)
        size = rows * cols * np.dtype(layout.dtype).itemsize
        if count == 0 or max(size, count) > self.limit // 4:
            return False
        key = (source.url, source.etag, offset, count)
        found = whole.get((key, source.sample))
        if found is not None:
            found.users.append((load, piece))
            return True
        if mine is not None and key in mine:
            return False
        held = self._get(key, source.sample)
        if isinstance(held, bytes):
            every = Piece(piece.row, piece.col, (0, rows), (0, cols), 0, 0)
            found = WholeTile(source, load.band, (every,), key, held, [(load, piece)])
            whole[(key, source.sample)] = found
        elif held is not None:
            _give(load, piece, held)
        elif mine is not None:
            with self._lock:
                other = self._pending.get(key)
                if other is None:
                    self._pending[key] = threading.Event()
                    mine.add(key)
                    return False
            waiting.append((other, load, piece))
        else:
            return False
        return True

    def _get(self, key: Key, sample: int) -> bytes | Array | None:
        with self._lock:
            for name in ((*key, sample), key):
                held = self._held.get(name)
                if held is not None:
                    self._held.move_to_end(name)
                    return held
        return None

    def _keep(self, name: tuple[Any, ...], value: bytes | Array) -> None:
        """Keep something, and let go of what was not used for longest."""
        with self._lock:
            if name in self._held:
                return
            self._held[name] = value
            self._size += _bytes(value)
            while self._size > self.limit:
                _, old = self._held.popitem(last=False)
                self._size -= _bytes(old)

    def _decode(self, use: TileUse, data: memoryview) -> None:
        decode_use(use, data)
        with self._lock:
            self._fetched += len(data)
        if len(data) <= self.limit // 4:
            key = (use.source.url, use.source.etag, use.start, use.stop - use.start)
            self._keep(key, bytes(data))

    def _decode_whole(self, tiles: Sequence[WholeTile], recording: bool) -> list[Failure]:
        team = crew()
        pending: list[Future[None]] = []
        failures: list[Failure] = []
        for tile in tiles:
            work = partial(self._decode_one, tile, failures)
            future = team.elsewhere(work)
            if future is None:
                team.here(work)
            else:
                pending.append(future)
        for future in pending:
            future.result()
        if failures and not recording:
            raise failures[0][1]
        return failures

    def _decode_one(self, tile: WholeTile, failures: list[Failure]) -> None:
        try:
            decode_use(tile.use(), memoryview(tile.data))
        except RasteretError as error:
            users = list[tuple[Wanted, Part]](tile.users)
            failures.append((replace(tile.use(), users=users), error))
            return
        assert tile.tile is not None
        self._keep((*tile.key, tile.source.sample), tile.tile)
        if tile.source.layout.samples == 1:
            self._drop(tile.key)

    def _drop(self, key: Key) -> None:
        with self._lock:
            old = self._held.pop(key, None)
            if old is not None:
                self._size -= _bytes(old)


def give_back() -> None:
    """Give pages that the heap of this process holds free back to the system; nothing where C's library cannot."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    # glibc has it; others keep no such holes, or have no name for it.
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def _bytes(value: bytes | Array) -> int:
    return len(value) if isinstance(value, bytes) else value.nbytes


def _give(load: Load, piece: Piece, tile: Array) -> None:
    load.take(piece, tile[slice(*piece.rows), slice(*piece.cols)])


def _begin_anew() -> None:
    for one in _caches:
        one.begin_anew()


os.register_at_fork(after_in_child=_begin_anew)
