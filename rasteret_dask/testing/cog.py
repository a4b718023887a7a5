"""Small GeoTIFFs for tests, made by GDAL so that they owe nothing to the code under test."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.enums import Resampling
from rasterio.shutil import copy as gdal_copy

from rasteret_dask.errors import ArgumentError

DEFAULT_TRANSFORM = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0)
DEFAULT_CRS = "EPSG:32633"


def make_cog(
    path: str | os.PathLike[str],
    array: npt.NDArray[Any],
    *,
    transform: Affine | Sequence[float] = DEFAULT_TRANSFORM,
    crs: Any = DEFAULT_CRS,
    nodata: float | int | None = None,
    blocksize: int = 256,
    compress: str | None = "deflate",
    predictor: int | None = None,
    overviews: int | Sequence[int] | None = None,
    resampling: str = "nearest",
    nbits: int | None = None,
    sparse: bool = False,
    mask: npt.NDArray[np.bool_] | None = None,
    driver: str = "COG",
    tags: Mapping[str, str] | None = None,
    descriptions: Sequence[str] | None = None,
    scales: Sequence[float] | None = None,
    offsets: Sequence[float] | None = None,
    colormap: Mapping[int, tuple[int, ...]] | None = None,
    **profile: Any,
) -> Path:
    """Write `array` as a tiled GeoTIFF; the same arguments give the same bytes.

    Parameters
    ----------
    path : path-like
        File to write; its folder is made when it is missing.
    array : ndarray, shape (rows, columns) or (bands, rows, columns)
        Pixels; the dtype of the file is the array's.
    transform : Affine or six numbers (a, b, c, d, e, f)
        Of pixel corners, in CRS units.
    crs
        Whatever rasterio takes; None leaves the file without one.
    nodata
        Written as GDAL_NODATA when given.
    blocksize : int
        Pixels along a side of a tile; a multiple of 16.
    compress : str or None
        A GDAL codec name; None stores tiles as they are.
    predictor : int, optional
        1, 2 or 3. By default 2 for integers and 3 for floats under deflate, LZW and ZSTD, else
        none.
    overviews : int or sequence of int, optional
        How many (each half the one before), or their factors; factors need ``driver="GTiff"``.
        By default as many as it takes until one tile holds all; 0 for none.
    resampling : str
        How overviews are made, in rasterio's words.
    nbits : int, optional
        Bits a sample as stored; the values must fit.
    sparse : bool
        Leave out tiles that hold nothing but nodata (or zeros).
    mask : ndarray of bool, shape (rows, columns), optional
        An internal mask, True where pixels are valid.
    driver : {"COG", "GTiff"}
        GTiff for layouts a COG cannot have (``interleave="band"``, strips, a big-endian file …).
    tags, descriptions, scales, offsets, colormap
        Metadata of the file and of its bands.
    **profile
        Any further creation options of the driver.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ArgumentError
        `array` is no image, or the driver another one.
    """
    pixels = array[np.newaxis] if array.ndim == 2 else array
    if pixels.ndim != 3:
        raise ArgumentError(f"an image has 2 or 3 dimensions, not {array.ndim}")
    if driver not in ("COG", "GTiff"):
        raise ArgumentError(f"driver is {driver!r}; COG and GTiff are known")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = transform if isinstance(transform, Affine) else Affine(*transform[:6])
    options = _creation_options(
        driver, pixels.dtype, blocksize, compress, predictor, overviews, resampling, nbits, sparse
    )
    options.update({key.upper(): value for key, value in profile.items()})
    bands, rows, columns = pixels.shape
    common: dict[str, Any] = {
        "width": columns,
        "height": rows,
        "count": bands,
        "dtype": pixels.dtype,
        "crs": crs,
        "transform": affine,
        "nodata": nodata,
    }
    # Statistics files beside the image would make two runs differ.
    with rasterio.Env(GDAL_PAM_ENABLED=False, GDAL_TIFF_INTERNAL_MASK=True, GDAL_NUM_THREADS="1"):
        with rasterio.MemoryFile() as memory:
            with memory.open(driver="GTiff", **common, BIGTIFF="IF_NEEDED") as image:
                image.write(pixels)
                _describe(image, tags, descriptions, scales, offsets, colormap)
                if mask is not None:
                    image.write_mask(mask)
            with memory.open() as image:
                gdal_copy(image, path, driver=driver, **options)
        if driver == "GTiff":
            _add_overviews(path, overviews, resampling, max(rows, columns), blocksize)
    return path


def _creation_options(
    driver: str,
    dtype: np.dtype[Any],
    blocksize: int,
    compress: str | None,
    predictor: int | None,
    overviews: int | Sequence[int] | None,
    resampling: str,
    nbits: int | None,
    sparse: bool,
) -> dict[str, Any]:
    codec = "NONE" if compress is None else compress.upper()
    if predictor is None:
        by_dtype = 3 if dtype.kind == "f" else 2
        packed = nbits is not None and nbits not in (8, 16, 32, 64)
        plain = packed or dtype.kind == "c" or codec not in ("DEFLATE", "LZW", "ZSTD")
        predictor = 1 if plain else by_dtype
    options: dict[str, Any] = {"COMPRESS": codec}
    if driver == "COG":
        options["BLOCKSIZE"] = blocksize
        options["OVERVIEW_RESAMPLING"] = resampling.upper()
        if codec in ("DEFLATE", "LZW", "ZSTD"):
            options["PREDICTOR"] = {1: "NO", 2: "STANDARD", 3: "FLOATING_POINT"}[predictor]
        if overviews is not None:
            if not isinstance(overviews, int):
                raise ArgumentError("the COG driver takes a number of overviews, not their factors")
            options["OVERVIEWS"] = "NONE" if overviews == 0 else "IGNORE_EXISTING"
            if overviews:
                options["OVERVIEW_COUNT"] = overviews
    else:
        options.update(TILED="YES", BLOCKXSIZE=blocksize, BLOCKYSIZE=blocksize, PREDICTOR=predictor)
    if nbits is not None:
        options["NBITS"] = nbits
    if sparse:
        options["SPARSE_OK"] = "TRUE"
    return options


def _describe(
    image: Any,
    tags: Mapping[str, str] | None,
    descriptions: Sequence[str] | None,
    scales: Sequence[float] | None,
    offsets: Sequence[float] | None,
    colormap: Mapping[int, tuple[int, ...]] | None,
) -> None:
    if tags:
        image.update_tags(**tags)
    for band, text in enumerate(descriptions or (), start=1):
        image.set_band_description(band, text)
    if scales is not None:
        image.scales = tuple(scales)
    if offsets is not None:
        image.offsets = tuple(offsets)
    if colormap is not None:
        image.write_colormap(1, dict(colormap))


def _add_overviews(
    path: Path, overviews: int | Sequence[int] | None, resampling: str, side: int, blocksize: int
) -> None:
    if overviews is None:
        factors: list[int] = []
        while side / 2 ** len(factors) > blocksize:
            factors.append(2 ** (len(factors) + 1))
    elif isinstance(overviews, int):
        factors = [2**n for n in range(1, overviews + 1)]
    else:
        factors = list(overviews)
    if not factors:
        return
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as image:
        image.build_overviews(factors, Resampling[resampling])
