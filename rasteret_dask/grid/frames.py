"""Frames of points whose rows are not there yet: what can be told of them by their columns."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.coordinates import plain_crs, resolve_crs
from rasteret_dask.grid.given import coordinate_columns, pick_column


def check_frame(
    empty: Any,
    *,
    geometry_column: str | None = None,
    x_column: str | None = None,
    y_column: str | None = None,
    crs: Any = None,
) -> str | None:
    """Return the column of the geometries, None where there is none by itself.

    A frame whose columns cannot be points is refused, as `understand_points` would once it has rows.

    Parameters
    ----------
    empty : pandas or GeoPandas frame
        Without rows.
    geometry_column, x_column, y_column, crs : optional
        As in `understand_points`.

    Returns
    -------
    str or None

    Raises
    ------
    ArgumentError
        If a column is missing, or nothing says in which CRS the points are.
    """
    if (x_column is None) != (y_column is None):
        raise ArgumentError("x_column and y_column go together")
    if hasattr(empty, "geometry") and hasattr(empty, "crs"):
        said = None if empty.crs is None else plain_crs(empty.crs)
        resolve_crs(said, crs, tabular=True)
        return None
    table = pa.table({str(name): pa.nulls(0) for name in empty.columns})
    pair = None if geometry_column is not None else coordinate_columns(table, x_column, y_column)
    picked = pick_column(table.column_names, geometry_column) if pair is None else None
    resolve_crs(None if pair is None else pair[2], crs, tabular=True)
    return picked
