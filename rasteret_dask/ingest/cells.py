"""A search in pieces: each cell of time and space is searched by a worker.

Cells ask for a little more than they own (catalogues answer with everything that touches), so each
keeps the items that are its own: an item belongs to the cell of its moment, and to the first strip
of longitude that its footprint meets. Together the cells hold each item once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import shapely
from shapely.errors import ShapelyError
from shapely.geometry import shape

from rasteret_dask.errors import EmptySelectionError
from rasteret_dask.index.times import format_range, parse_instant
from rasteret_dask.ingest.stac import Json, Search, overview, search_api

CELL_ITEMS: Final = 512
"""Items of a cell, about."""
SPREAD_FROM: Final = 2048
"""Below so many items, one search by the client is quicker."""

_NOT_SPREAD: Final = ("ids", "max_items", "sortby")
"""Options that speak of the result as a whole."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One piece of a search.

    Parameters
    ----------
    api : str
        URL of the STAC API.
    search : Search
        What is asked for.
    first, last : datetime, optional
        Items from `first` on and before `last` are its own; None where it owns all before or after.
    strips : tuple of float
        Longitudes between the strips of space; none when space is not cut.
    strip : int
        Which of them is its own.
    """

    api: str
    search: Search
    first: datetime | None = None
    last: datetime | None = None
    strips: tuple[float, ...] = ()
    strip: int = 0

    def describe(self) -> dict[str, Any]:
        """As JSON: what the key of its slice is made of."""
        return {
            "api": self.api,
            **self.search.describe(),
            "own": [None if t is None else t.isoformat() for t in (self.first, self.last)],
            "strips": list(self.strips),
            "strip": self.strip,
        }

    def owns(self, item: Json) -> bool:
        """Whether an item that the search found is this cell's."""
        moment = _moment(item)
        if self.first is not None and moment < self.first:
            return False
        if self.last is not None and moment >= self.last:
            return False
        return not self.strips or _strip(item, self.strips) == self.strip


@dataclass(frozen=True, slots=True)
class Spread:
    """A search in pieces.

    Parameters
    ----------
    cells : tuple of Cell
    sample : tuple of mapping
        Some of the items, by which bands are found.
    matched : int
        Items in all, as the API says.
    """

    cells: tuple[Cell, ...]
    sample: tuple[Json, ...]
    matched: int


def search_cell(cell: Cell) -> list[Json]:
    """The items of a cell.

    Raises
    ------
    EmptySelectionError
        There are none.
    SourceError
        The API failed.
    """
    found = [item for item in search_api(cell.api, cell.search) if cell.owns(item)]
    if not found:
        raise EmptySelectionError("the search found no item")
    return found


def spread(api: str, search: Search, *, least: int = SPREAD_FROM) -> Spread | None:
    """Cut a large search into cells; None when one search does as well, or must do.

    The number of cells is a power of two, so that a catalogue may grow between two runs of a build
    without all of them changing.

    Raises
    ------
    SourceError
        The API failed.
    """
    if any(name in (search.options or {}) for name in _NOT_SPREAD):
        return None
    seen = overview(api, search, least)
    if seen is None or seen.first is None:
        return None
    count = 2 ** math.ceil(math.log2(max(1, seen.matched / CELL_ITEMS)))
    last = seen.last or datetime(datetime.now(UTC).year + 1, 1, 1)
    return Spread(cut_search(api, search, (seen.first, last), count), seen.sample, seen.matched)


def cut_search(
    api: str, search: Search, span: tuple[datetime, datetime], count: int
) -> tuple[Cell, ...]:
    """Cells of a search over a span of time: cut by time, down to days, then by longitude.

    Parameters
    ----------
    count : int
        How many; a power of two.
    """
    start, end = span
    days = max(1, (end - start).days)
    times = min(count, 2 ** int(math.log2(days)))
    lower, upper = search.date_range or (None, None)
    edges = [start + (end - start) * k / times for k in range(1, times)]
    bounds = [*zip([None, *edges], [*edges, None], strict=True)]
    cells = []
    for first, last in bounds:
        asked = (lower if first is None else first, upper if last is None else last)
        dates = None if asked == (None, None) else asked
        whole = Cell(api, replace(search, date_range=dates), first, last)
        cells += _strips(whole, count // times)
    return tuple(cells)


def _strips(cell: Cell, count: int) -> list[Cell]:
    box = cell.search.bbox
    if count < 2 or box is None or box[0] >= box[2]:
        return [cell]
    west, south, east, north = box
    edges = [west + (east - west) * k / count for k in range(1, count)]
    asked = [
        replace(cell.search, bbox=(left, south, right, north))
        for left, right in zip([west, *edges], [*edges, east], strict=True)
    ]
    return [
        replace(cell, search=one, strips=(west, *edges, east, south, north), strip=k)
        for k, one in enumerate(asked)
    ]


def _moment(item: Json) -> datetime:
    properties = item.get("properties") or {}
    return parse_instant(properties.get("datetime") or properties.get("start_datetime"))


def _strip(item: Json, strips: Sequence[float]) -> int:
    """The first strip that a footprint meets, as the catalogue sees it."""
    *edges, south, north = strips
    try:
        footprint = shape(dict(item["geometry"]))
    except (AttributeError, KeyError, TypeError, ValueError, ShapelyError):
        box = item.get("bbox") or (edges[0], south, edges[0], south)
        half = len(box) // 2
        footprint = shapely.box(box[0], box[1], box[half], box[half + 1])
    count = len(edges) - 1
    for k in range(count - 1):
        if footprint.intersects(shapely.box(edges[k], south, edges[k + 1], north)):
            return k
    return count - 1


def told(spread: Spread, found: int) -> list[str]:
    """A warning when the cells do not hold what the API promised."""
    if found == spread.matched:
        return []
    search = format_range(spread.cells[0].search.date_range or (None, None)).partition("/")[0]
    return [
        f"the API counts {spread.matched} items and its answers held {found} (from {search} on): "
        "it counts roughly, or changed meanwhile"
    ]
