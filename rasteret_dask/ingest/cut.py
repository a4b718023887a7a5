"""How the items of a build are cut into slices: by time, then by space.

The same records give the same slices, however many workers there are.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rasteret_dask.index import schema
from rasteret_dask.ingest.cells import Cell
from rasteret_dask.ingest.parts import ROWS_PER_GROUP
from rasteret_dask.ingest.records import Links, Record
from rasteret_dask.ingest.slices import Slice
from rasteret_dask.model import BandInfo

LEAST_ROWS: Final = 128
SLICE_ROWS: Final = 512
"""Rows of a slice: each part costs its readers some milliseconds, and a broken slice its builder
all its headers."""
MOST_ROWS: Final = 2048
MOST_ASSETS: Final = 8192

_CELL_DEGREES: Final = 0.5


def slice_rows(count: int, bands: int) -> int:
    """Rows of each slice of a build: enough slices for a few workers, until parts would be small;
    larger parts where there would be thousands."""
    rows = max(LEAST_ROWS, min(SLICE_ROWS, -(-count // 8)), min(MOST_ROWS, count // 128))
    return max(1, min(rows, MOST_ASSETS // max(1, bands)))


def cut(
    records: Sequence[Record],
    bands: Sequence[BandInfo],
    document: Any,
    first: int = 0,
    total: int = 0,
) -> list[Slice]:
    """Cut sorted records into slices.

    Where there are many, time is cut more coarsely and each piece of it by place, so that a query
    of either passes most parts over; the row groups of a part are cut by place again. Rows within a group, and within a slice that
    holds all of its time, stay in the order (datetime, id).

    Parameters
    ----------
    records : sequence of Record
        In the order (datetime, id).
    bands : sequence of BandInfo
    document : mapping
        The JSON document of the schema.
    first : int
        Position of the first slice.
    total : int
        Records of the whole build, when these are not all.
    """
    size = slice_rows(max(total, len(records)), len(bands))
    groups = _groups(records, size)
    return [
        Slice(content_key(number, chosen, document), tuple(chosen))
        for number, chosen in enumerate(groups, first)
    ]


def content_key(number: int, records: Sequence[Record], document: Any) -> str:
    """Key of a slice whose records are known."""
    key = hashlib.sha256(_common(document))
    for record in records:
        key.update(json.dumps(_plain(record), sort_keys=True, default=_text).encode())
    return f"{number:06d}-{key.hexdigest()[:12]}"


def cell_slices(cells: Sequence[Cell], document: Any, links: Links) -> list[Slice]:
    """Slices that search for their items."""
    common = _common([document, links.describe()])
    out = []
    for number, cell in enumerate(cells):
        key = hashlib.sha256(common + json.dumps(cell.describe(), sort_keys=True).encode())
        out.append(Slice(f"{number:06d}-{key.hexdigest()[:12]}", cell=cell))
    return out


def _common(document: Any) -> bytes:
    return json.dumps([document, schema.VERSION], sort_keys=True, default=str).encode()


def _groups(records: Sequence[Record], size: int) -> list[Sequence[Record]]:
    slices = -(-len(records) // size)
    places = [_place(record) for record in records]
    # As many cuts of space as of time, if there are so many places.
    across = max(1, min(math.isqrt(slices), len(set(places))))
    together = size * across
    groups: list[Sequence[Record]] = []
    for start in range(0, len(records), together):
        numbers = list(range(start, min(start + together, len(records))))
        numbers.sort(key=places.__getitem__)  # stable: equal places stay in time's order
        for at in range(0, len(numbers), size):
            groups.append([records[k] for k in _row_order(numbers[at : at + size], across)])
    return groups


def _row_order(numbers: list[int], across: int) -> list[int]:
    """Numbers, which are sorted by place, in the order of a part's rows: by time, but row group after row group where space is cut."""
    size = ROWS_PER_GROUP if across > 1 else len(numbers)
    return [k for at in range(0, len(numbers), size) for k in sorted(numbers[at : at + size])]


def _place(record: Record) -> int:
    """Where along a Z-shaped curve over the globe the middle of a footprint lies, in half
    degrees."""
    box: Mapping[str, float] | None = record.columns.get(schema.BBOX)
    if box is None:
        return 0
    # A box over the antimeridian has its west above its east.
    span = (box["xmax"] - box["xmin"]) % 360
    x = int(((box["xmin"] + span / 2 + 180) % 360) / _CELL_DEGREES)
    y = int(((box["ymin"] + box["ymax"]) / 2 + 90) / _CELL_DEGREES)
    return sum(((x >> k & 1) << 2 * k) | ((y >> k & 1) << 2 * k + 1) for k in range(10))


def _plain(record: Record) -> list[Any]:
    refs = [[r.band, r.index, r.key, r.url, r.claims, r.said] for r in record.assets]
    return [record.id, record.columns, record.crs, refs]


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
