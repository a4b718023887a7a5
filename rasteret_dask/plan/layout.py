"""Dask chunks of a cube: whole tiles, enough of them for a task to hide latency, not too many bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rasteret_dask.errors import ArgumentError

TILES = 32
"""A task with so many tiles keeps enough requests in flight to hide latency."""

Chunks = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def auto_chunks(
    shape: tuple[int, int, int],
    tile: tuple[int, int],
    offset: tuple[int, int],
    itemsize: int,
    target: int,
) -> Chunks:
    """Choose chunks.

    Parameters
    ----------
    shape : tuple of int
        Time, y, x of the cube.
    tile : tuple of int
        Rows and columns of a source tile, in output pixels.
    offset : tuple of int
        Row and column of the cube's corner within a source tile; when it is (0, 0) chunks begin on tiles.
    itemsize : int
        Bytes of an output pixel.
    target : int
        Bytes of a chunk at most, if a chunk of one tile fits.

    Returns
    -------
    tuple of tuple of int
        Uniform along each dimension except for the last chunk, as Zarr wants them; of 11 tiles that are cut by at most 5, it is 4, 4 and 3.
    """
    nt, ny, nx = shape
    th, tw = max(1, tile[0]), max(1, tile[1])
    side = 1
    while (side + 1) ** 2 * th * tw * itemsize <= target and (side * th < ny or side * tw < nx):
        side += 1
    cy, cx = _even(ny, th, side), _even(nx, tw, side)
    # A long thin area: give what one axis leaves over to the other.
    if cx == nx:
        cy = _even(ny, th, max(1, target // (th * cx * itemsize)))
    if cy == ny:
        cx = _even(nx, tw, max(1, target // (tw * cy * itemsize)))
    ct = 1
    if cy == ny and cx == nx:
        tiles = _tiles(ny, th, offset[0]) * _tiles(nx, tw, offset[1])
        ct = min(nt, max(1, TILES // tiles), max(1, target // max(1, ny * nx * itemsize)))
    return _split(nt, ct), _split(ny, cy), _split(nx, cx)


def _even(size: int, tile: int, most: int) -> int:
    """Return a chunk of whole tiles, at most so many: no more chunks than those would make, and the last as large as it can be."""
    tiles = -(-size // tile)
    return min(size, -(-tiles // -(-tiles // most)) * tile)


def _tiles(size: int, tile: int, offset: int) -> int:
    return -(-(size + offset % tile) // tile)


def _split(size: int, chunk: int) -> tuple[int, ...]:
    full, rest = divmod(size, chunk)
    return (chunk,) * full + ((rest,) if rest else ())


def parse_chunks(
    chunks: Any,
    shape: tuple[int, int, int],
    tile: tuple[int, int],
    offset: tuple[int, int],
    itemsize: int,
    target: int,
) -> Chunks:
    """Understand ``chunks=``: ``"auto"``, ``"tile"``, ``{}`` (natural tiles), ``"tiles"``, or a mapping of ``time``, ``y`` and ``x``.

    In a mapping, -1 or None takes the whole dimension, ``"tile"`` cuts at the edges of source tiles (so that none is read twice, also where
    the cube begins amid one), ``"tiles"`` does so after as many tiles as ``"auto"`` would take, ``"auto"`` or a missing key takes what
    :func:`auto_chunks` would choose with the others fixed, and a tuple lists every chunk.

    Parameters
    ----------
    chunks
        As the caller gave it.
    shape, tile, offset, itemsize, target
        As for :func:`auto_chunks`.

    Raises
    ------
    ArgumentError
        If it is none of these.
    """
    if chunks == "auto":
        return auto_chunks(shape, tile, offset, itemsize, target)
    if chunks == "tile" or chunks == {}:
        t, y, x = shape
        return (1,) * t, tile_split(y, tile[0], offset[0]), tile_split(x, tile[1], offset[1])
    if chunks == "tiles":
        chunks = {"y": "tiles", "x": "tiles"}
    if not isinstance(chunks, Mapping):
        raise ArgumentError(
            f"chunks must be 'auto', 'tile', 'tiles', None or a mapping, not {chunks!r}"
        )
    unknown = set(chunks) - {"time", "y", "x"}
    if unknown:
        raise ArgumentError(
            f"chunks names unknown dimensions {sorted(map(str, unknown))}; they are time, y, x"
        )
    natural = (
        (1,) * shape[0],
        tile_split(shape[1], tile[0], offset[0]),
        tile_split(shape[2], tile[1], offset[1]),
    )
    fixed = [
        cut if chunks.get(dim) == "tile" else _one(chunks.get(dim, "auto"), size, dim)
        for dim, size, cut in zip(("time", "y", "x"), shape, natural)
    ]
    if any(f is None for f in fixed):
        depth = shape[0] if fixed[0] is None else max(fixed[0], default=1)
        room = max(1, target // (depth if fixed[0] is not None else 1))
        auto = auto_chunks(shape, tile, offset, itemsize, room)
        fixed = [a if f is None else f for a, f in zip(auto, fixed)]
    times, rows, columns = (f or () for f in fixed)
    if chunks.get("y") == "tiles":
        rows = _tiles_split(shape[1], tile[0], offset[0], rows[0])
    if chunks.get("x") == "tiles":
        columns = _tiles_split(shape[2], tile[1], offset[1], columns[0])
    return times, rows, columns


def _one(wanted: Any, size: int, dim: str) -> tuple[int, ...] | None:
    if isinstance(wanted, str) and (wanted == "auto" or (wanted == "tiles" and dim != "time")):
        return None
    if wanted is None or wanted == -1:
        return (size,)
    if isinstance(wanted, int) and wanted > 0:
        return _split(size, min(wanted, size))
    if isinstance(wanted, (tuple, list)) and sum(wanted) == size and all(c > 0 for c in wanted):
        return tuple(int(c) for c in wanted)
    raise ArgumentError(f"{wanted!r} does not say how to cut a dimension of {size}")


def tile_split(size: int, tile: int, offset: int) -> tuple[int, ...]:
    """Cut a dimension at every edge of a source tile."""
    first = min(size, tile - offset % tile)
    return (first, *_split(size - first, tile)) if size > first else (first,)


def _tiles_split(size: int, tile: int, offset: int, most: int) -> tuple[int, ...]:
    """Cut a dimension at edges of source tiles, into as few chunks of at most so many pixels (or a tile) as will do, as equal as can be."""
    tiles = _tiles(size, tile, offset)
    group = _even(tiles, 1, max(1, most // tile))
    return tile_split(size, group * tile, offset % tile)
