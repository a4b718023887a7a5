"""Geometries in all the forms that people hold them: shapely geometries, what CRS they say, and the columns that came along."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import shapely
from shapely.geometry.base import BaseGeometry

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.arrow import plain_table
from rasteret_dask.grid.coordinates import check_degrees, plain_crs, resolve_crs
from rasteret_dask.grid.features import feature_columns, named_crs
from rasteret_dask.grid.geobox import CRS84
from rasteret_dask.grid.single import checked, each, one, srid

_NAMES = ("geometry", "geom", "wkb_geometry", "wkb")
_PAIRS = (("x", "y", None), ("lon", "lat", CRS84), ("longitude", "latitude", CRS84))
_EXTENSION, _METADATA = b"ARROW:extension:name", b"ARROW:extension:metadata"


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Geometries, understood.

    Parameters
    ----------
    geometries : ndarray of shapely geometries, shape (n,)
    crs : str, optional
        What the data says; None when it says nothing.
    columns : pyarrow.Table, optional
        The other columns of a table, n rows.
    tabular : bool
        They came in a table, which ought to say its CRS.
    """

    geometries: npt.NDArray[np.object_]
    crs: str | None = None
    columns: pa.Table | None = None
    tabular: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Points, understood.

    Parameters
    ----------
    x, y : ndarray of float64, shape (n,)
    crs : str
    columns : pyarrow.Table, optional
        The other columns of a table, n rows.
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    crs: str
    columns: pa.Table | None = None

    def __len__(self) -> int:
        return len(self.x)


def understand(given: Any, column: str | None = None) -> Given:
    """Understand geometries.

    Parameters
    ----------
    given
        A shapely geometry, GeoJSON mapping, WKB or WKT; a GeoSeries, a GeoArrow or WKB array; a table (Arrow, Polars, DuckDB, pandas,
        GeoPandas); or a sequence of geometries.
    column : str, optional
        The column of a table that holds them.

    Raises
    ------
    ArgumentError
        If nothing can be made of it, or a geometry is missing, empty, or has coordinates that are not finite.
    """
    try:
        found = _understand(given, column)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ArgumentError(f"Arrow cannot take the table over: {error}") from None
    _check(found.geometries)
    said = None if found.crs is not None else srid(found.geometries)
    return found if said is None else replace(found, crs=plain_crs(said))


def understand_points(
    given: Any,
    *,
    geometry_column: str | None = None,
    x_column: str | None = None,
    y_column: str | None = None,
    crs: Any = None,
) -> Points:
    """Understand points: what `understand` takes, an array of shape (n, 2), or a table with columns of coordinates.

    Parameters
    ----------
    given
        What the caller has.
    geometry_column, x_column, y_column : str, optional
        Columns of a table.
    crs : optional
        What the coordinates are in, where the data does not say.

    Raises
    ------
    ArgumentError
        If something is no point, a coordinate is missing, or a table does not say its CRS and the caller neither.
    """
    if (x_column is None) != (y_column is None):
        raise ArgumentError("x_column and y_column go together")
    given = _pairs(given)
    try:
        table = _table(given)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ArgumentError(f"Arrow cannot take the table over: {error}") from None
    if isinstance(given, np.ndarray) and given.ndim == 2 and given.shape[1] == 2:
        x, y = (np.ascontiguousarray(given[:, k], dtype=np.float64) for k in (0, 1))
        return _points(x, y, None, resolve_crs(None, crs, tabular=False))
    if table is not None and geometry_column is None:
        pair = coordinate_columns(table, x_column, y_column)
        if pair is not None:
            x, y = (_numbers(table, name) for name in pair[:2])
            return _points(x, y, table, resolve_crs(pair[2], crs, tabular=True))
    elif x_column is not None:
        raise ArgumentError("x_column and y_column name columns of a table, and this is none")
    found = understand(given if table is None else table, geometry_column)
    wrong = np.flatnonzero(shapely.get_type_id(found.geometries) != 0)
    if len(wrong):
        kind = found.geometries[wrong[0]].geom_type
        raise ArgumentError(
            f"geometry {wrong[0]} is a {kind}, and only points can be sampled",
            hint="get_gdf, get_numpy and get_xarray read areas",
        )
    x, y = shapely.get_x(found.geometries), shapely.get_y(found.geometries)
    return _points(x, y, found.columns, resolve_crs(found.crs, crs, tabular=found.tabular))


def _pairs(given: Any) -> Any:
    """Return a list of (x, y) as an array; all else as it is."""
    if not isinstance(given, (list, tuple)) or not given:
        return given
    number = (int, float, np.number)
    pairs = all(
        isinstance(p, (list, tuple)) and len(p) == 2 and all(isinstance(v, number) for v in p)
        for p in given
    )
    return np.array(given, dtype=np.float64) if pairs else given


def _points(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], columns: pa.Table | None, crs: str
) -> Points:
    if not len(x):
        raise ArgumentError("no point was given")
    bad = np.flatnonzero(~(np.isfinite(x) & np.isfinite(y)))
    if len(bad):
        raise ArgumentError(f"point {bad[0]} has no finite coordinates ({x[bad[0]]}, {y[bad[0]]})")
    check_degrees((x.min(), y.min(), x.max(), y.max()), crs)
    return Points(x, y, crs, columns)


def _check(geometries: npt.NDArray[np.object_]) -> None:
    if not len(geometries):
        raise ArgumentError("no geometry was given")
    for what, bad in (
        ("missing", shapely.is_missing(geometries)),
        ("empty", shapely.is_empty(geometries)),
    ):
        if bad.any():
            raise ArgumentError(f"geometry {int(np.flatnonzero(bad)[0])} is {what}")
    # Bounds pass over NaN.
    coordinates, owners = shapely.get_coordinates(geometries, return_index=True)
    lost = owners[~np.isfinite(coordinates).all(axis=1)]
    if len(lost):
        raise ArgumentError(f"geometry {int(lost[0])} has coordinates that are not finite")


# --- kinds of containers -------------------------------------------------------------------------
def _understand(given: Any, column: str | None) -> Given:
    table = _table(given)
    if table is not None:
        return _from_table(table, column)
    if hasattr(given, "geometry") and hasattr(given, "crs") and hasattr(given, "to_numpy"):
        return _from_geopandas(given, column)
    if _is_frame(given):
        return _from_pandas(given, column)
    if column is not None:
        raise ArgumentError("geometry_column names a column of a table, and this is none")
    if isinstance(given, (pa.Array, pa.ChunkedArray)):
        chunks = given.chunks if isinstance(given, pa.ChunkedArray) else [given]
        return _from_arrow(pa.field("", given.type), pa.chunked_array(chunks, given.type))
    if hasattr(given, "__arrow_c_array__"):
        return _native(given)
    if hasattr(given, "__arrow_c_stream__"):
        stream = pa.chunked_array(given)
        return _from_arrow(pa.field("", stream.type), stream)
    listed = each(given)
    found = np.empty(len(listed), dtype=object)
    found[:] = listed
    said = named_crs(given)
    return Given(found, None if said is None else plain_crs(said), feature_columns(given))


def _table(given: Any) -> pa.Table | None:
    """Return what is a table to Arrow, as one; data frames of pandas are not, since they may hold shapely objects."""
    if isinstance(given, pa.Table):
        return given
    if isinstance(given, pa.RecordBatch):
        return pa.Table.from_batches([given])
    if isinstance(given, pa.RecordBatchReader):
        return given.read_all()
    if hasattr(given, "__arrow_c_stream__") and hasattr(given, "columns") and not _is_frame(given):
        return plain_table(pa.RecordBatchReader.from_stream(given).read_all())
    if _is_frame(given) and not hasattr(given, "crs"):
        if any(isinstance(value, BaseGeometry) for value in given.head(1).to_numpy().ravel()):
            return None
        return pa.Table.from_pandas(given, preserve_index=False)
    return None


def _is_frame(given: Any) -> bool:
    return hasattr(given, "iloc") and hasattr(given, "columns")


def _from_geopandas(given: Any, column: str | None) -> Given:
    series = given.geometry if column is None else given[column]
    columns = None
    if _is_frame(given):
        plain = [n for n in given.columns if str(given[n].dtype) != "geometry"]
        frame = given.drop(columns=[n for n in given.columns if n not in plain])
        columns = pa.Table.from_pandas(pd.DataFrame(frame), preserve_index=False)
    elif column is not None:
        raise ArgumentError("geometry_column names a column of a table, and this is a series")
    # A frame that says nothing of its CRS is a table that must be told.
    said = None if series.crs is None else plain_crs(series.crs)
    return Given(np.asarray(series, dtype=object), said, columns, tabular=columns is not None)


def _from_pandas(given: Any, column: str | None) -> Given:
    name = pick_column(list(map(str, given.columns)), column)
    rest = pa.Table.from_pandas(given.drop(columns=[name]), preserve_index=False)
    listed = [one(value, k) for k, value in enumerate(given[name])]
    found = np.empty(len(listed), dtype=object)
    found[:] = listed
    return Given(found, None, rest, tabular=True)


def _from_table(table: pa.Table, column: str | None) -> Given:
    geo = json.loads((table.schema.metadata or {}).get(b"geo", b"{}"))
    if column is None:
        tagged = [f.name for f in table.schema if _extension(f)]
        column = geo.get("primary_column") or (tagged[0] if tagged else None)
    name = pick_column(table.column_names, column)
    found = _from_arrow(table.schema.field(name), table.column(name))
    said = found.crs
    if said is None and name in geo.get("columns", {}):
        # A GeoParquet column without a CRS is in CRS84.
        said = plain_crs(geo["columns"][name].get("crs") or CRS84)
    return Given(found.geometries, said, table.drop_columns([name]), tabular=True)


def pick_column(names: list[str], column: str | None) -> str:
    """Return the column of geometries, as named or as it is usually called.

    Raises
    ------
    ArgumentError
        If there is none, or it cannot be told.
    """
    if column is not None and column not in names:
        raise ArgumentError(
            f"the table has no column {column!r}", hint=f"columns: {', '.join(names)}"
        )
    found = column or next((name for name in _NAMES if name in names), None)
    if found is None:
        raise ArgumentError(
            "which column holds the geometries?",
            hint=f"give geometry_column=; columns: {', '.join(names)}",
        )
    return found


def coordinate_columns(
    table: pa.Table, x_column: str | None, y_column: str | None
) -> tuple[str, str, str | None] | None:
    """Return the columns of coordinates, as named or as they are usually called when no column holds geometries."""
    if x_column is not None and y_column is not None:
        for name in (x_column, y_column):
            if name not in table.column_names:
                raise ArgumentError(
                    f"the table has no column {name!r}",
                    hint=f"columns: {', '.join(table.column_names)}",
                )
        return x_column, y_column, None
    names = table.column_names
    if any(name in names for name in _NAMES) or any(_extension(f) for f in table.schema):
        return None
    return next((pair for pair in _PAIRS if pair[0] in names and pair[1] in names), None)


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    column = table.column(name)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise ArgumentError(f"the column {name!r} holds {column.type}, no numbers")
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _extension(field: pa.Field) -> str:
    """Return the GeoArrow type of a field; empty when it is none."""
    name = getattr(field.type, "extension_name", None)
    if name is None and field.metadata:
        name = field.metadata.get(_EXTENSION, b"").decode()
    return name if name and (name.startswith("geoarrow.") or name == "ogc.wkb") else ""


def _from_arrow(field: pa.Field, column: pa.ChunkedArray) -> Given:
    extension = _extension(field)
    said = _extension_crs(field)
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        values = column.cast(kind).to_numpy() if kind != field.type else column.to_numpy()
        return Given(checked(lambda: shapely.from_wkb(values)), said)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        values = column.cast(kind).to_numpy() if kind != field.type else column.to_numpy()
        return Given(checked(lambda: shapely.from_wkt(values)), said)
    if extension:
        table = pa.table([column], schema=pa.schema([field.with_name("geometry")]))
        return Given(_native(table).geometries, said)
    raise ArgumentError(
        f"a column of {kind} holds no geometries", hint="WKB, WKT and GeoArrow are understood"
    )


def _native(given: Any) -> Given:
    """Return what geopandas makes of a GeoArrow array, or of a table of one column."""
    if isinstance(given, pa.Table):
        series = geopandas.GeoDataFrame.from_arrow(given).geometry
    else:
        series = geopandas.GeoSeries.from_arrow(given)
    said = None if series.crs is None else plain_crs(series.crs)
    return Given(np.asarray(series, dtype=object), said)


def _extension_crs(field: pa.Field) -> str | None:
    raw: bytes = (field.metadata or {}).get(_METADATA, b"")
    if isinstance(field.type, pa.BaseExtensionType) and hasattr(
        field.type, "__arrow_ext_serialize__"
    ):
        raw = field.type.__arrow_ext_serialize__()
    said = json.loads(raw or b"{}").get("crs")
    return None if said is None else plain_crs(said)
