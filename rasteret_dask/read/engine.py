"""Tiles of many sources into arrays: fetched all at once, decoded as they arrive, straight to where they belong.

State: ``_own`` holds the memory that each thread decodes into, 16 MiB at most for each of its two parts; it goes with the thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import RasteretError, TileReadError
from rasteret_dask.grid.tiles import Piece
from rasteret_dask.model import StorageOptions
from rasteret_dask.plan.sources import SourceRead
from rasteret_dask.read.crew import Crew, crew
from rasteret_dask.read.later import Place, now
from rasteret_dask.read.sparse import sparse_value
from rasteret_dask.read.wanted import TileUse, Wanted, requests_for, tile_uses
from rasteret_dask.storage.fetch import Fetch
from rasteret_dask.storage.source import RangeRequest
from rasteret_dask.storage.urls import public
from rasteret_dask.tiff.codecs import decode_tile
from rasteret_dask.tiff.inflate import Scratch

_own = threading.local()


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """Pieces of one source to read into an array.

    Parameters
    ----------
    source : SourceRead
    pieces : sequence of Piece
    out : ndarray or Later, shape (rows, columns), dtype of the source
        Written in place.
    band : str
        For messages.
    """

    source: SourceRead
    pieces: Sequence[Piece]
    out: Place
    band: str

    def take(self, piece: Piece, pixels: npt.NDArray[Any]) -> None:
        """Copy a piece to where it belongs."""
        self.place(piece)[...] = pixels

    def fill(self, piece: Piece, value: Any) -> None:
        """Fill where a piece belongs."""
        self.place(piece)[...] = value

    def place(self, piece: Piece) -> npt.NDArray[Any]:
        """Return where a piece belongs."""
        h, w = piece.rows[1] - piece.rows[0], piece.cols[1] - piece.cols[0]
        return now(self.out)[piece.top : piece.top + h, piece.left : piece.left + w]


Work = tuple[TileUse, memoryview, "int | None"]
"""A tile to decode, its bytes, and the number of the range that has been used when this is done."""

Decode = Callable[[TileUse, memoryview], None]
"""Decodes one tile and gives each user its part; :func:`decode_use`, or something around it."""


class Loading:
    """Loads whose bytes are on their way.

    Parameters
    ----------
    loads : sequence of Load, or of other `Wanted`
    storage : StorageOptions
    ahead : bool
        Nobody waits for these yet: fetch only what the budget lends to such reads, and the rest from :meth:`begin` on.
    decode : callable, optional
        What is done with each tile's bytes, on several threads at once; :func:`decode_use` by default. Any other is given all of them,
        whatever rows are wanted.
    recording : bool
        A tile that fails is kept in `failures`, and the others go on; its users' pixels are left as they are.

    Attributes
    ----------
    failures : list of (TileUse, RasteretError)
    """

    def __init__(
        self,
        loads: Sequence[Wanted],
        storage: StorageOptions,
        *,
        ahead: bool = False,
        decode: Decode | None = None,
        recording: bool = False,
    ) -> None:
        self.failures: list[tuple[TileUse, RasteretError]] = []
        self._decode = decode or decode_use
        if recording:
            self._decode = partial(_try, self._decode, self.failures)
        uses, self._sparse = tile_uses(loads)
        self._requests, self._answers = requests_for(uses, whole=decode is not None)
        self._fetch = Fetch(self._requests, storage, ahead=ahead, raising=not recording)
        self._asking = threading.Lock()
        self._ready: deque[Work] = deque()
        self._over = False

    @property
    def size(self) -> int:
        """Bytes to fetch."""
        return sum(request.stop - request.start for request in self._requests)

    def begin(self) -> None:
        """Say that somebody waits from now on."""
        self._fetch.begin()

    def finish(self) -> None:
        """Decode everything as it arrives; return when every array is complete.

        No array is asked for before: what is only read ahead has none yet (:class:`~rasteret_dask.read.later.Later`). Sparse tiles hold
        what :func:`~rasteret_dask.read.sparse.sparse_value` says.

        Raises
        ------
        RasteretError
            The first failure, with item, band, URL and tile; what is still under way is given up.
        """
        team = crew()
        helpers: list[Future[None]] = []
        try:
            self._fetch.begin()
            for load, piece in self._sparse:
                load.fill(piece, sparse_value(load.source))
            while True:
                work = self._next(wait=True)
                if work is not None:
                    team.here(partial(self._go_on, work, helpers, team))
                elif helpers:
                    # They may have left something, because others wanted to decode.
                    helpers.pop().result()
                else:
                    break
        except RasteretError as error:
            raise _located(error, self._answers) from None
        finally:
            # Helpers write into arrays of ours: none may outlive this call.
            self._over = True
            self._fetch.close()
            for future in helpers:
                future.cancel()
                if not future.cancelled():
                    future.exception()

    def _next(self, *, wait: bool) -> Work | None:
        """Return the next tile to decode; None when there is none left, or none at the moment."""
        while True:
            try:
                return self._ready.popleft()
            except IndexError:
                found = self._fetch.take(wait=wait)
            if found is None:
                return None
            number, data = found
            uses = self._answers[number]
            if isinstance(data, RasteretError):
                self.failures += [(use, data.located(**_whereabouts(use))) for use in uses]
                continue
            start, came = self._requests[number].start, memoryview(data)
            parts = [came[use.start - start : use.stop - start] for use in uses]
            numbers = [None] * (len(uses) - 1) + [number]
            self._ready.extend(zip(uses, parts, numbers))

    def _go_on(self, work: Work | None, helpers: list[Future[None]], team: Crew) -> None:
        """Decode a tile and what else is there, unless another task waits to decode.

        A token that was let go of after each tile was taken by a helper of the other task, for nothing: this one wanted it again at once.
        """
        while work is not None:
            self._call(helpers, team)
            self._do(work)
            work = None if team.crowded else self._next(wait=False)

    def _do(self, work: Work) -> None:
        use, part, number = work
        enough = True
        if len(part) == use.stop - use.start:
            self._decode(use, part)
        else:
            enough = _decodes(use, part)
        if number is not None:
            self._fetch.done(number)
        if not enough:
            # Only now: what is held while more is waited for could keep that from coming.
            request = RangeRequest(use.source.url, use.start, use.stop, use.source.etag)
            with self._asking:
                self._requests.append(request)
                self._answers.append([use])
                self._fetch.add(request)

    def _call(self, helpers: list[Future[None]], team: Crew) -> None:
        """Have the cores' other threads take tiles as well, while there are more than the calling thread decodes at once.

        They take them by themselves: one that had to be handed each tile would wait until the calling thread has done with its own.
        """
        if not (self._ready or self._fetch.backlog()):
            return
        for ended in [future for future in helpers if future.done()]:
            helpers.remove(ended)
            ended.result()
        if len(helpers) < team.size - 1:
            helper = team.elsewhere(partial(self._help, team))
            if helper is not None:
                helpers.append(helper)

    def _help(self, team: Crew) -> None:
        try:
            # Tiles of a range that has been taken keep room from what the calling thread may wait for: they are not left.
            while not self._over and (self._ready or not team.crowded):
                work = self._next(wait=False)
                if work is None:
                    return
                self._do(work)
        except BaseException as error:
            self._fetch.fail(error)
            raise

    def close(self) -> None:
        """Give up what is still under way."""
        self._fetch.close()


def run_loads(loads: Sequence[Wanted], storage: StorageOptions) -> None:
    """Read all loads; return when every array is complete."""
    Loading(loads, storage).finish()


def decode_use(use: TileUse, data: memoryview) -> None:
    """Decode one tile, no further than its users need, and give each user its piece.

    Raises
    ------
    TileReadError
        With URL, tile and byte range.
    """
    source = use.source
    boxes = [piece for _, piece in use.users]
    rows = (min(p.rows[0] for p in boxes), max(p.rows[1] for p in boxes))
    cols = (min(p.cols[0] for p in boxes), max(p.cols[1] for p in boxes))
    load, piece = use.users[0]
    room = load.place(piece) if len(use.users) == 1 else None
    try:
        tile = decode_tile(data, source.layout, rows=rows, cols=cols, scratch=_scratch(), out=room)
    except RasteretError as error:
        raise TileReadError(
            error.message,
            hint=error.hint,
            item=source.item,
            band=load.band,
            url=public(source.url),
            level=source.level,
            tile=(piece.row, piece.col),
            range=(use.start, use.stop),
        ) from None
    if room is not None and np.may_share_memory(tile, room):
        return
    for load, piece in use.users:
        r, c = piece.rows[0] - rows[0], piece.cols[0] - cols[0]
        h, w = piece.rows[1] - piece.rows[0], piece.cols[1] - piece.cols[0]
        load.take(piece, tile[r : r + h, c : c + w, load.source.sample])


def _decodes(use: TileUse, beginning: memoryview) -> bool:
    """Decode a tile by its first bytes; False when they do not suffice. Why, only the whole tile can tell."""
    try:
        decode_use(use, beginning)
    except TileReadError:
        return False
    return True


def _scratch() -> Scratch:
    """Return the calling thread's memory for decoding; whoever takes pixels copies them before the next tile."""
    found: Scratch | None = getattr(_own, "scratch", None)
    if found is None:
        found = _own.scratch = Scratch()
    return found


def _try(
    decode: Decode, failures: list[tuple[TileUse, RasteretError]], use: TileUse, data: memoryview
) -> None:
    """Decode a tile, and keep the error if that fails; appending to a list is atomic."""
    try:
        decode(use, data)
    except RasteretError as error:
        failures.append((use, error))


def _whereabouts(use: TileUse) -> dict[str, Any]:
    load, piece = use.users[0]
    return {
        "item": use.source.item,
        "band": load.band,
        "url": public(use.source.url),
        "tile": (piece.row, piece.col),
        "range": (use.start, use.stop),
    }


def _located(error: RasteretError, answers: list[list[TileUse]]) -> RasteretError:
    """Add item and band to an error of storage, which knows only the URL."""
    for uses in answers:
        if error.url == public(uses[0].source.url):
            load, _ = uses[0].users[0]
            return error.located(item=uses[0].source.item, band=load.band)
    return error
