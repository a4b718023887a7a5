"""Decoded tiles kept for the next chips, under a limit of bytes; what is missing is fetched together, each tile once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rasteret_dask.grid.tiles import Piece
from rasteret_dask.model import StorageOptions
from rasteret_dask.plan.sources import SourceRead
from rasteret_dask.read.engine import Load, Wanted, run_loads

Array = npt.NDArray[Any]
Key = tuple[str, str | None, int, int, int]
"""URL, version, first byte, number of bytes, sample."""


@dataclass(eq=False)
class WholeTile:
    """One tile that is read in full, given to everyone who waits for a piece of it, and kept.

    Parameters
    ----------
    source : SourceRead
    band : str
    pieces : tuple of Piece
        The whole tile, as far as it lies within the image.
    key : tuple
    cache : TileCache
    users : list of (Load, Piece)
    """

    source: SourceRead
    band: str
    pieces: tuple[Piece, ...]
    key: Key
    cache: TileCache
    users: list[tuple[Load, Piece]] = field(default_factory=list)
    tile: Array | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def take(self, piece: Piece, pixels: Array) -> None:
        """Keep the tile, and give every user its piece."""
        self.tile = np.array(pixels)
        self.cache.put(self.key, self.tile)
        for load, part in self.users:
            _give(load, part, self.tile)

    def fill(self, piece: Piece, value: Any) -> None:
        """Sparse tiles are never asked for in this way."""
        for load, part in self.users:
            load.fill(part, value)


class TileCache:
    """The decoded tiles that were used last; safe for several threads.

    Parameters
    ----------
    limit : int
        Bytes. A tile that would take more than a quarter of it is never kept; 0 keeps nothing.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._tiles: OrderedDict[Key, Array] = OrderedDict()
        self._size = 0
        self._pending: dict[Key, WholeTile] = {}
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

    def put(self, key: Key, tile: Array) -> None:
        """Keep a tile, and let go of those that were not used for longest."""
        with self._lock:
            if key in self._tiles:
                return
            self._tiles[key] = tile
            self._size += tile.nbytes
            while self._size > self.limit:
                _, old = self._tiles.popitem(last=False)
                self._size -= old.nbytes

    def load(self, loads: Sequence[Load], storage: StorageOptions) -> None:
        """Complete every array: from what is held, from what another thread is fetching, or from the files.

        Raises
        ------
        RasteretError
            The first failure, with item, band, URL and tile.
        """
        mine: dict[Key, WholeTile] = {}
        others: list[tuple[WholeTile, Load, Piece]] = []
        direct: list[Wanted] = []
        for load in loads:
            plain = [p for p in load.pieces if not self._find(load, p, mine, others)]
            if plain:
                direct.append(replace(load, pieces=plain))
        try:
            run_loads([*mine.values(), *direct], storage)
        finally:
            with self._lock:
                for key in mine:
                    del self._pending[key]
            for whole in mine.values():
                whole.ended.set()
        again = []
        for whole, load, piece in others:
            whole.ended.wait()
            if whole.tile is None:
                # It failed over there; here it gets a chance, and an error, of its own.
                again.append(replace(load, pieces=[piece]))
            else:
                _give(load, piece, whole.tile)
        if again:
            run_loads(again, storage)

    def _find(
        self,
        load: Load,
        piece: Piece,
        mine: dict[Key, WholeTile],
        others: list[tuple[WholeTile, Load, Piece]],
    ) -> bool:
        """Arrange for one piece; False when it is best read by itself."""
        source, layout = load.source, load.source.layout
        offset, count = source.tile(piece.row, piece.col)
        rows = min(layout.height, source.height - piece.row * layout.height)
        cols = min(layout.width, source.width - piece.col * layout.width)
        size = rows * cols * np.dtype(layout.dtype).itemsize
        if count == 0 or size > self.limit // 4:
            return False
        key = (source.url, source.etag, offset, count, source.sample)
        if key in mine:
            mine[key].users.append((load, piece))
            return True
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            elif key in self._pending:
                others.append((self._pending[key], load, piece))
            else:
                whole = Piece(piece.row, piece.col, (0, rows), (0, cols), 0, 0)
                found = WholeTile(source, load.band, (whole,), key, self)
                found.users.append((load, piece))
                mine[key] = self._pending[key] = found
        if tile is not None:
            _give(load, piece, tile)
        return True


def _give(load: Load, piece: Piece, tile: Array) -> None:
    load.take(piece, tile[slice(*piece.rows), slice(*piece.cols)])
