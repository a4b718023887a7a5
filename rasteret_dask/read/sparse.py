"""Tiles without bytes: what their pixels are."""

from __future__ import annotations

from rasteret_dask.plan.sources import SourceRead
from rasteret_dask.tiff.held import Told, holds


def sparse_value(source: SourceRead) -> float | int:
    """Return what the pixels of a source's sparse tiles are: its nodata, or 0 as in GDAL.

    Where a caller, a descriptor or STAC names a value that the type cannot hold, they are the file's own, or 0, and valid.
    """
    nodata = source.nodata
    if isinstance(nodata, Told):
        return nodata.own
    return nodata if nodata is not None and holds(source.layout.dtype, nodata) else 0
