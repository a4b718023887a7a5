"""Items to time steps: by time, solar day, columns, periods, or a function of the rows."""

from __future__ import annotations

import re
import warnings
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import shapely

from rasteret_dask.errors import ArgumentError, RasteretWarning
from rasteret_dask.index import schema
from rasteret_dask.plan.steps import TimeSteps, group, solar_days, split_acquisitions

PLATFORM: Final = "platform"
"""The column that names what took an item."""

_OPTICAL: Final = re.compile(r"(sentinel[-_ ]?[23]|landsat)", re.IGNORECASE)
"""Of those that may name an orbit, and are no radar's."""


def column_of(table: pa.Table, name: str) -> list[Any]:
    """Return a column's values, or None for each row where there is no such column."""
    return table.column(name).to_pylist() if name in table.column_names else [None] * len(table)


def item_times(table: pa.Table) -> npt.NDArray[np.datetime64]:
    """Return when each item was taken; interval items count from their start.

    Raises
    ------
    ArgumentError
        If an item has no time at all.
    """
    times: npt.NDArray[np.datetime64]
    times = table.column(schema.DATETIME).to_numpy(zero_copy_only=False).astype("datetime64[ns]")
    if np.isnat(times).any() and schema.START in table.column_names:
        starts = table.column(schema.START).to_numpy(zero_copy_only=False).astype("datetime64[ns]")
        times = np.where(np.isnat(times), starts, times)
    if np.isnat(times).any():
        item = table.column(schema.ID)[int(np.flatnonzero(np.isnat(times))[0])].as_py()
        raise ArgumentError("an item has neither a datetime nor an interval", item=item)
    return times


def make_steps(table: pa.Table, groupby: Any) -> TimeSteps:
    """Group the items of a table, which is sorted by time and id, into time steps.

    Raises
    ------
    ArgumentError
        If ``groupby`` is neither known nor a column.
    """
    times = item_times(table)
    if groupby is together:
        return group(times, [0] * len(table))
    keys = _keys(table, times, groupby)
    # Ascending and descending passes of a SAR never mix.
    keys = [key if orbit is None else (key, *orbit) for key, orbit in zip(keys, _orbits(table))]
    return group(times, keys)


def together(rows: pa.Table) -> list[int]:
    """All items into one step, whenever and in whatever orbit they were taken: for ``groupby=``."""
    return [0] * rows.num_rows


def _orbits(table: pa.Table) -> list[tuple[Any, Any] | None]:
    """Return orbit state and number of each item that may be a SAR's.

    Optical items name their orbits too (Planetary Computer's Sentinel-2); they are known by a cloud cover, which no radar image has, or by
    what took them.
    """
    if not any(column_of(table, schema.ORBIT_STATE)):
        return [None] * len(table)
    told = (schema.ORBIT_STATE, schema.RELATIVE_ORBIT, schema.CLOUD_COVER)
    named = (PLATFORM, schema.COLLECTION)
    found: list[tuple[Any, Any] | None] = []
    for state, number, clouds, *names in zip(*(column_of(table, n) for n in (*told, *named))):
        optical = clouds is not None or any(_OPTICAL.match(str(name or "")) for name in names)
        found.append(None if state is None or optical else (state, number))
    return found


def warn_of_torn(table: pa.Table, steps: TimeSteps, groupby: Any) -> None:
    """Warn when steps by time take apart what was taken at once, which is hardly meant."""
    if groupby != "time":
        return
    if torn := split_acquisitions(steps, _acquisitions(table)):
        warnings.warn(
            f"{torn} datatakes or solar days are spread over several time steps, because the times of their items differ; "
            "groupby='solar_day' joins them",
            RasteretWarning,
            stacklevel=6,
        )


def _acquisitions(table: pa.Table) -> list[Any]:
    """Return what was taken at once, as far as it is known: a datatake, else a solar day of a collection and an orbit."""
    takes = column_of(table, schema.DATATAKE)
    boxes = column_of(table, schema.BBOX)
    if all(take is not None for take in takes) or not all(
        b and b["xmin"] is not None for b in boxes
    ):
        return takes
    days = _solar_days(table, item_times(table)).tolist()
    rest = zip(days, *(column_of(table, name) for name in (schema.COLLECTION, schema.ORBIT_STATE)))
    return [day if take is None else take for take, day in zip(takes, rest)]


def _solar_days(table: pa.Table, times: npt.NDArray[np.datetime64]) -> npt.NDArray[np.int64]:
    boxes = table.column(schema.BBOX).to_pylist()
    if any(b is None or b["xmin"] is None for b in boxes):
        raise ArgumentError("groupby='solar_day' needs the footprint of every item")
    west = np.array([b["xmin"] for b in boxes])
    east = np.array([b["xmax"] for b in boxes])
    # A footprint over the antimeridian has its west above its east.
    middle = np.where(west <= east, (west + east) / 2, ((west + east + 360) / 2 + 180) % 360 - 180)
    return solar_days(times, _centroids(table, middle))


def _centroids(table: pa.Table, middle: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the longitude of each footprint's centroid; the middle of its box where there is no geometry, or one cut at 180 degrees."""
    if schema.GEOMETRY not in table.column_names:
        return middle
    found = shapely.from_wkb(column_of(table, schema.GEOMETRY), on_invalid="ignore")
    west, _, east, _ = shapely.bounds(found).T
    x = shapely.get_x(shapely.centroid(found))
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(x) & (east - west < 180.0), x, middle)


def _keys(table: pa.Table, times: npt.NDArray[np.datetime64], groupby: Any) -> list[Any]:
    """Return a key for each item: items of one key are one step."""
    if callable(groupby):
        keys = list(groupby(table))
        if len(keys) != len(table):
            raise ArgumentError(f"groupby gave {len(keys)} keys for {len(table)} items")
        return [_hashable(key) for key in keys]
    if isinstance(groupby, (list, tuple)) and groupby:
        return list(zip(*(_keys(table, times, name) for name in groupby)))
    if not isinstance(groupby, str):
        raise _unknown(groupby)
    found: list[Any]
    if groupby == "time":
        found = times.astype(np.int64).tolist()
    elif groupby == "solar_day":
        found = _solar_days(table, times).tolist()
    elif groupby in ("id", *table.column_names):
        found = [_hashable(k) for k in column_of(table, schema.ID if groupby == "id" else groupby)]
    elif groupby[:1].isdigit():
        found = _periods(times, groupby)
    else:
        raise _unknown(groupby)
    return found


def _hashable(key: Any) -> Any:
    if isinstance(key, dict):
        return tuple((name, _hashable(value)) for name, value in key.items())
    if isinstance(key, list | np.ndarray):
        return tuple(_hashable(one) for one in key)
    return key


def _periods(times: npt.NDArray[np.datetime64], groupby: str) -> list[Any]:
    # A grouper sorts by time, and numbers what it has sorted.
    order = np.argsort(times, kind="stable")
    rows = pd.Series(0, index=pd.DatetimeIndex(times[order]))
    found = np.empty(len(times), dtype=np.int64)
    try:
        # By number: a bin's label is its end for weeks and for the ends of months.
        found[order] = rows.groupby(pd.Grouper(freq=groupby)).ngroup().to_numpy()
    except (ValueError, ZeroDivisionError) as error:
        raise ArgumentError(f"groupby={groupby!r} is no period: {error}") from None
    return list(found.tolist())


def _unknown(groupby: Any) -> ArgumentError:
    return ArgumentError(
        f"groupby={groupby!r} is unknown",
        hint="use 'time', 'solar_day', 'id', the name of a column, a period like '1MS', or a function of the rows",
    )
