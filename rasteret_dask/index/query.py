"""Filters → Arrow expressions, written so that Parquet's row-group statistics can answer most of
them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial, reduce
from operator import and_, or_
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.geobox import Bounds
from rasteret_dask.index import columns, schema
from rasteret_dask.index.geometries import check_bbox, split_bbox
from rasteret_dask.index.times import Range, parse_range

Expression: TypeAlias = pc.Expression
Floats: TypeAlias = npt.NDArray[np.float64]

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "_lt": lambda field, value: field < value,
    "_le": lambda field, value: field <= value,
    "_gt": lambda field, value: field > value,
    "_ge": lambda field, value: field >= value,
    "_ne": lambda field, value: field != value,
}
_MANY = (list, tuple, set, frozenset)


def every(expressions: Iterable[Expression | None]) -> Expression | None:
    """All of them; None when there are none."""
    given = [e for e in expressions if e is not None]
    return reduce(and_, given) if given else None


def bbox_expression(bbox: Any, table: pa.Schema | None = None) -> Expression:
    """Items whose box meets a lon/lat box; either may cross the antimeridian.

    Raises
    ------
    ArgumentError
        The box is none, or the table has no boxes.
    """
    if table is not None and schema.BBOX not in table.names:
        raise ArgumentError(
            "the table has no column 'bbox', so its items cannot be found by place",
            hint="give it one, or a column 'geometry' of WKB before as_collection",
        )
    asked = check_bbox(bbox)
    xmin, ymin, xmax, ymax = (pc.field(schema.BBOX, n) for n in ("xmin", "ymin", "xmax", "ymax"))
    # A stored box that crosses has xmin > xmax. The two comparisons with 0 follow from that for any
    # box narrower than half the globe, and unlike it they can be answered from statistics.
    crosses = (xmin > xmax) & (xmin > 0) & (xmax < 0)
    lon = [
        ((xmin <= east) & (xmax >= west))
        | (crosses & ((xmin <= east) | (xmax >= west)))
        # Tables of others, and older ones of ours, have boxes that go on beyond 180 degrees.
        | ((xmax > 180) & (xmin <= east + 360) & (xmax >= west + 360))
        | ((xmin < -180) & (xmin <= east - 360) & (xmax >= west - 360))
        for west, _, east, _ in (*split_bbox(asked), *_other_side(asked))
    ]
    _, south, _, north = asked
    return (ymin <= north) & (ymax >= south) & reduce(or_, lon)


def _other_side(asked: Bounds) -> list[Bounds]:
    """The meridian 180 is -180 as well, where other files begin."""
    west, south, _, north = asked
    return [(-180.0, south, -180.0, north)] if west == 180.0 else []


def meeting(
    stored: Sequence[float], west: Floats, south: Floats, east: Floats, north: Floats
) -> npt.NDArray[np.bool_]:
    """Which of many lon/lat boxes an item's box meets: by the rule of `bbox_expression`, which asks about one box of many items.

    Parameters
    ----------
    stored : sequence of float
        ``xmin, ymin, xmax, ymax`` of the item; NaN where it does not say, so that it may lie anywhere.
    west, south, east, north : ndarray of float64, shape (n,)
        As `check_bbox` gives them; west > east crosses the antimeridian.
    """
    xmin, ymin, xmax, ymax = stored
    if any(map(math.isnan, stored)):
        return np.ones(len(west), dtype=bool)
    over = west > east
    found = _beside(xmin, xmax, west, np.where(over, 180.0, east))
    if over.any():
        found |= over & _beside(xmin, xmax, np.full_like(west, -180.0), east)
    if (west == 180.0).any():
        start = np.full_like(west, -180.0)
        found |= (west == 180.0) & _beside(xmin, xmax, start, start)
    return found & (ymin <= north) & (ymax >= south)


def _beside(xmin: float, xmax: float, west: Floats, east: Floats) -> npt.NDArray[np.bool_]:
    """Where longitudes of boxes that do not cross the antimeridian meet those of an item."""
    if xmin > 0 > xmax:
        found = (xmin <= east) | (xmax >= west)
    else:
        found = (xmin <= east) & (xmax >= west)
    if xmax > 180:
        found |= (xmin <= east + 360) & (xmax >= west + 360)
    if xmin < -180:
        found |= (xmin <= east - 360) & (xmax >= west - 360)
    return found


def date_expression(value: Any, table: pa.Schema) -> Expression:
    """Items of a range of time; those that are intervals match when they overlap it.

    Parameters
    ----------
    value
        What `times.parse_range` takes.
    table : pyarrow.Schema
        Without interval columns the instant alone decides.
    """
    start, end = parse_range(value)
    instant = _within(schema.DATETIME, schema.DATETIME, (start, end), table)
    if not {schema.START, schema.END} <= set(table.names):
        return instant
    return instant | _within(schema.START, schema.END, (start, end), table)


def _within(first: str, last: str, span: Range, table: pa.Schema) -> Expression:
    start, end = span
    parts = []
    if end is not None:
        parts.append(pc.field(first) <= _moment(end, table.field(first).type))
    if start is not None:
        parts.append(pc.field(last) >= _moment(start, table.field(last).type))
    return every(parts) if parts else pc.field(first).is_valid()


def _moment(value: datetime, kind: pa.DataType) -> pa.Scalar:
    """A moment (naive, UTC) as a column has it: others' may have zones and other units."""
    if not pa.types.is_timestamp(kind):
        raise ArgumentError(f"a column of times is {kind}")
    zoned = value if kind.tz is None else value.replace(tzinfo=UTC)
    return pa.scalar(zoned, pa.timestamp("us", kind.tz)).cast(kind, safe=False)


def checked(expression: Any, table: pa.Schema) -> Expression:
    """An Arrow expression that the table can answer.

    Raises
    ------
    ArgumentError
        It is none, names a column that there is not, or compares what cannot be compared.
    """
    if not isinstance(expression, pc.Expression):
        raise ArgumentError(
            f"a condition is an Arrow expression, not a {type(expression).__name__}",
            hint="where(pyarrow.compute.field('eo:cloud_cover') < 10), or subset(eo_cloud_cover_lt=10)",
        )
    try:
        table.empty_table().filter(expression)
    except (pa.ArrowException, KeyError) as error:
        # Arrow's own message goes on with the whole schema.
        reason = str(error).partition(" in id:")[0].splitlines()[0][:200]
        raise ArgumentError(f"the condition cannot be asked of this table: {reason}") from None
    return expression


def cloud_expression(limit: float) -> Expression:
    """Items with less cloud cover, in percent; those that do not say are left out.

    Raises
    ------
    ArgumentError
        The limit is no percentage.
    """
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 <= limit <= 101:
        raise ArgumentError(f"cloud_cover_lt is {limit!r}; a number of percent is needed")
    return pc.field(schema.CLOUD_COVER) < float(limit)


def column_expressions(filters: Mapping[str, Any], table: pa.Schema) -> list[Expression]:
    """``column=value`` and ``column_lt/le/gt/ge/ne/in=value``.

    A colon in a column's name may be written as an underscore, so that it can be a keyword:
    ``sat_orbit_state="ascending"``.

    Raises
    ------
    ArgumentError
        There is no such column.
    """
    return [checked(_column(key, _number(value), table), table) for key, value in filters.items()]


def _number(value: Any) -> Any:
    """A whole number as Arrow takes it: those beyond int64 only as what they are."""
    if not isinstance(value, int) or -(2**63) <= value < 2**63:
        return value
    try:
        return pa.scalar(value, pa.uint64())
    except (OverflowError, pa.ArrowInvalid):
        raise ArgumentError(f"{value} fits into no column") from None


def _column(key: str, value: Any, table: pa.Schema) -> Expression:
    name = _find(key, table)
    if name is not None:
        if value is None:
            return pc.field(name).is_null()
        return _among(name, value) if isinstance(value, _MANY) else pc.field(name) == value
    for suffix, operator in _OPERATORS.items():
        name = _find(key.removesuffix(suffix), table) if key.endswith(suffix) else None
        if name is not None:
            expression: Expression = operator(pc.field(name), value)
            return expression
    name = _find(key.removesuffix("_in"), table) if key.endswith("_in") else None
    if name is not None:
        listed = getattr(value, "to_pylist", getattr(value, "tolist", lambda: value))()
        if not isinstance(listed, _MANY):
            raise ArgumentError(f"{key} is {value!r}; a list of values is needed")
        return _among(name, listed)
    plain = [f.name for f in table if not pa.types.is_nested(f.type)]
    raise ArgumentError(f"no column {key!r} to filter by", hint=f"columns: {', '.join(plain)}")


def _among(name: str, values: Iterable[Any]) -> Expression:
    """A column that holds one of some values; None among them is null."""
    known = {value for value in values if value is not None}
    try:
        found = pc.field(name).isin(pa.array(sorted(known)))
    except (TypeError, OverflowError, pa.ArrowException):
        raise ArgumentError(
            f"the values to look for in {name!r} are of several types, or of none that Arrow knows"
        ) from None
    return found | pc.field(name).is_null() if None in values else found


def _find(key: str, table: pa.Schema) -> str | None:
    if key in table.names:
        return key
    alike = [n for n in table.names if n.replace(":", "_").replace(".", "_") == key]
    return alike[0] if len(alike) == 1 else None


def geometry_bounds(geometries: list[BaseGeometry]) -> Bounds:
    """Lon/lat box around all of them."""
    west, south, east, north = (float(v) for v in shapely.total_bounds(geometries))
    return west, south, east, north


def _box(bounds: Mapping[str, float] | None) -> BaseGeometry | None:
    if bounds is None or any(v is None for v in bounds.values()):
        return None
    named = (bounds["xmin"], bounds["ymin"], bounds["xmax"], bounds["ymax"])
    return shapely.union_all([shapely.box(*part) for part in split_bbox(named)])


def intersecting(table: pa.Table, geometries: list[BaseGeometry]) -> np.ndarray[Any, Any]:
    """Which rows' footprints truly meet any of the geometries; a row without a footprint is judged by its box.

    Parameters
    ----------
    table : pyarrow.Table
        With the column ``geometry`` as WKB, or ``bbox``, or both.
    geometries : list of shapely geometries
        In lon/lat.

    Returns
    -------
    ndarray of bool, shape (rows,)
    """
    footprints = _footprints(table)
    tree = shapely.STRtree(_everywhere(geometries))
    hit = np.zeros(len(footprints), bool)
    bounds = shapely.bounds(footprints)
    # Footprints that go on beyond 180 degrees are looked for where the others are, too.
    for turn, rows in (
        (0.0, np.flatnonzero(~shapely.is_missing(footprints))),
        (-360.0, np.flatnonzero(bounds[:, 2] > 180.0)),
        (360.0, np.flatnonzero(bounds[:, 0] < -180.0)),
    ):
        moved = shapely.transform(footprints[rows], partial(np.add, [turn, 0.0]))
        found, _ = tree.query(moved, predicate="intersects")
        hit[rows[found]] = True
    return hit


def _footprints(table: pa.Table) -> np.ndarray[Any, Any]:
    """Footprints of rows; their boxes where there are none, or where a ring goes the wrong way round the world."""
    found = np.full(len(table), None, dtype=object)
    if schema.GEOMETRY in table.column_names:
        found = shapely.from_wkb(table.column(schema.GEOMETRY).to_numpy())
    if schema.BBOX not in table.column_names:
        return found
    boxes = columns.one_array(table.column(schema.BBOX))
    west, east = (columns.floats(boxes, name) for name in ("xmin", "xmax"))
    reach = shapely.bounds(found)
    # Parts on both sides are as GeoJSON wants them; one that spans the world while its box crosses the antimeridian is torn.
    torn = (
        (reach[:, 2] - reach[:, 0] > 180.0)
        & (west > east)
        & (shapely.get_num_geometries(found) == 1)
    )
    silent = np.flatnonzero(shapely.is_missing(found) | torn)
    found[silent] = [_box(b) for b in boxes.take(pa.array(silent)).to_pylist()]
    return found


def _everywhere(geometries: list[BaseGeometry]) -> list[BaseGeometry]:
    """Geometries, and those that go on beyond 180 degrees a turn further, too."""
    out = list(geometries)
    for geometry in geometries:
        west, _, east, _ = geometry.bounds
        if east > 180.0:
            out.append(translate(geometry, -360.0))
        if west < -180.0:
            out.append(translate(geometry, 360.0))
    return out
