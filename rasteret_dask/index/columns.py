"""Fields of a struct column as NumPy arrays; a field that is not there gives its default, as in
tables of rasteret's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_dask.errors import CollectionError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """All chunks of a column as one array."""
    if column.num_chunks == 1:
        return column.chunk(0)
    if column.num_chunks == 0:
        return pa.array([], column.type)
    return pa.concat_arrays(column.chunks)


def asset_of(assets: pa.StructArray, keys: Sequence[str | None]) -> pa.StructArray | None:
    """The asset of each row, under the first of some keys under which it has one; None where the column knows no such key.

    Raises
    ------
    CollectionError
        Assets under two keys have types that do not go together.
    """
    found: pa.StructArray | None = None
    for key in dict.fromkeys(keys):
        if key is None or not has(assets, key):
            continue
        more = pc.struct_field(assets, key)
        if found is None:
            found = more
        elif found.null_count:
            kind = common_type(found.type, more.type, key)
            found = pc.if_else(found.is_valid(), fitted(found, kind), fitted(more, kind))
    return found


def common_type(a: pa.DataType, b: pa.DataType, name: str) -> pa.DataType:
    """A type for values of both; structs have the fields of both.

    Raises
    ------
    CollectionError
        There is none.
    """
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        fields = {field.name: field.type for field in a}
        for field in b:
            known = fields.get(field.name)
            fields[field.name] = (
                field.type
                if known is None
                else common_type(known, field.type, f"{name}.{field.name}")
            )
        return pa.struct(list(fields.items()))
    if pa.types.is_list(a) and pa.types.is_list(b):
        return pa.list_(common_type(a.value_type, b.value_type, name))
    try:
        both = pa.unify_schemas(
            [pa.schema([("x", a)]), pa.schema([("x", b)])], promote_options="permissive"
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise CollectionError(
            f"the column {name!r} is {a} in one collection and {b} in another"
        ) from None
    return both.field("x").type


def fitted(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Give structs the fields that they lack; Arrow's own cast does not everywhere."""
    if array.type == kind:
        return array
    if pa.types.is_struct(kind) and pa.types.is_struct(array.type):
        children = []
        for field in kind:
            at = array.type.get_field_index(field.name)
            child = pa.nulls(len(array), field.type) if at < 0 else array.field(at)
            children.append(fitted(child, field.type))
        missing = pa.array(~np.asarray(array.is_valid().to_numpy(zero_copy_only=False)))
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=missing)
    return array.cast(kind)


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
