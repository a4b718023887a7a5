"""How the tiles of many sources are decoded, reduced to the distinct ways."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_dask.index import columns
from rasteret_dask.tiff.model import TileLayout

LAYOUT_INTS = {
    "samples_per_pixel": 1,
    "planar_configuration": 1,
    "bits_per_sample": 0,
    "compression": 1,
    "predictor": 1,
    "photometric": 1,
    "fill_order": 1,
}
"""Fields of a layout, and what a table of rasteret's, which lacks some, means by its silence; 0:
from the dtype."""


def layout_columns(column: pa.StructArray, chosen: pa.StructArray, other: bool) -> dict[str, Any]:
    """Fields of each source's layout as arrays: full resolution's, overridden by the level's
    own."""
    found: dict[str, Any] = {
        n: columns.ints(column, n, default) for n, default in LAYOUT_INTS.items()
    }
    dtypes = np.array(columns.texts(column, "dtype"), dtype=object)
    found["dtype"] = dtypes
    bits = found["bits_per_sample"]
    if not bits.all():  # rows of other libraries do not say it, and may stand beside ours
        whole = np.array([np.dtype(d).itemsize * 8 for d in dtypes], np.int64)
        found["bits_per_sample"] = np.where(bits == 0, whole, bits)
    found["little_endian"] = columns.flags(column, "little_endian", True)
    found["strips"] = columns.flags(column, "strips", False)
    found["subsampling"] = columns.objects(column, "subsampling", (1, 1))
    found["extra_samples"] = columns.objects(column, "extra_samples", ())
    found["codec_tables"] = columns.objects(column, "codec_tables", b"")
    if other:
        _override(found, chosen)
    return found


def _override(found: dict[str, Any], chosen: pa.StructArray) -> None:
    texts = pc.struct_field(chosen, "layout").dictionary_encode()
    codes = pc.fill_null(texts.indices, -1).to_numpy(zero_copy_only=False)
    for code, text in enumerate(texts.dictionary.to_pylist()):
        here = codes == code
        for key, value in _layout_values(json.loads(text)).items():
            column = found[key] = np.array(found[key])  # Arrow's own memory is read-only
            for row in np.flatnonzero(here):  # a tuple would be taken for a sequence of values
                column[row] = value


def _layout_values(changed: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(changed)
    for key in ("subsampling", "extra_samples"):
        if key in out:
            out[key] = tuple(out[key])
    if "codec_tables" in out:
        out["codec_tables"] = bytes.fromhex(out["codec_tables"])
    return out


def layouts(
    chosen: pa.StructArray, fields: Mapping[str, Any]
) -> tuple[columns.Ints, tuple[TileLayout, ...]]:
    """The distinct layouts, and which of them each source has."""
    stack = [
        columns.ints(chosen, "tile_width"),
        columns.ints(chosen, "tile_height"),
        *(fields[name] for name in LAYOUT_INTS),
        fields["little_endian"].astype(np.int64),
        fields["strips"].astype(np.int64),
        *(_codes(fields[n]) for n in ("dtype", "subsampling", "extra_samples", "codec_tables")),
    ]
    stacked = np.stack([np.asarray(c, np.int64) for c in stack], axis=1)
    _, first, ids = np.unique(stacked, axis=0, return_index=True, return_inverse=True)
    distinct = tuple(_layout(stack, fields, int(i)) for i in first)
    return ids.reshape(-1).astype(np.int64), distinct


def _codes(values: npt.NDArray[np.object_]) -> columns.Ints:
    known: dict[Any, int] = {}
    return np.array([known.setdefault(v, len(known)) for v in values.tolist()], np.int64)


def _layout(stack: list[Any], fields: Mapping[str, Any], i: int) -> TileLayout:
    number = {name: int(fields[name][i]) for name in LAYOUT_INTS}
    return TileLayout(
        width=int(stack[0][i]),
        height=int(stack[1][i]),
        dtype=str(fields["dtype"][i]),
        samples=1 if number["planar_configuration"] == 2 else number["samples_per_pixel"],
        bits=number["bits_per_sample"],
        compression=number["compression"],
        predictor=number["predictor"],
        photometric=number["photometric"],
        fill_order=number["fill_order"],
        little_endian=bool(fields["little_endian"][i]),
        subsampling=fields["subsampling"][i],
        extra_samples=fields["extra_samples"][i],
        tables=fields["codec_tables"][i],
        strips=bool(fields["strips"][i]),
    )
