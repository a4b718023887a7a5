"""Fields of a struct column as NumPy arrays; a field that is not there gives its default, as in
tables of rasteret's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """All chunks of a column as one array."""
    if column.num_chunks == 1:
        return column.chunk(0)
    if column.num_chunks == 0:
        return pa.array([], column.type)
    return pa.concat_arrays(column.chunks)


def has(column: pa.StructArray, name: str) -> bool:
    """Whether the struct has such a field."""
    return bool(column.type.get_field_index(name) >= 0)


def _field(column: pa.StructArray, name: str) -> pa.Array:
    """A field; the kernel that heeds nulls of the struct itself takes ten times as long, and mostly there are none."""
    if column.null_count:
        return pc.struct_field(column, name)
    return column.field(column.type.get_field_index(name))


def _filled(values: pa.Array, default: Any) -> pa.Array:
    return pc.fill_null(values, default) if values.null_count else values


def ints(column: pa.StructArray, name: str, default: int = 0) -> Ints:
    """A field of whole numbers; nulls become the default."""
    if not has(column, name):
        return np.full(len(column), default, np.int64)
    values = _filled(_field(column, name), default).to_numpy(zero_copy_only=False)
    found: Ints = values.astype(np.int64, copy=False)
    return found


def floats(column: pa.StructArray, name: str) -> Floats:
    """A field of floats; nulls become NaN."""
    if not has(column, name):
        return np.full(len(column), np.nan)
    found: Floats = _field(column, name).to_numpy(zero_copy_only=False).astype(np.float64)
    return found


def texts(column: pa.StructArray, name: str) -> tuple[str | None, ...]:
    """A field of text; nulls become None."""
    if not has(column, name):
        return (None,) * len(column)
    return tuple(_field(column, name).to_pylist())


def flags(column: pa.StructArray, name: str, default: bool) -> npt.NDArray[np.bool_]:
    """A field of truth values; nulls become the default."""
    if not has(column, name):
        return np.full(len(column), default)
    values = _filled(_field(column, name), default)
    found: npt.NDArray[np.bool_] = values.to_numpy(zero_copy_only=False)
    return found


def objects(column: pa.StructArray, name: str, default: Any) -> npt.NDArray[np.object_]:
    """Short lists as tuples, or bytes; a column that is all null costs nothing."""
    out = np.empty(len(column), dtype=object)
    out[:] = [default] * len(column)
    if has(column, name):
        values = _field(column, name)
        if values.null_count < len(values):
            listed = values.to_pylist()
            out[:] = [
                default if v is None else tuple(v) if isinstance(v, list) else v for v in listed
            ]
    return out
