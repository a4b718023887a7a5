"""Tables of items that have no headers yet, as STAC items: STAC GeoParquet, and any table with an id, a time and a link."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa
import shapely
from pyproj import Transformer

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.coordinates import check_degrees, plain_crs
from rasteret_dask.grid.geobox import CRS84
from rasteret_dask.grid.given import understand
from rasteret_dask.index import own, schema
from rasteret_dask.index.times import lacks_zone, parse_instant

ASSET: Final = "data"
"""What the one file of a row is called when a column links to it."""

_STAC = ("type", "stac_version", "stac_extensions", "links")
"""What a row of STAC GeoParquet says of itself."""
_OURS = frozenset((*(field.name for field in schema.item_fields()), schema.ASSETS))
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_CENTURIES = range(1800, 2201)


@dataclass(frozen=True, slots=True)
class TableSource:
    """How a table is to be understood.

    Parameters
    ----------
    column_map : mapping
        Its columns' names → ours: ``id``, ``datetime``, ``geometry``, ``bbox``, ``assets``, ``proj:epsg``; or other names.
    href_column : str, optional
        A column of links, when there is no ``assets``.
    columns : sequence of str, optional
        The columns to read.
    where : optional
        A pyarrow expression: the rows to read.
    timezone : str, optional
        What times without a zone mean; only ``UTC``.
    """

    column_map: Mapping[str, str] = field(default_factory=dict)
    href_column: str | None = None
    columns: Sequence[str] | None = None
    where: Any = None
    timezone: str | None = None


def check_names(asked: Sequence[str], names: Sequence[str]) -> None:
    """Refuse columns that a table lacks, or has twice.

    Raises
    ------
    ArgumentError
    """
    twice = next((name for name in asked if list(names).count(name) > 1), None)
    if twice is not None:
        raise ArgumentError(f"the table has more than one column {twice!r}", hint="rename them")
    for name in asked:
        if name not in names:
            raise ArgumentError(
                f"the table has no column {name!r}", hint=f"columns: {', '.join(names)}"
            )


def own_columns(table: pa.Schema, how: TableSource) -> dict[str, pa.DataType]:
    """The columns that a collection of this table has beside ours: all that are not ours by name, nor nested.

    The column of links is not among them: links may be signed.
    """
    aliases = {new: table.field(old).type for old, new in how.column_map.items()}
    kinds = {**aliases, **{field.name: field.type for field in table}}
    passed = {*_OURS, how.href_column, *(_STAC if "stac_version" in table.names else ())}
    found = {name: own.kept_type(kind) for name, kind in kinds.items() if name not in passed}
    places = _places(how)
    return {n: kind for n, kind in found.items() if kind is not None and n not in places}


def _places(how: TableSource) -> set[str]:
    """Columns of footprints and boxes, by all their names."""
    ours = {schema.GEOMETRY, schema.BBOX}
    return ours | {old for old, new in how.column_map.items() if new in ours}


def table_items(table: pa.Table, how: TableSource) -> list[dict[str, Any]]:
    """Rows as STAC items.

    Raises
    ------
    ArgumentError
        A column is missing, a time has no zone, a footprint is empty, or a row has no link.
    """
    check_names(
        [*how.column_map, *([how.href_column] if how.href_column else [])], table.column_names
    )
    for old, new in how.column_map.items():
        if old == new:
            continue
        if new in table.column_names:
            raise ArgumentError(
                f"column_map calls {old!r} {new!r}, and the table has a column of that name",
                hint="leave that out: columns=[…] names those to read",
            )
        table = table.append_column(new, table.column(old))
    needed = [schema.ID, *([] if how.href_column else [schema.ASSETS])]
    for name in needed:
        if name not in table.column_names:
            raise ArgumentError(
                f"the table has no column {name!r}",
                hint="name it with column_map={'theirs': 'ours'}"
                + (", or the column of links with href_column=" if name == schema.ASSETS else ""),
            )
    if not {schema.DATETIME, schema.START} & set(table.column_names):
        raise ArgumentError(
            "the table has no column 'datetime'",
            hint="name it with column_map={'theirs': 'datetime'}",
        )
    _check_zones(table, how)
    footprints = _footprints(table)
    rows = _plain_rows(table, how)
    boxes = table.column(schema.BBOX).to_pylist() if schema.BBOX in table.column_names else None
    return [
        _item(row, footprints[k], None if boxes is None else boxes[k], how)
        for k, row in enumerate(rows)
    ]


def _plain_rows(table: pa.Table, how: TableSource) -> list[dict[str, Any]]:
    """Rows without footprints, headers, and what cannot be written down."""
    more = own_columns(table.schema, how)
    dropped = _places(how)
    if "stac_version" in table.column_names:
        dropped |= set(_STAC)
    dropped |= {schema.band_column(name) for name in schema.band_names(table.schema)}
    kept = {}
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        column = table.column(name)
        if isinstance(kind, pa.BaseExtensionType):
            column = column.cast(kind.storage_type)
        bytes_of_others = name not in more and own.kept_type(kind) == pa.binary()
        if name not in dropped and not bytes_of_others:
            kept[name] = column
    found: list[dict[str, Any]] = pa.table(kept).to_pylist()
    return found


def _check_zones(table: pa.Table, how: TableSource) -> None:
    if how.timezone not in (None, "UTC"):
        raise ArgumentError(f"timezone={how.timezone!r}; only 'UTC' is understood")
    for name in (schema.DATETIME, schema.START, schema.END):
        if name not in table.column_names or how.timezone:
            continue
        kind = table.schema.field(name).type
        if pa.types.is_timestamp(kind) and kind.tz is None:
            raise ArgumentError(
                f"the times in {name!r} have no time zone",
                hint="timezone='UTC' says that they are in UTC",
            )


def _footprints(table: pa.Table) -> list[Any]:
    if schema.GEOMETRY not in table.column_names:
        return [None] * len(table)
    column = table.column(schema.GEOMETRY)
    present = np.asarray(column.is_valid().to_numpy(zero_copy_only=False))
    out: list[Any] = [None] * len(table)
    if not present.any():
        return out
    found = understand(table.filter(pa.array(present)), schema.GEOMETRY)
    geometries = found.geometries
    if found.crs not in (None, CRS84):
        there = Transformer.from_crs(plain_crs(found.crs), CRS84, always_xy=True)
        geometries = shapely.transform(
            geometries, lambda xy: np.column_stack(there.transform(xy[:, 0], xy[:, 1]))
        )
    try:
        check_degrees(shapely.total_bounds(geometries).tolist(), CRS84)
    except ArgumentError as error:
        raise ArgumentError(
            f"footprints: {error.message}",
            hint="GeoPandas, GeoArrow, and the metadata of GeoParquet say in which CRS they are",
        ) from None
    for row, geometry in zip(np.flatnonzero(present).tolist(), geometries):
        out[row] = geometry
    return out


def _item(row: dict[str, Any], footprint: Any, box: Any, how: TableSource) -> dict[str, Any]:
    name = row.pop(schema.ID)
    if name is None:
        raise ArgumentError("a row has no id")
    name = str(name)
    assets = _assets(row, name, how)
    properties = _json(row.pop(schema.PROPERTIES, None), schema.PROPERTIES, name)
    _check_row(row, name, how)
    properties |= {key: _plain(value) for key, value in row.items() if value is not None}
    properties |= _times(row)
    properties.pop(schema.COLLECTION, None)
    item: dict[str, Any] = {
        "type": "Feature",
        "id": name,
        "collection": row.get(schema.COLLECTION),
        "properties": properties,
        "assets": assets,
        "geometry": None if footprint is None else shapely.geometry.mapping(footprint),
    }
    bounds = _bounds(box, name)
    if bounds is not None:
        item["bbox"] = bounds
    return item


def _assets(row: dict[str, Any], name: str, how: TableSource) -> dict[str, Any]:
    given = row.pop(schema.ASSETS, None)
    if how.href_column is not None:
        href = row.pop(how.href_column)
        if not href:
            raise ArgumentError("a row has no link", item=name)
        given = {ASSET: {"href": href, "type": "image/tiff"}}
    assets = _json(given, schema.ASSETS, name)
    return {key: _plain(value) for key, value in assets.items() if value}


def _json(value: Any, column: str, item: str) -> dict[str, Any]:
    """A mapping that is written as a struct, a map, or JSON."""
    try:
        found = dict((json.loads(value) if isinstance(value, str) else value) or {})
    except (TypeError, ValueError):
        raise ArgumentError(
            f"the column {column!r} holds {str(value)[:60]!r}, and no mapping",
            item=item,
            hint=f"if it is something else, rename it: {column!r} is a column of STAC",
        ) from None
    return found


def _check_row(row: Mapping[str, Any], name: str, how: TableSource) -> None:
    """Refuse times without a zone, and a year or month that is not that of the time."""
    times = [row.get(column) for column in (schema.DATETIME, schema.START)]
    for value in (*times, row.get(schema.END)):
        if not how.timezone and lacks_zone(value):
            parse_instant(value)  # what is no time at all needs no zone
            raise ArgumentError(
                f"the time {value!r} has no time zone",
                item=name,
                hint="timezone='UTC' says that times are in UTC",
            )
    for column in (schema.YEAR, schema.MONTH):
        said = None if column in how.column_map else row.get(column)
        moment = next((value for value in times if value is not None), None)
        if said is None or moment is None or isinstance(moment, int):
            continue
        if said != getattr(parse_instant(moment), column):
            raise ArgumentError(
                f"the column {column!r} says {said!r}, and the item is of {moment}",
                item=name,
                hint=f"a collection's {column!r} is that of 'datetime'; column_map={{{column!r}: 'another_name'}} keeps yours",
            )


def _times(row: dict[str, Any]) -> dict[str, Any]:
    """A year as a number is that year; everything else is read as it stands."""
    value = row.get(schema.DATETIME)
    if isinstance(value, int) and value in _CENTURIES:
        return {
            schema.DATETIME: f"{value}-01-01T00:00:00Z",
            schema.START: f"{value}-01-01T00:00:00Z",
            schema.END: f"{value}-12-31T23:59:59.999999Z",
        }
    return {}


def _plain(value: Any) -> Any:
    """A value as JSON has it, without what Arrow's structs fill up with null."""
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, date):
        return f"{value.isoformat()}T00:00:00Z"
    return value


def _bounds(box: Any, item: str) -> list[float] | None:
    """A box as STAC has it; one that lacks a corner is none."""
    given = [box.get(name) for name in _CORNERS] if isinstance(box, Mapping) else box
    if given is None or (isinstance(given, (list, tuple)) and None in given):
        return None
    if isinstance(given, (list, tuple)) and len(given) in (4, 6):
        found = [float(v) for v in given]
        half = len(found) // 2
        check_degrees((found[0], found[1], found[half], found[half + 1]), CRS84)
        return found
    raise ArgumentError(
        f"{str(box)[:60]!r} is no bbox", item=item, hint="a list of 4 or 6 numbers, or a struct"
    )
