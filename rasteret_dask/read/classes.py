"""Which bands are maps of classes: never interpolated, and read from overviews only where those were made for classes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rasteret_dask.index import schema
from rasteret_dask.model import BandInfo
from rasteret_dask.read.request import CubeRequest, parse_resampling

_NAMES = re.compile(r"scl|fmask|cloud_?mask|qa_\w+|\w*_qa|lulc|map|classification", re.IGNORECASE)

PALETTE = 3
"""PhotometricInterpretation of a file with a colour map."""


def is_class_band(info: BandInfo) -> bool:
    """Whether a band is a class map, by its descriptor (which STAC's roles and class lists fill) or by the names of such bands."""
    names = {info.name, info.asset, info.common_name or "", *info.aliases}
    return info.categorical or any(_NAMES.fullmatch(name) for name in names)


def class_bands(table: pa.Table, bands: Iterable[str]) -> frozenset[str]:
    """Return the bands whose files say themselves that they hold classes: a colour map, names of classes, or a single bit.

    Parameters
    ----------
    table : pyarrow.Table
        Rows of a collection, with the columns of the bands.
    bands : iterable of str
        Canonical names.
    """
    return frozenset(
        band for band in bands if _says_classes(table.column(schema.band_column(band)))
    )


def with_class_bands(request: CubeRequest, table: pa.Table, resampling: Any) -> CubeRequest:
    """Return the request with the class bands that only the files tell of, as by a colour map.

    Parameters
    ----------
    request : CubeRequest
    table : pyarrow.Table
        Rows of a collection, with the columns of the bands.
    resampling : str or mapping
        As it was asked for.
    """
    more = class_bands(table, (band for _, band in request.bands)) - request.classes
    if not more:
        return request
    classes = request.classes | more
    methods = parse_resampling(resampling, request.bands, classes)
    return replace(request, classes=classes, resampling=methods)


def _says_classes(column: pa.ChunkedArray) -> bool:
    kind = column.type
    for name, value in (("photometric", PALETTE), ("bits_per_sample", 1)):
        if kind.get_field_index(name) >= 0:
            found = pc.equal(pc.struct_field(column, name), value)
            if pc.any(found).as_py():
                return True
    if kind.get_field_index("extras") < 0:
        return False
    texts = pc.unique(pc.struct_field(column, "extras"))
    return bool(pc.any(pc.match_substring(texts, '"categories": [')).as_py())
