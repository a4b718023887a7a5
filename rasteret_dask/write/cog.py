"""An image as a cloud-optimised GeoTIFF."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import xarray as xr
from rasterio.shutil import copy as gdal_copy
from rasterio.windows import Window

from rasteret_dask.errors import ArgumentError
from rasteret_dask.write.raster import (
    common_nodata,
    flat_bands,
    is_nodata,
    is_same,
    is_taken,
    nodata_of,
)
from rasteret_dask.write.target import put_file, scratch_file

# What is held at once; of GDAL's cache too, which would take a twentieth of the machine.
_STEP_BYTES = 128 * 2**20
_CACHE_MB = 128


_SETTINGS = {"GDAL_PAM_ENABLED": False, "GDAL_CACHEMAX": _CACHE_MB}


def write_cog(
    data: xr.DataArray | xr.Dataset,
    url: str | os.PathLike[str],
    *,
    blocksize: int = 512,
    compress: str = "deflate",
    overview_resampling: str | None = None,
    nodata: float | int | None = None,
) -> str:
    """Compute an image and write it as a COG with overviews and statistics.

    Beyond some hundred megabytes an image takes room on the local disk (twice its size), not in
    memory.

    Parameters
    ----------
    data : DataArray (y, x) or (band, y, x), or Dataset
        Each variable of a Dataset becomes a band that carries its name; all must share one grid.
        Lazy arrays are computed some rows of chunks at a time, about 128 MiB.
    url : str or path-like
        Any URL that fsspec can write. The file appears once it is whole.
    blocksize : int
        Pixels along a side of a tile; a multiple of 16.
    compress : str
        A GDAL codec.
    overview_resampling : str, optional
        By default ``average`` for floats and ``nearest`` for integers, which may be classes.
    nodata : number, optional
        By default what the arrays say, NaN for floats that say nothing; where bands differ, a
        value of one of them that the others cannot hold.

    Returns
    -------
    str
        The URL.

    Raises
    ------
    ArgumentError
        If the data is no image, or its bands do not share one grid or one value for nothing.
    """
    bands = flat_bands(data)
    first = bands[0]
    dtype = np.result_type(*[band.dtype for band in bands])
    if dtype == np.dtype(bool):
        dtype = np.dtype(np.uint8)
    for band in bands[1:]:
        if band.shape != first.shape or band.rio.transform() != first.rio.transform():
            raise ArgumentError(
                f"{band.name} and {first.name} do not share one grid, and the bands of a file must",
                hint="write them into a file each",
            )
    own = [(band.dtype, nodata_of(band)) for band in bands]
    empty = common_nodata(own) if nodata is None else nodata
    rows, columns = first.shape
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "width": columns,
        "height": rows,
        "count": len(bands),
        "dtype": dtype,
        "crs": first.rio.crs,
        "transform": first.rio.transform(recalc=True),
        "nodata": empty,
    }
    resampling = overview_resampling or ("average" if dtype.kind == "f" else "nearest")
    with scratch_file(".tif") as plain, rasterio.Env(**_SETTINGS):
        # Uncompressed and with the COG's own tiles, so that the copy reads each block once.
        layout = {
            "tiled": True,
            "blockxsize": blocksize,
            "blockysize": blocksize,
            "sparse_ok": True,
        }
        with rasterio.open(plain, "w", **profile, **layout, BIGTIFF="IF_SAFER") as image:
            for number, band in enumerate(bands, start=1):
                if band.name is not None:
                    image.set_band_description(number, str(band.name))
                for row, values in _computed(band, dtype, empty, guarded=nodata is None):
                    window = Window(0, row, columns, len(values))
                    image.write(values, number, window=window)
        finished = plain.with_name("cog.tif")
        _copy(plain, finished, dtype, blocksize, compress, resampling)
        return put_file(finished, url)


def _computed(
    band: xr.DataArray, dtype: np.dtype[Any], empty: Any, *, guarded: bool
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """``(first row, values)``, some rows of chunks at a time; guarded, no value may be lost."""
    own = nodata_of(band)
    for start, stop in _row_spans(band):
        values = np.asarray(band[start:stop].values)
        # Bands of one file share one nodata value.
        if guarded and is_taken(values, own, empty):
            raise ArgumentError(
                f"{band.name} has pixels of {empty:g}, which stands for nothing in another band, "
                "and a file has one such value",
                hint="write them into a file each, or pass a nodata value that no band has",
            )
        if empty is not None and own is not None and not is_same(own, empty):
            converted = values.astype(dtype)
            converted[is_nodata(values, own)] = empty
            yield start, converted
        else:
            yield start, values.astype(dtype, copy=False)


def _row_spans(band: xr.DataArray) -> Iterator[tuple[int, int]]:
    rows, columns = band.shape
    heights = band.chunks[0] if band.chunks else (rows,)
    limit = max(1, _STEP_BYTES // max(1, columns * band.dtype.itemsize))
    start = stop = 0
    for height in heights:
        if stop > start and stop + height - start > limit:
            yield start, stop
            start = stop
        stop += height
    if stop > start:
        yield start, stop


def _copy(
    source: Path, target: Path, dtype: np.dtype[Any], blocksize: int, compress: str, resampling: str
) -> None:
    options: dict[str, Any] = {
        "COMPRESS": compress.upper(),
        "BLOCKSIZE": blocksize,
        "OVERVIEW_RESAMPLING": resampling.upper(),
        "NUM_THREADS": "ALL_CPUS",
        "STATISTICS": "YES",
        "BIGTIFF": "IF_SAFER",
    }
    if compress.upper() in ("DEFLATE", "LZW", "ZSTD") and dtype.kind in "iuf":
        options["PREDICTOR"] = "FLOATING_POINT" if dtype.kind == "f" else "STANDARD"
    gdal_copy(source, target, driver="COG", **options)
