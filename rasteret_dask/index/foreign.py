"""Tables in memory that passed through other hands (DuckDB, Polars, pandas …), as a collection's rows are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from rasteret_dask.errors import DuplicateItemError
from rasteret_dask.index import schema
from rasteret_dask.index.geometries import stored_span


def as_rows(table: pa.Table) -> pa.Table:
    """Give a table what others may have changed or left out: naive times in UTC, and the boxes of its footprints.

    Raises
    ------
    DuplicateItemError
        Two rows have one id.
    """
    if schema.ID in table.column_names:
        _refuse_twice(table.column(schema.ID))
    for name in (schema.DATETIME, schema.START, schema.END):
        at = table.schema.get_field_index(name)
        kind = None if at < 0 else table.schema.field(at).type
        if kind is not None and pa.types.is_timestamp(kind) and kind != schema.TIMESTAMP:
            # Between zones the moment stays; without one it means UTC.
            moments = table.column(at).cast(pa.timestamp("us", kind.tz and "UTC"), safe=False)
            table = table.set_column(
                at, pa.field(name, schema.TIMESTAMP), moments.cast(schema.TIMESTAMP)
            )
    table = _typed(table)
    if schema.BBOX not in table.column_names and _holds_wkb(table):
        table = table.append_column(schema.BBOX, _boxes(table.column(schema.GEOMETRY)))
    return table


def _typed(table: pa.Table) -> pa.Table:
    """Give fields that were all null, or empty lists, their types again: pandas keeps none for those."""
    headers = {
        schema.band_column(band): schema.BAND_TYPE for band in schema.band_names(table.schema)
    }
    at = table.schema.get_field_index(schema.ASSETS)
    if at >= 0 and pa.types.is_struct(table.schema.field(at).type):
        inner = table.schema.field(at).type
        headers[schema.ASSETS] = pa.struct([(field.name, schema.ASSET_TYPE) for field in inner])
    for name, known in headers.items():
        at = table.schema.get_field_index(name)
        kind = _filled(table.schema.field(at).type, known)
        if kind != table.schema.field(at).type:
            table = table.set_column(at, pa.field(name, kind), table.column(at).cast(kind))
    return table


def _filled(kind: pa.DataType, known: pa.DataType) -> pa.DataType:
    """A type with what `known` says in the places of null."""
    if pa.types.is_null(kind):
        return known
    if pa.types.is_struct(kind) and pa.types.is_struct(known):
        names = {field.name: field.type for field in known}
        return pa.struct([(f.name, _filled(f.type, names.get(f.name, f.type))) for f in kind])
    if pa.types.is_list(kind) and pa.types.is_list(known):
        return pa.list_(_filled(kind.value_type, known.value_type))
    return kind


def _refuse_twice(ids: pa.ChunkedArray) -> None:
    if pc.count_distinct(ids, mode="all").as_py() == len(ids):
        return
    counts = ids.value_counts()
    twice = counts.filter(pc.greater(pc.struct_field(counts, "counts"), 1))
    raise DuplicateItemError(
        "two rows have the same id",
        item=str(twice[0]["values"].as_py()),
        hint="a join gives a row for each match: SELECT DISTINCT, or leave the other table's columns out",
    )


def _holds_wkb(table: pa.Table) -> bool:
    at = table.schema.get_field_index(schema.GEOMETRY)
    return at >= 0 and bool(pa.types.is_binary(table.schema.field(at).type))


def _boxes(column: pa.ChunkedArray) -> pa.Array:
    bounds = shapely.bounds(shapely.from_wkb(column.to_numpy()))
    west, east = bounds[:, 0], bounds[:, 2]
    for row in np.flatnonzero((west < -180.0) | (east > 180.0)):
        bounds[row, 0], bounds[row, 2] = stored_span(float(west[row]), float(east[row]))
    nothing = pa.array(np.isnan(bounds[:, 0]))
    corners = [pa.array(np.ascontiguousarray(bounds[:, k])) for k in range(4)]
    return pa.StructArray.from_arrays(corners, fields=list(schema.BBOX_TYPE), mask=nothing)
