"""Columns that a collection has beside ours: the table's, or the items', that it was built from.

They are flat values, or lists of them, so that every reader of Parquet can filter by them; what is nested stays in the JSON of
`properties`. The JSON document of a schema names them, with their types.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, Final

import pyarrow as pa

from rasteret_dask.errors import ArgumentError
from rasteret_dask.index.times import parse_instant

Columns = Mapping[str, pa.DataType]

_FLAT: Final = (
    pa.bool_(),
    pa.int64(),
    pa.uint64(),
    pa.float32(),
    pa.float64(),
    pa.string(),
    pa.binary(),
    pa.date32(),
    pa.timestamp("us"),
    pa.timestamp("us", "UTC"),
)
_TYPES: Final = {
    name: kind
    for flat in _FLAT
    for name, kind in ((str(flat), flat), (f"[{flat}]", pa.list_(flat)))
}
_NAMES: Final = {kind: name for name, kind in _TYPES.items()}


def kept_type(kind: pa.DataType) -> pa.DataType | None:
    """The type that a column of this type is kept in; None for what is nested, or nothing but null.

    Whole numbers become int64 (uint64 stays), decimals double, times microseconds, dictionaries what they spell.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return kept_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return kept_type(kind.value_type)
    if _is_list(kind):
        inner = kept_type(kind.value_type)
        return None if inner is None or _is_list(inner) else pa.list_(inner)
    if pa.types.is_integer(kind):
        return pa.uint64() if kind == pa.uint64() else pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64() if kind == pa.float64() else pa.float32()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC") if kind.tz else pa.timestamp("us")
    for test, flat in (
        (pa.types.is_boolean, pa.bool_()),
        (pa.types.is_decimal, pa.float64()),
        (pa.types.is_string, pa.string()),
        (pa.types.is_large_string, pa.string()),
        (pa.types.is_string_view, pa.string()),
        (pa.types.is_binary, pa.binary()),
        (pa.types.is_large_binary, pa.binary()),
        (pa.types.is_binary_view, pa.binary()),
        (pa.types.is_fixed_size_binary, pa.binary()),
        (pa.types.is_date, pa.date32()),
    ):
        if test(kind):
            return flat
    return None


def declare(columns: Columns) -> list[dict[str, str]]:
    """Columns as a JSON document has them."""
    return [{"name": name, "type": _NAMES[kind]} for name, kind in columns.items()]


def declared(document: Mapping[str, Any]) -> dict[str, pa.DataType]:
    """The columns that a JSON document names; none in those of version 1."""
    return {one["name"]: _TYPES[one["type"]] for one in document.get("columns", ())}


def fitting(value: Any, kind: pa.DataType) -> Any:
    """A value, perhaps as JSON has it, as its column wants it.

    Raises
    ------
    ArgumentError
        It is something else.
    """
    if value is None:
        return None
    if _is_list(kind):
        if isinstance(value, (list, tuple)):
            return [fitting(one, kind.value_type) for one in value]
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _moment(value, kind)
    elif pa.types.is_integer(kind):
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        low, high = (0, 2**64) if kind == pa.uint64() else (-(2**63), 2**63)
        if isinstance(whole, int) and not isinstance(whole, bool) and low <= whole < high:
            return whole
    elif pa.types.is_floating(kind):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, _PYTHON[kind]):
        return value
    raise ArgumentError(f"{str(value)[:60]!r} does not go into a column of {_NAMES[kind]}")


_PYTHON: Final = {pa.bool_(): bool, pa.string(): str, pa.binary(): bytes}


def _moment(value: Any, kind: pa.DataType) -> datetime | date:
    found = parse_instant(value)
    if pa.types.is_date(kind):
        return found.date()
    return found if kind.tz is None else found.replace(tzinfo=UTC)


def _is_list(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    )
