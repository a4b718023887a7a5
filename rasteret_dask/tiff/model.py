"""What a TIFF header says, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Affine6 = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class TileLayout:
    """All that is needed to decode one tile or strip; the same value for every tile of a level.

    Parameters
    ----------
    width, height : int
        Pixels of a tile. A strip is a tile as wide as the image; the last one may hold fewer rows.
    dtype : str
        NumPy name of one decoded sample in native byte order, as ``uint16`` or ``complex64``.
    samples : int
        Samples interleaved in one tile: all of them for planar configuration 1, 1 for 2.
    bits : int
        Bits of a sample as stored (15 in 15-bit files, 16 for plain ``uint16``, 64 for
        ``complex64``).
    compression, predictor, photometric, fill_order : int
        The values of those tags.
    little_endian : bool
        Byte order of multi-byte samples.
    subsampling : tuple of int
        YCbCr chroma subsampling, horizontal and vertical.
    extra_samples : tuple of int
        The ExtraSamples tag.
    tables : bytes
        JPEG tables, or LERC parameters as stored; empty for other codecs.
    strips : bool
        The "tile" is a strip.
    """

    width: int
    height: int
    dtype: str
    samples: int = 1
    bits: int = 8
    compression: int = 1
    predictor: int = 1
    photometric: int = 1
    fill_order: int = 1
    little_endian: bool = True
    subsampling: tuple[int, int] = (1, 1)
    extra_samples: tuple[int, ...] = ()
    tables: bytes = b""
    strips: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """One resolution of an image, or of its mask.

    Parameters
    ----------
    width, height : int
        Pixels of the whole level.
    samples : int
        Samples per pixel (bands).
    planar : int
        1: samples interleaved in each tile. 2: one plane of tiles after another.
    layout : TileLayout
        How each tile is decoded.
    offsets : ndarray of uint64, shape (planes * rows * columns,)
        First byte of each tile, plane by plane, each plane row by row; planes is ``samples`` if
        planar is 2, else 1.
    counts : ndarray of uint64, same shape
        Bytes of each tile; 0 marks a sparse tile.
    """

    width: int
    height: int
    samples: int
    planar: int
    layout: TileLayout
    offsets: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.uint64]

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles down and across."""
        return -(-self.height // self.layout.height), -(-self.width // self.layout.width)


@dataclass(frozen=True, slots=True, eq=False)
class TiffHeader:
    """Everything about a GeoTIFF but its pixels.

    Parameters
    ----------
    levels : tuple of Level
        Full resolution first, then overviews from fine to coarse.
    masks : tuple of Level or None
        For each level its internal mask, if it has one.
    crs : str, optional
        ``EPSG:32633``, or WKT2 when there is no code; None when the file does not say.
    transform : tuple of float, optional
        ``(a, b, c, d, e, f)`` of full resolution in rasterio's order: x = a·col + b·row + c, y =
        d·col + e·row + f for pixel *corners*, PixelIsPoint already corrected. None when the file
        has no affine georeference.
    gcps : tuple of tuple of float
        ``(column, row, x, y, z)`` each, when tie points are all there is.
    nodata : float or int, optional
        The value of GDAL_NODATA, an int for integer types; None when absent or out of the type's
        range.
    scales, offsets : tuple of float or None
        Per band, as GDAL metadata says; None where it does not.
    descriptions, units : tuple of str or None
        Per band.
    colormap : ndarray of uint16, shape (3, 2**bits), optional
        Palette.
    categories : tuple of str
        Class names of the first band.
    overview_resampling : str, optional
        How the overviews were made, as GDAL writes it (``NEAREST``, ``AVERAGE`` …).
    leader, trailer : int
        Bytes before and after each tile that GDAL's ghost area promises (0 without one).
    byte_order : str
        ``<`` or ``>``.
    bigtiff : bool
        64-bit offsets.
    size, etag, last_modified
        Of the file as it was when the header was read; None when unknown.
    warnings : tuple of str
        What was odd and passed over.
    like : TiffHeader, optional
        A header that differs from this one in tables, size and version alone; the same one for all
        that are alike.
    """

    levels: tuple[Level, ...]
    masks: tuple[Level | None, ...] = ()
    crs: str | None = None
    transform: Affine6 | None = None
    gcps: tuple[tuple[float, float, float, float, float], ...] = ()
    nodata: float | int | None = None
    scales: tuple[float | None, ...] = ()
    offsets: tuple[float | None, ...] = ()
    descriptions: tuple[str | None, ...] = ()
    units: tuple[str | None, ...] = ()
    colormap: npt.NDArray[np.uint16] | None = None
    categories: tuple[str, ...] = ()
    overview_resampling: str | None = None
    leader: int = 0
    trailer: int = 0
    byte_order: str = "<"
    bigtiff: bool = False
    size: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    warnings: tuple[str, ...] = field(default=())
    like: TiffHeader | None = field(default=None, repr=False)
