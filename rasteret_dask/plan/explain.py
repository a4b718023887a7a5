"""What a cube will fetch, before it fetches anything: counted on the very plans that will be read."""

from __future__ import annotations

import html
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rasteret_dask.grid.tiles import Piece, Window
from rasteret_dask.plan.chunks import BandPlan, ReadPlan
from rasteret_dask.plan.coalesce import coalesce
from rasteret_dask.plan.resolve import Coordinates, inner_needs, mask_window, needed_pieces, resolve
from rasteret_dask.plan.sources import Ints, SourceRead


@dataclass(frozen=True, slots=True)
class BandCost:
    """What one band costs.

    Parameters
    ----------
    requests, bytes, tiles, tasks : int
        Tiles are those fetched, mask tiles included.
    pixels_fetched, pixels_used : int
        Pixels of the fetched tiles, and how many of them the plan needs.
    peak_chunk_bytes : int
        Memory of the largest chunk.
    """

    requests: int = 0
    bytes: int = 0
    tiles: int = 0
    tasks: int = 0
    pixels_fetched: int = 0
    pixels_used: int = 0
    peak_chunk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """The cost of a read; requests and bytes are exact for the planned requests, retries and redirects apart.

    Parameters
    ----------
    bands : mapping of str to BandCost
    """

    bands: Mapping[str, BandCost]

    @property
    def total(self) -> BandCost:
        """All bands together; the peak is that of the largest."""
        costs = list(self.bands.values())
        return BandCost(
            requests=sum(c.requests for c in costs),
            bytes=sum(c.bytes for c in costs),
            tiles=sum(c.tiles for c in costs),
            tasks=sum(c.tasks for c in costs),
            pixels_fetched=sum(c.pixels_fetched for c in costs),
            pixels_used=sum(c.pixels_used for c in costs),
            peak_chunk_bytes=max((c.peak_chunk_bytes for c in costs), default=0),
        )

    @property
    def requests(self) -> int:
        """GET requests."""
        return self.total.requests

    @property
    def bytes(self) -> int:
        """Bytes fetched."""
        return self.total.bytes

    @property
    def used_share(self) -> float:
        """Share of the fetched pixels that is used, 0 to 1."""
        total = self.total
        return total.pixels_used / total.pixels_fetched if total.pixels_fetched else 1.0

    def seconds(self, *, latency: float, bandwidth: float, in_flight: int = 64) -> float:
        """Return how long fetching takes at least.

        Parameters
        ----------
        latency : float
            Seconds of one request.
        bandwidth : float
            Bytes a second, of all workers together.
        in_flight : int
            Requests under way at once, of all workers together.
        """
        total = self.total
        return max(total.bytes / bandwidth, -(-total.requests // in_flight) * latency)

    def money(self, *, per_thousand_gets: float, per_gigabyte: float) -> float:
        """Return what fetching costs, in the currency of the prices (10**9 bytes to a gigabyte)."""
        total = self.total
        return total.requests / 1000 * per_thousand_gets + total.bytes / 1e9 * per_gigabyte

    def to_rows(self) -> list[dict[str, object]]:
        """Return one mapping for each band, as for a table."""
        return [{"band": band, **asdict(cost)} for band, cost in self.bands.items()]

    def __str__(self) -> str:
        rows = [("band", "requests", "MB", "tiles", "tasks", "used", "chunk MiB")]
        for band, c in [*self.bands.items(), ("all", self.total)]:
            used = c.pixels_used / c.pixels_fetched if c.pixels_fetched else 1.0
            rows.append(
                (
                    band,
                    f"{c.requests}",
                    f"{c.bytes / 1e6:.2f}",
                    f"{c.tiles}",
                    f"{c.tasks}",
                    f"{used:.0%}",
                    f"{c.peak_chunk_bytes / 2**20:.1f}",
                )
            )
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        return "\n".join("  ".join(v.rjust(w) for v, w in zip(row, widths)) for row in rows)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def explain_plans(plans: Mapping[str, BandPlan]) -> Explanation:
    """Count what plans will fetch.

    Parameters
    ----------
    plans : mapping of str to BandPlan
        By the name of the band.
    """
    return Explanation({band: _explain(plan) for band, plan in plans.items()})


def _explain(plan: BandPlan) -> BandCost:
    edges = plan.edges()
    return explain_reads((plan.block(index, edges), None) for index in plan.blocks())


Box = tuple[slice, slice, slice] | None


def explain_reads(reads: Iterable[tuple[ReadPlan, Box]]) -> BandCost:
    """Count what reads of one band will fetch, each of a box of a chunk (None: all of it)."""
    requests = size = tiles = tasks = fetched = used = peak = 0
    patterns: Patterns = {}
    for block, box in reads:
        shape = block.shape if box is None else tuple(s.stop - s.start for s in box)
        tasks += 1
        peak = max(peak, math.prod(shape) * np.dtype(block.output.dtype).itemsize)
        for found in block_tiles(block, patterns, box).values():
            merged = coalesce(found.starts, found.stops)
            requests += len(merged)
            size += sum(m.stop - m.start for m in merged)
            tiles += len(found.starts)
            fetched += int(found.fetched.sum())
            used += int(found.used.sum())
    return BandCost(requests, size, tiles, tasks, fetched, used, peak)


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """Distinct tiles of one file that a chunk fetches.

    Parameters
    ----------
    starts, stops : ndarray of int64
        Byte ranges.
    fetched, used : ndarray of int64
        Pixels of each tile, and how many of them the chunk needs.
    """

    starts: Ints
    stops: Ints
    fetched: Ints
    used: Ints


Pattern = tuple[Ints, Ints, Ints] | None
"""Rows, columns and used pixels of the tiles that a window touches."""

Patterns = dict[tuple[Any, ...], tuple[Pattern, Pattern, Pattern]]
"""What sources on one grid need for one window, and what their mask bands and internal masks need: the dates of a tile share it."""


def block_tiles(
    block: ReadPlan,
    patterns: Patterns | None = None,
    box: tuple[slice, slice, slice] | None = None,
) -> dict[str, Tiles]:
    """Return the tiles that a chunk fetches, by URL; sparse tiles are not fetched.

    Parameters
    ----------
    block : ReadPlan
    patterns : dict, optional
        Shared between chunks of one band.
    box : tuple of slice, optional
        Steps, rows and columns of the chunk that are wanted, with start and stop; all by default.
    """
    nt, ny, nx = block.shape
    steps, rows, cols = box or (slice(0, nt), slice(0, ny), slice(0, nx))
    top, left = block.origin
    window = (top + rows.start, top + rows.stop, left + cols.start, left + cols.stop)
    patterns = {} if patterns is None else patterns
    cache: Coordinates = {}
    parts: dict[str, list[Tiles]] = defaultdict(list)
    reads = [(s, p.output.method) for p in (block, *block.partners) for s in p.sources]
    for source, method in reads:
        if not steps.start <= source.step < steps.stop:
            continue
        own, under, inner = _patterns(source, window, method, patterns, cache)
        for read, pattern in ((source, own), (source.mask, under), (source.inner, inner)):
            if read is not None and pattern is not None:
                parts[read.url].append(_tiles(read, pattern))
    return {url: _distinct(found) for url, found in parts.items()}


def _patterns(
    source: SourceRead, window: Window, method: str, patterns: Patterns, cache: Coordinates
) -> tuple[Pattern, Pattern, Pattern]:
    mask = source.mask
    about = None if mask is None else (mask.map, mask.height, mask.width, mask.layout, mask.radius)
    inner = source.inner
    own = (source.map, source.height, source.width, source.layout, source.window)
    key = (*own, method, window, about, None if inner is None else inner.layout)
    if key not in patterns:
        where = resolve(source, window, cache, method)
        under = None if where is None else mask_window(source, where)
        patterns[key] = (
            None if where is None else _pattern(needed_pieces(source, where)),
            None if under is None or mask is None else _pattern(needed_pieces(mask, under)),
            None if where is None or inner is None else _pattern(inner_needs(source, where)),
        )
    return patterns[key]


def _pattern(pieces: Iterable[Piece]) -> Pattern:
    found = [(p.row, p.col, (p.rows[1] - p.rows[0]) * (p.cols[1] - p.cols[0])) for p in pieces]
    rows, cols, used = np.array(found, dtype=np.int64).reshape(-1, 3).T
    return rows, cols, used


def _tiles(read: SourceRead, pattern: tuple[Ints, Ints, Ints]) -> Tiles:
    rows, cols, used = pattern
    flat = (rows - read.rect.row0) * read.rect.cols + cols - read.rect.col0
    starts, counts = read.offsets[flat].astype(np.int64), read.counts[flat].astype(np.int64)
    there = counts > 0
    area = np.full(int(there.sum()), read.layout.height * read.layout.width, dtype=np.int64)
    return Tiles(starts[there], (starts + counts)[there], area, used[there])


def _distinct(parts: list[Tiles]) -> Tiles:
    """Put what several sources need of one file together; a tile counts once."""
    if len(parts) == 1:
        return parts[0]
    starts = np.concatenate([p.starts for p in parts])
    _, first, inverse = np.unique(starts, return_index=True, return_inverse=True)
    stops = np.concatenate([p.stops for p in parts])[first]
    area = np.concatenate([p.fetched for p in parts])[first]
    used = np.bincount(inverse.reshape(-1), weights=np.concatenate([p.used for p in parts]))
    return Tiles(starts[first], stops, area, np.minimum(area, used.astype(np.int64)))
