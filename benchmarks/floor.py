"""What the machine allows: exactly the needed byte ranges, known beforehand, fetched and decoded whole.

Connections are bare sockets that receive into memory allocated once, since every HTTP client that was tried costs
more; tiles are inflated by libdeflate and integrated by imagecodecs on two threads.
"""

from __future__ import annotations

import os
import queue
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import imagecodecs
import numpy as np
from pyproj import Transformer

from benchmarks.data import CORNERS, SIDE, Level, folder, level
from benchmarks.workloads import BATCH, Array, Job, Unable, Window, Workload, reduce_median, split
from rasteret_dask.plan.enough import MOST, OFFSET, SLOPE

CONNECTIONS = 64  # as many as help with large pieces
SMALL = 512 * 1024  # bytes of pieces with which twice as many help, unless the server is near
NEAR = 0.005  # seconds in which a near server answers
THREADS = 2
Levels = dict[str, Level]  # by file


@dataclass(frozen=True)
class Piece:
    """One tile: where its bytes are, and what of it goes where."""

    path: str
    offset: int
    count: int
    level: Level
    places: list[tuple[Array, Any, Any]]  # result, index into it, index into the tile
    rows: int = 0  # how far it is decoded; 0 is to its end


def decode(data: Any, kind: Level, scratch: dict[int, Array], rows: int = 0) -> Array:
    """A whole tile, or its first rows."""
    side = kind.tile
    if not side:
        return np.zeros(0, "uint16")
    if kind.bits == 15:
        raw = imagecodecs.deflate_decode(data)
        return imagecodecs.packints_decode(raw, "uint16", 15, runlen=side).reshape(side, side)
    tile = scratch.get(side)
    if tile is None:
        tile = scratch[side] = np.empty((side, side), "uint16")
    out = tile.data.cast("B")
    if rows:
        # Not at the top: the environments of other tools load this module, and have none.
        from isal import isal_zlib

        need = rows * side * 2
        found = isal_zlib.decompressobj().decompress(data, need)
        out[:need] = found
        tile = tile[:rows]
    elif kind.compression == 8:
        imagecodecs.deflate_decode(data, out=out)
    else:
        imagecodecs.zstd_decode(data, out=out)
    if kind.predictor == 2:
        imagecodecs.delta_decode(tile, axis=1, out=tile)
    return tile


def run(root: str, pieces: list[Piece]) -> None:
    """Fetch and decode all pieces; results are filled in place."""
    todo = iter(pieces)
    lock = threading.Lock()
    ready: queue.SimpleQueue[tuple[Piece, memoryview] | None] = queue.SimpleQueue()
    small = sum(piece.count for piece in pieces) < SMALL * len(pieces)
    connections = 2 * CONNECTIONS if _far(root, pieces[0].path) and small else CONNECTIONS
    room = threading.Semaphore(connections)  # pieces fetched and not yet decoded
    failures: list[BaseException] = []

    def fetch() -> None:
        try:
            with _connect(root) as connection:
                while True:
                    room.acquire()
                    with lock:
                        piece = next(todo, None)
                    if piece is None:
                        room.release()
                        return
                    ready.put((piece, _get(connection, piece)))
        except BaseException as error:
            failures.append(error)
            for _ in range(THREADS):
                ready.put(None)

    def work() -> None:
        scratch: dict[int, Array] = {}
        while (got := ready.get()) is not None:
            piece, data = got
            tile = decode(data, piece.level, scratch, piece.rows)
            for result, there, here in piece.places:
                result[there] = tile[here]
            room.release()

    fetchers = [
        threading.Thread(target=fetch, daemon=True) for _ in range(min(connections, len(pieces)))
    ]
    workers = [threading.Thread(target=work, daemon=True) for _ in range(THREADS)]
    for thread in (*fetchers, *workers):
        thread.start()
    for thread in fetchers:
        thread.join()
    for _ in range(THREADS):
        ready.put(None)
    for thread in workers:
        thread.join()
    if failures:
        raise failures[0]


_distances: dict[str, bool] = {}
"""By server; known before the clock starts, since the spare work has asked already."""


def _far(root: str, path: str) -> bool:
    """Whether a server takes its time to answer."""
    if root not in _distances:
        nothing = Level(0, 16, 1, 1, np.zeros((0, 0)), np.zeros((0, 0)))
        with _connect(root) as connection:
            began = time.perf_counter()
            _get(connection, Piece(path, 0, 1, nothing, []))
            _distances[root] = time.perf_counter() - began > NEAR
    return _distances[root]


def _connect(root: str) -> socket.socket:
    address = urlsplit(root)
    connection = socket.create_connection((address.hostname, address.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if address.scheme != "https":
        return connection
    context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE"))
    return context.wrap_socket(connection, server_hostname=address.hostname)


def _get(connection: socket.socket, piece: Piece) -> memoryview:
    last = piece.offset + piece.count - 1
    connection.sendall(
        f"GET /{piece.path} HTTP/1.1\r\nHost: x\r\nRange: bytes={piece.offset}-{last}\r\n\r\n".encode()
    )
    buffer = memoryview(bytearray(piece.count + 1024))
    filled = 0
    while True:
        got = connection.recv_into(buffer[filled:])
        if not got:
            raise ConnectionError("the server hung up")
        filled += got
        end = bytes(buffer[: min(filled, 1024)]).find(b"\r\n\r\n")
        if end >= 0:
            break
    if bytes(buffer[9:12]) != b"206":
        raise ConnectionError(bytes(buffer[:end]).decode())
    total = end + 4 + piece.count
    while filled < total:
        got = connection.recv_into(buffer[filled:total])
        if not got:
            raise ConnectionError("the server hung up")
        filled += got
    return buffer[end + 4 : total]


def prepare(work: Workload, root: str) -> Job:
    """Everything known beforehand is worked out here; what is returned does the work."""
    levels: dict[str, Level] = {}
    for scene in work.scenes:
        for band in work.bands:
            file = scene.files[band]
            if file not in levels:
                levels[file] = level(folder() / file)
    return Job(_KINDS[work.kind](work, root, levels))


def prepare_rows(work: Workload, root: str) -> Job:
    """The same, of windows of deflated tiles, no further than their last row."""
    if work.kind not in ("windows", "median") or work.variant != "s2":
        raise Unable("it is for windows under s2")
    levels = {
        scene.files[b]: level(folder() / scene.files[b])
        for scene in work.scenes
        for b in work.bands
    }
    return Job(_windows(work, root, levels, to_last_row=True))


def _windows(
    work: Workload, root: str, levels: Levels, *, to_last_row: bool = False
) -> Callable[[], Any]:
    def job() -> Any:
        shape = work.windows[0][2:]
        stack = np.empty((len(work.windows), len(work.scenes), len(work.bands), *shape), "uint16")
        pieces = _cover(work, levels, stack)
        run(root, [_cut(piece) for piece in pieces] if to_last_row else pieces)
        return reduce_median(split(stack[0])) if work.kind == "median" else stack

    return job


def _lazy(work: Workload, root: str, levels: Levels) -> Callable[[], Any]:
    """One window of the scene in question: nobody needs to know of the others."""
    one = _windows(replace(work, scenes=(work.scenes[work.chosen],)), root, levels)
    return lambda: one()[0, 0]


def _chips(work: Workload, root: str, levels: Levels) -> Callable[[], Any]:
    """Batch after batch, each tile of a batch once; the next batch is on its way meanwhile."""

    def job() -> Array:
        sums = np.empty(len(work.chips), "uint64")
        # In parts, so that no more than some batches' chips are held at once, as a trainer would.
        for first in range(0, len(work.chips), 16 * BATCH):
            chips = work.chips[first : first + 16 * BATCH]
            stack = np.empty((len(chips), 256, 256), "uint16")
            pieces: list[Piece] = []
            for start in range(0, len(chips), BATCH):
                batch = slice(start, start + BATCH)
                pieces += _chip_pieces(work, levels, chips[batch], stack[batch])
            run(root, pieces)
            sums[first : first + len(chips)] = stack.sum(axis=(1, 2), dtype="uint64")
        return sums

    return job


def _chip_pieces(
    work: Workload, levels: Levels, chips: Sequence[tuple[int, int, int]], stack: Array
) -> list[Piece]:
    places: dict[tuple[int, int, int], list[tuple[Array, Any, Any]]] = defaultdict(list)
    for n, (scene, row, column) in enumerate(chips):
        side = levels[work.scenes[scene].files[work.bands[0]]].tile
        for ij, there, here in _parts((row, column, 256, 256), side):
            places[scene, *ij].append((stack[n], there, here))
    pieces = []
    for (scene, i, j), where in places.items():
        found = work.scenes[scene]
        kind = levels[found.files[work.bands[0]]]
        place = int(kind.offsets[i, j]), int(kind.counts[i, j])
        pieces.append(Piece(found.paths[work.bands[0]], *place, kind, where))
    return pieces


def _parts(window: Window, side: int) -> Iterator[tuple[tuple[int, int], Any, Any]]:
    """Tiles that a window meets: which, where in the window, where in the tile."""
    row, column, rows, columns = window
    for i in range(row // side, (row + rows - 1) // side + 1):
        for j in range(column // side, (column + columns - 1) // side + 1):
            top, bottom = max(row, i * side), min(row + rows, (i + 1) * side)
            left, right = max(column, j * side), min(column + columns, (j + 1) * side)
            there = np.s_[top - row : bottom - row, left - column : right - column]
            here = np.s_[top - i * side : bottom - i * side, left - j * side : right - j * side]
            yield (i, j), there, here


def _cover(work: Workload, levels: Levels, stack: Array) -> list[Piece]:
    pieces = []
    for s, scene in enumerate(work.scenes):
        for b, band in enumerate(work.bands):
            kind = levels[scene.files[band]]
            places: dict[tuple[int, int], list[tuple[Array, Any, Any]]] = defaultdict(list)
            for w, window in enumerate(work.windows):
                for ij, there, here in _parts(window, kind.tile):
                    places[ij].append((stack[w, s, b], there, here))
            pieces += [
                Piece(scene.paths[band], int(kind.offsets[ij]), int(kind.counts[ij]), kind, where)
                for ij, where in places.items()
            ]
    return pieces


def _cut(piece: Piece) -> Piece:
    """The first rows of a tile, if its last are not wanted."""
    rows = max(here[0].stop for _, _, here in piece.places)
    share = rows / piece.level.tile
    if share == 1:
        return piece
    count = piece.count
    if share <= MOST:
        count = min(count, int(count * (SLOPE * share + OFFSET)) + 1)
    return replace(piece, rows=rows, count=count)


def _gather(work: Workload, levels: Levels, wanted: Any) -> list[Piece]:
    """Pieces for single pixels: ``wanted(scene number)`` → (result, indices into it, rows, columns)."""
    pieces = []
    for s, scene in enumerate(work.scenes):
        kind = levels[scene.files[work.bands[0]]]
        n = kind.tile
        result, into, rows, columns = wanted(s)
        across = -(-SIDE // n)
        flat = rows // n * across + columns // n
        order = np.argsort(flat, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(flat[order]) > 0])
        for members in np.split(order, starts[1:]):
            i, j = divmod(int(flat[members[0]]), across)
            here = (rows[members] - i * n, columns[members] - j * n)
            where = [(result, into[members], here)]
            path, at = scene.paths[work.bands[0]], (i, j)
            pieces.append(Piece(path, int(kind.offsets[at]), int(kind.counts[at]), kind, where))
    return pieces


def _points(work: Workload, root: str, levels: Levels) -> Callable[[], Any]:
    result = np.empty((len(work.scenes), len(work.points)), "uint16")
    every = np.arange(len(work.points))
    rows, columns = work.points.T
    pieces = _gather(work, levels, lambda s: (result[s], every, rows, columns))

    def job() -> Array:
        run(root, pieces)
        return result

    return job


def _warp(work: Workload, root: str, levels: Levels) -> Callable[[], Any]:
    """Nearest, each pixel's source worked out beforehand by pyproj, without approximation."""
    row, column, height, width = work.windows[0]
    r, c = np.mgrid[row : row + height, column : column + width]
    left, top = CORNERS[32633]
    x, y = left + (c.ravel() + 0.5) * 10, top - (r.ravel() + 0.5) * 10
    sources = {}
    for epsg, (west, north) in CORNERS.items():
        to = Transformer.from_crs("EPSG:32633", f"EPSG:{epsg}", always_xy=True)
        sx, sy = to.transform(x, y)
        sources[epsg] = [np.floor(v).astype("int64") for v in ((north - sy) / 10, (sx - west) / 10)]
    every = np.arange(height * width)
    result = np.empty((len(work.scenes), height * width), "uint16")
    pieces = _gather(work, levels, lambda s: (result[s], every, *sources[work.scenes[s].epsg]))

    def job() -> Array:
        run(root, pieces)
        return result.reshape(-1, height, width)

    return job


def _headers(work: Workload, root: str, levels: Levels) -> Callable[[], Any]:
    """The first 32 KiB of each file; nothing is parsed, nothing is written."""
    nothing = Level(0, 16, 1, 1, np.zeros((0, 0)), np.zeros((0, 0)))
    pieces = [
        Piece(scene.paths[band], 0, 32768, nothing, [])
        for scene in work.scenes
        for band in work.bands
    ]

    def job() -> Array:
        run(root, pieces)
        return np.array(len(pieces))

    return job


_KINDS: dict[str, Callable[[Workload, str, Levels], Callable[[], Any]]] = {
    "windows": _windows,
    "median": _windows,
    "points": _points,
    "warp": _warp,
    "headers": _headers,
    "lazy": _lazy,
    "chips": _chips,
}
