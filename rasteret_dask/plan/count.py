"""Counting what plans fetch: tiles of all chunks and sources in a few arrays, merged into requests as the reader merges them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rasteret_dask.grid.tiles import Piece, Window
from rasteret_dask.plan.chunks import BandPlan, Edges, ReadPlan
from rasteret_dask.plan.coalesce import merged_sizes
from rasteret_dask.plan.costs import BandCost
from rasteret_dask.plan.enough import enough
from rasteret_dask.plan.resolve import Coordinates, inner_needs, mask_window, needed_pieces, resolve
from rasteret_dask.plan.sources import Ints, SourceRead, SourceTable
from rasteret_dask.tiff.model import TileLayout

AT_ONCE = 2**21
"""Tiles that are held at a time: some 40 bytes each."""

Box = tuple[slice, slice, slice] | None

Pattern = tuple[Ints, Ints, Ints, Ints] | None
"""Rows, columns, used pixels and last used row (exclusive) of the tiles that a window touches."""

Patterns = tuple[Pattern, Pattern, Pattern]
"""Of a source, of its mask band and of its internal mask."""

Known = dict[tuple[Any, ...], Patterns]
"""What has been worked out: sources on one grid need the same for one window, and so do bands on one grid."""


@dataclass(slots=True)
class Tally:
    """Tiles of chunks and files, until there are enough of them to be merged and counted.

    Parameters
    ----------
    cost : BandCost
        Of those that have been counted.
    parts : list of tuple of ndarray
        ``(key of chunk and file, start, stop, end of what is asked for, pixels, used pixels)`` of tiles that have not.
    held : int
        How many those are.
    """

    cost: BandCost = field(default_factory=BandCost)
    parts: list[tuple[Ints, Ints, Ints, Ints, Ints, Ints]] = field(default_factory=list)
    held: int = 0

    def add(self, keys: Ints, read: Tiles, members: Ints, pattern: Pattern) -> None:
        """Take what ``members`` of a table fetch by one pattern, each under a key of its own; sparse tiles are not fetched.

        Parameters
        ----------
        keys : ndarray of int64
            One for each member; what has equal keys is fetched together.
        read : Tiles
            The table's byte ranges.
        members : ndarray of int64
            Rows of the table.
        pattern : (rows, columns, pixels used, last row used) of tiles, or None
        """
        if pattern is None:
            return
        rows, cols, used, last = pattern
        r0, _, c0, c1 = read.rect
        flat = read.pointers[members][:, None] + ((rows - r0) * (c1 - c0) + cols - c0)
        starts, counts = read.offsets[flat].astype(np.int64), read.counts[flat].astype(np.int64)
        there = counts > 0
        every = np.broadcast_to(keys[:, None], there.shape)[there]
        held = np.minimum(read.layout.height, read.height - rows * read.layout.height)
        asked = enough(counts, last, held, read.layout)
        self.parts.append(
            (
                every,
                starts[there],
                (starts + counts)[there],
                (starts + asked)[there],
                np.full(len(every), read.area, dtype=np.int64),
                np.broadcast_to(used, there.shape)[there],
            )
        )
        self.held += len(every)

    def settle(self) -> None:
        """Count what is held. Tiles of one chunk and file that were added before and come again would count twice."""
        if not self.held:
            return
        keys, starts, stops, ends, area, used = (
            np.concatenate(column) for column in zip(*self.parts)
        )
        self.parts, self.held = [], 0
        order = np.lexsort((starts, keys))
        keys, starts, stops, ends = keys[order], starts[order], stops[order], ends[order]
        fresh = np.ones(len(keys), dtype=bool)
        fresh[1:] = (keys[1:] != keys[:-1]) | (starts[1:] != starts[:-1])
        first = np.flatnonzero(fresh)
        area, used = area[order][first], np.add.reduceat(used[order], first)
        ends = np.maximum.reduceat(ends, first)
        requests, size = merged_sizes(keys[first], starts[first], stops[first], ends)
        counted = BandCost(
            requests=requests,
            bytes=size,
            tiles=len(first),
            pixels_fetched=int(area.sum()),
            pixels_used=int(np.minimum(area, used).sum()),
        )
        self.cost = self.cost.plus(counted)


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """Where the tiles of sources that lie alike begin in a table.

    Parameters
    ----------
    rect : tuple of int
        Of the tiles that the table keeps of each source: ``(row0, row1, col0, col1)``.
    pointers : ndarray of int64
        Where each source's tiles begin.
    offsets, counts : ndarray
    height : int
        Rows of the images.
    layout : TileLayout
    """

    rect: tuple[int, int, int, int]
    pointers: Ints
    offsets: np.ndarray[Any, Any]
    counts: np.ndarray[Any, Any]
    height: int
    layout: TileLayout

    @property
    def area(self) -> int:
        """Pixels of a tile."""
        return self.layout.height * self.layout.width


def count_plan(plan: BandPlan, known: Known | None = None) -> BandCost:
    """Count what all chunks of a band will fetch: sources that lie alike are one case, however many dates they have.

    Parameters
    ----------
    plan : BandPlan
    known : dict, optional
        Shared between the bands of a cube.
    """
    tally = Tally()
    known = {} if known is None else known
    kinds = [(part, _kinds(part)) for part in (plan, *plan.partners)]
    files = _numbers(url for part, _ in kinds for table in _tables(part) for url in table.urls)
    edges = plan.edges()
    tiles = max(1, sum(len(t.offsets) for part, _ in kinds for t in _tables(part)))
    at_once = max(1, AT_ONCE * len(plan.chunks[0]) // tiles)
    for first in range(0, len(plan.chunks[0]), at_once):
        last = min(len(plan.chunks[0]), first + at_once)
        for part, alike in kinds:
            for members in alike:
                _count_kind(tally, part, members, edges, (first, last), files, known)
        tally.settle()
    largest = math.prod(max(sizes, default=0) for sizes in plan.chunks)
    size = largest * np.dtype(plan.output.dtype).itemsize
    return tally.cost.plus(BandCost(tasks=math.prod(plan.numblocks), peak_chunk_bytes=size))


def _tables(plan: BandPlan) -> list[SourceTable]:
    return [t for t in (plan.table, plan.masks, plan.inner) if t is not None]


def _numbers(texts: Iterable[str]) -> dict[str, int]:
    out: dict[str, int] = {}
    for text in texts:
        out.setdefault(text, len(out))
    return out


def _kinds(plan: BandPlan) -> list[Ints]:
    """Group the sources of a plan that need the same tiles for the same window: they differ in time, file and byte ranges alone."""
    if not len(plan.table):
        return []
    columns = [plan.table.windows]
    for table in _tables(plan):
        radii = _numbers(map(repr, table.radii))
        columns += [table.map_ids, table.layout_ids, table.sizes, table.rects]
        columns += [np.array([radii[repr(r)] for r in table.radii], np.int64)] if radii else []
    keys = np.column_stack(columns)
    _, inverse = np.unique(keys, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    order = np.argsort(inverse, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(inverse[order])) + 1)


def _count_kind(
    tally: Tally,
    plan: BandPlan,
    members: Ints,
    edges: Edges,
    times: tuple[int, int],
    files: Mapping[str, int],
    known: Known,
) -> None:
    """Add what sources that lie alike fetch for chunks ``times[0] … times[1]`` along time, and all along y and x."""
    table = plan.table
    chunk = np.searchsorted(edges[0], table.steps[members], side="right") - 1
    there = (chunk >= times[0]) & (chunk < times[1])
    members, chunk = members[there], chunk[there]
    if not len(members):
        return
    one = int(members[0])
    numbers = [np.array([files[t.urls[k]] for k in members.tolist()]) for t in _tables(plan)]
    w = table.windows[one].tolist()
    rows, cols = edges[1], edges[2]
    for i, j in _touched(edges, w):
        window = (
            max(rows[i], w[0]),
            min(rows[i + 1], w[1]),
            max(cols[j], w[2]),
            min(cols[j + 1], w[3]),
        )
        source = plan.source(one, 0, window, (int(chunk[0]), i, j))
        if source is None:
            continue
        block = (chunk * (len(rows) - 1) + i) * (len(cols) - 1) + j
        found = _patterns(source, window, plan.output.method, known, Coordinates())
        present = (True, plan.masks is not None, plan.inner is not None)
        wanted = [pattern for pattern, used in zip(found, present) if used]
        for part, number, pattern in zip(_tables(plan), numbers, wanted):
            tally.add(block * len(files) + number, _tiles(part, one), members, pattern)


def _touched(edges: Edges, window: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the chunks, along y and x, that a window of the output meets."""
    runs = []
    for axis, low, high in ((1, window[0], window[1]), (2, window[2], window[3])):
        first = int(np.searchsorted(edges[axis], low, side="right")) - 1
        last = int(np.searchsorted(edges[axis], high, side="left"))
        runs.append(range(first, last))
    for i in runs[0]:
        for j in runs[1]:
            yield i, j


def _tiles(table: SourceTable, one: int) -> Tiles:
    layout = table.layouts[int(table.layout_ids[one])]
    r0, r1, c0, c1 = table.rects[one].tolist()
    height = int(table.sizes[one, 0])
    return Tiles((r0, r1, c0, c1), table.tile_ptr, table.offsets, table.counts, height, layout)


def count_reads(reads: Iterable[tuple[ReadPlan, Box]]) -> BandCost:
    """Count what single reads of one band will fetch, each of a box of a chunk (None: all of it)."""
    tally = Tally()
    tasks = peak = 0
    files: dict[str, int] = {}
    known: Known = {}
    for number, (block, box) in enumerate(reads):
        shape = block.shape if box is None else tuple(s.stop - s.start for s in box)
        tasks += 1
        peak = max(peak, math.prod(shape) * np.dtype(block.output.dtype).itemsize)
        for read, pattern in _block(block, box, known):
            key = np.array([(number << 32) + files.setdefault(read.url, len(files))])
            rect = read.rect
            where = (rect.row0, rect.row1, rect.col0, rect.col1)
            one = Tiles(where, _ZERO, read.offsets, read.counts, read.height, read.layout)
            tally.add(key, one, _ZERO, pattern)
        if tally.held > AT_ONCE:
            tally.settle()
    tally.settle()
    return tally.cost.plus(BandCost(tasks=tasks, peak_chunk_bytes=peak))


_ZERO = np.zeros(1, dtype=np.int64)


def _block(block: ReadPlan, box: Box, known: Known) -> Iterator[tuple[SourceRead, Pattern]]:
    """Yield every file that a chunk's box touches, with the tiles of it."""
    nt, ny, nx = block.shape
    steps, rows, cols = box or (slice(0, nt), slice(0, ny), slice(0, nx))
    top, left = block.origin
    window = (top + rows.start, top + rows.stop, left + cols.start, left + cols.stop)
    cache = Coordinates()
    for part in (block, *block.partners):
        for source in part.sources:
            if not steps.start <= source.step < steps.stop:
                continue
            found = _patterns(source, window, part.output.method, known, cache)
            for read, pattern in zip((source, source.mask, source.inner), found):
                if read is not None:
                    yield read, pattern


def _patterns(
    source: SourceRead, window: Window, method: str, known: Known, cache: Coordinates
) -> Patterns:
    """Return what a source, its mask band and its internal mask need for a window of the output."""
    mask, inner = source.mask, source.inner
    about = None if mask is None else (mask.map, mask.height, mask.width, mask.layout, mask.radius)
    own = (source.map, source.height, source.width, source.layout, source.window)
    key = (*own, method, window, about, None if inner is None else inner.layout)
    if key not in known:
        where = resolve(source, window, cache, method)
        under = None if where is None or mask is None else mask_window(source, where)
        known[key] = (
            None if where is None else _pattern(needed_pieces(source, where)),
            None if under is None or mask is None else _pattern(needed_pieces(mask, under)),
            None if where is None or inner is None else _pattern(inner_needs(source, where)),
        )
    return known[key]


def _pattern(pieces: Iterable[Piece]) -> Pattern:
    found = [
        (p.row, p.col, (p.rows[1] - p.rows[0]) * (p.cols[1] - p.cols[0]), p.rows[1]) for p in pieces
    ]
    rows, cols, used, last = np.array(found, dtype=np.int64).reshape(-1, 4).T
    return rows, cols, used, last
