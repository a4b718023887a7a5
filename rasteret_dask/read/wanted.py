"""Which tiles are wanted, by whom, and what is asked of which file for them: pure, no I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rasteret_dask.plan.coalesce import coalesce
from rasteret_dask.plan.enough import enough
from rasteret_dask.plan.sources import Ints, SourceRead
from rasteret_dask.storage.source import RangeRequest


class Part(Protocol):
    """What somebody wants of one tile."""

    @property
    def row(self) -> int:
        """Of the tile."""

    @property
    def col(self) -> int:
        """Of the tile."""

    @property
    def rows(self) -> tuple[int, int]:
        """Pixels within the tile."""

    @property
    def cols(self) -> tuple[int, int]:
        """Pixels within the tile."""


class Wanted(Protocol):
    """Parts of the tiles of one source, and where they go; a `Load` is one."""

    @property
    def source(self) -> SourceRead:
        """Whose tiles they are."""

    @property
    def band(self) -> str:
        """For messages."""

    @property
    def pieces(self) -> Sequence[Any]:
        """One `Part` for each tile."""

    def place(self, piece: Any) -> npt.NDArray[Any] | None:
        """Where the pixels of a part may be decoded to, shape (rows, columns) of it; None: nowhere, :meth:`take` takes them."""

    def take(self, piece: Any, pixels: npt.NDArray[Any]) -> None:
        """Use the pixels of a part, shape (rows, columns) of it; they must be copied."""

    def fill(self, piece: Any, value: Any) -> None:
        """Use one value for all pixels of a part: its tile is sparse."""


@dataclass(slots=True, eq=False)
class TileUse:
    """One tile and everyone who wants a piece of it."""

    start: int
    stop: int
    source: SourceRead
    users: list[tuple[Wanted, Part]] = field(default_factory=list)


def tile_uses(
    loads: Sequence[Wanted],
) -> tuple[dict[str, dict[tuple[int, int], TileUse]], list[tuple[Wanted, Any]]]:
    """Group what is wanted by URL and tile, so that no tile is fetched or decoded twice; and list what lies in sparse tiles."""
    by_url: dict[str, dict[tuple[int, int], TileUse]] = defaultdict(dict)
    sparse: list[tuple[Wanted, Any]] = []
    for load in loads:
        source = load.source
        for piece in load.pieces:
            offset, count = source.tile(piece.row, piece.col)
            if count == 0:
                sparse.append((load, piece))
                continue
            uses = by_url[source.url]
            use = uses.get((offset, count))
            if use is None:
                use = uses[(offset, count)] = TileUse(offset, offset + count, source)
            use.users.append((load, piece))
    return by_url, sparse


def requests_for(
    by_url: dict[str, dict[tuple[int, int], TileUse]], *, whole: bool = False
) -> tuple[list[RangeRequest], list[list[TileUse]]]:
    """Return the requests to make, and for each the tiles it answers.

    Of the last tile of a request only so much is asked for as the rows that are wanted should need, unless `whole`.
    """
    requests: list[RangeRequest] = []
    answers: list[list[TileUse]] = []
    every = [use for tiles in by_url.values() for use in tiles.values()]
    starts = np.array([use.start for use in every], dtype=np.int64)
    stops = np.array([use.stop for use in every], dtype=np.int64)
    ends = stops if whole else _ends(every, starts, stops)
    first = 0
    for url, tiles in by_url.items():
        last = first + len(tiles)
        uses, own = every[first:last], slice(first, last)
        for merged in coalesce(starts[own], stops[own], ends[own]):
            requests.append(RangeRequest(url, merged.start, merged.stop, uses[0].source.etag))
            answers.append([uses[k] for k in merged.members])
        first = last
    return requests, answers


def _ends(uses: Sequence[TileUse], starts: Ints, stops: Ints) -> Ints:
    """Where the bytes end that should hold the rows which are wanted of each tile."""
    ends = stops.copy()
    alike: dict[int, list[int]] = defaultdict(list)  # few layouts for many tiles
    for number, use in enumerate(uses):
        alike[id(use.source.layout)].append(number)
    for members in alike.values():
        layout = uses[members[0]].source.layout
        rows, held = np.array(
            [
                (
                    max(piece.rows[1] for _, piece in uses[k].users),
                    uses[k].source.height - uses[k].users[0][1].row * layout.height,
                )
                for k in members
            ],
            dtype=np.int64,
        ).T
        counts = stops[members] - starts[members]
        held = np.minimum(held, layout.height)
        ends[members] = starts[members] + enough(counts, rows, held, layout)
    return ends
