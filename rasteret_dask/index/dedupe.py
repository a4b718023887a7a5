"""One acquisition, processed more than once: which of its items to keep."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from rasteret_dask.index import schema

WRS_PATH, WRS_ROW = "landsat:wrs_path", "landsat:wrs_row"
COLUMNS = (
    schema.ID,
    schema.COLLECTION,
    schema.DATETIME,
    schema.DATATAKE,
    schema.GRID_CODE,
    "s2:mgrs_tile",
    "platform",
    WRS_PATH,
    WRS_ROW,
    schema.BASELINE,
    schema.GENERATION_TIME,
    "updated",
    "created",
)
"""What tells acquisitions apart, and versions of one; a table may lack some."""

_LANDSAT = re.compile(r"L[A-Z]0?\d_L\dS[PR]_(\d{6})_(\d{8})_(\d{8})")
_LEVEL = re.compile(r"(?:^|[_.-]|MSI)L([12])[A-Z]{0,3}(?=$|[_.-])", re.IGNORECASE)


def superseded(table: pa.Table) -> list[str]:
    """Ids of the items that a newer version of the same acquisition replaces.

    An acquisition of Sentinel-2 is a datatake and a tile; of Landsat a platform, path, row and day; each of one level (L1C, L2A).
    The newest has the highest processing baseline, then the latest time of generation (else of update or creation), then the highest id.
    Items that say neither stay.

    Parameters
    ----------
    table : pyarrow.Table
        With the columns of `COLUMNS` that there are.
    """
    columns = {name: _column(table, name) for name in COLUMNS}
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row in range(len(table)):
        key = acquisition({name: values[row] for name, values in columns.items()})
        if key is not None:
            groups.setdefault(key, []).append(row)
    out = []
    for rows in groups.values():
        if len(rows) > 1:
            best = max(rows, key=lambda r: _version({n: v[r] for n, v in columns.items()}))
            out += [columns[schema.ID][r] for r in rows if r != best]
    return sorted(out)


def _column(table: pa.Table, name: str) -> list[Any]:
    return table.column(name).to_pylist() if name in table.column_names else [None] * len(table)


def acquisition(row: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """What versions of one acquisition have in common; None for an item that does not say.

    Parameters
    ----------
    row : mapping
        Of `COLUMNS`, as far as there are any.
    """
    datatake, tile = row.get(schema.DATATAKE), row.get(schema.GRID_CODE) or row.get("s2:mgrs_tile")
    if datatake and tile:
        # The datatake's own name ends with the baseline that processed it.
        return "sentinel-2", _level(row), str(datatake).rpartition("_N")[0], tile
    moment = row.get(schema.DATETIME)
    if row.get(WRS_PATH) and row.get(WRS_ROW) and moment is not None:
        place = (row[WRS_PATH], row[WRS_ROW])
        return "landsat", _level(row), row.get("platform"), *place, moment.date()
    return None


def _level(row: Mapping[str, Any]) -> str | None:
    """The level that an item was processed to, by its id, else by its collection: radiances are no version of reflectances."""
    for name in (schema.ID, schema.COLLECTION):
        found = _LEVEL.search(str(row.get(name) or ""))
        if found is not None:
            return found[1]
    return None


def _version(row: dict[str, Any]) -> tuple[Any, ...]:
    baseline = [int(n) for n in re.findall(r"\d+", str(row[schema.BASELINE] or ""))]
    made = row[schema.GENERATION_TIME] or row["updated"] or row["created"] or ""
    processed = _LANDSAT.match(row[schema.ID])
    return baseline, processed.group(3) if processed else "", str(made), row[schema.ID]
