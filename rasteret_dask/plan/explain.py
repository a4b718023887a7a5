"""What a cube will fetch, before it fetches anything: counted on the very plans that will be read."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from rasteret_dask.grid.tiles import Piece
from rasteret_dask.plan.chunks import BandPlan, ReadPlan
from rasteret_dask.plan.coalesce import coalesce
from rasteret_dask.plan.resolve import Coordinates, mask_window, needed_pieces, resolve
from rasteret_dask.plan.sources import SourceRead


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
    requests = size = tiles = tasks = fetched = used = peak = 0
    itemsize = np.dtype(plan.output.dtype).itemsize
    for index in plan.blocks():
        block = plan.block(index)
        tasks += 1
        peak = max(peak, int(np.prod(block.shape)) * itemsize)
        by_url = block_tiles(block)
        for found in by_url.values():
            ranges = np.array(list(found), dtype=np.int64).reshape(-1, 2)
            merged = coalesce(ranges[:, 0], ranges[:, 1])
            requests += len(merged)
            size += sum(m.stop - m.start for m in merged)
            tiles += len(found)
            fetched += sum(f for f, _ in found.values())
            used += sum(u for _, u in found.values())
    return BandCost(requests, size, tiles, tasks, fetched, used, peak)


Tiles = dict[tuple[int, int], tuple[int, int]]
"""``(start, stop)`` of a tile to its pixels and those of them that are used."""


def block_tiles(block: ReadPlan) -> dict[str, Tiles]:
    """Return the tiles that a whole chunk fetches, by URL; sparse tiles are not fetched."""
    _, ny, nx = block.shape
    top, left = block.origin
    window = (top, top + ny, left, left + nx)
    cache: Coordinates = {}
    out: dict[str, Tiles] = defaultdict(dict)
    for source in block.sources:
        where = resolve(source, window, cache, block.output.method)
        if where is None:
            continue
        _add(out, source, needed_pieces(source, where))
        mask_where = mask_window(source, where)
        if source.mask is not None and mask_where is not None:
            _add(out, source.mask, needed_pieces(source.mask, mask_where))
    return out


def _add(out: dict[str, Tiles], source: SourceRead, pieces: Iterable[Piece]) -> None:
    area = source.layout.height * source.layout.width
    for piece in pieces:
        offset, count = source.tile(piece.row, piece.col)
        if not count:
            continue
        rows, cols = piece.rows, piece.cols
        used = (rows[1] - rows[0]) * (cols[1] - cols[0])
        known = out[source.url].get((offset, offset + count), (area, 0))
        out[source.url][(offset, offset + count)] = (area, min(area, known[1] + used))
