"""One directory of a TIFF as a :class:`Level`: sizes, tile table, and how tiles are decoded."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import HeaderError, UnsupportedTiffError
from rasteret_dask.tiff.ifd import Ifd
from rasteret_dask.tiff.model import Level, TileLayout
from rasteret_dask.tiff.sampletype import sample_dtype
from rasteret_dask.tiff.segments import Segments
from rasteret_dask.tiff.strips import chop, guess_counts

MAX_TILE_BYTES: Final = 1 << 29
"""Decoded bytes of one tile or strip; larger ones are refused."""

COMPRESSIONS: Final = {
    1: "none",
    2: "CCITT RLE",
    3: "CCITT fax 3",
    4: "CCITT fax 4",
    5: "LZW",
    7: "JPEG",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
    34887: "LERC",
    34925: "LZMA",
    50000: "ZSTD",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
"""Codecs that are read, by the value of the Compression tag."""

_REFUSED: Final = {
    6: "old-style JPEG",
    32766: "NeXT",
    32809: "ThunderScan",
    32908: "Pixar film",
    32909: "Pixar log",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    33007: "JPEG XR",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv 24",
    34712: "JPEG 2000",
    34892: "lossy DNG JPEG",
    34933: "PNG",
    34934: "JPEG XR",
    50003: "JPEG 2000",
}

_PREDICTABLE: Final = {2: (8, 16, 32, 64), 3: (16, 32, 64)}
_FAR: Final = np.uint64(1 << 62)
_WITH_PREDICTOR: Final = (5, 8, 32946, 34925, 50000)
_CCITT: Final = (2, 3, 4)


def read_level(segments: Segments, ifd: Ifd) -> Level:
    """Read one directory whose values are all among ``segments``.

    Raises
    ------
    HeaderError, UnsupportedTiffError
        With the tag that is wrong.
    """
    width, height = _size(ifd, segments, 256), _size(ifd, segments, 257)
    planar = ifd.integer(284, segments, 1)
    if planar not in (1, 2):
        raise HeaderError(f"PlanarConfiguration is {planar}", tag="PlanarConfiguration")
    layout, samples = _layout(segments, ifd, width, height, planar)
    offsets, counts = _tables(segments, ifd, layout, width, height, samples if planar == 2 else 1)
    if layout.strips and layout.compression == 1:
        layout, offsets, counts = chop(layout, height, offsets, counts)
    _check_size(layout)
    offsets.setflags(write=False)
    counts.setflags(write=False)
    return Level(width, height, samples, planar, layout, offsets, counts)


def _size(ifd: Ifd, segments: Segments, tag: int) -> int:
    value = ifd.integer(tag, segments, 0)
    if not 0 < value < 1 << 31:
        name = "ImageWidth" if tag == 256 else "ImageLength"
        raise HeaderError(f"{name} is {value}", tag=name)
    return value


def _layout(
    segments: Segments, ifd: Ifd, width: int, height: int, planar: int
) -> tuple[TileLayout, int]:
    samples = ifd.integer(277, segments, 1)
    if not 0 < samples <= 65535:
        raise HeaderError(f"SamplesPerPixel is {samples}", tag="SamplesPerPixel")
    compression = ifd.integer(259, segments, 1)
    if compression not in COMPRESSIONS:
        name = _REFUSED.get(compression, f"number {compression}")
        raise UnsupportedTiffError(f"the compression {name} is not read", tag="Compression")
    bits = _uniform(ifd, segments, 258, 1, "BitsPerSample")
    sample_format = _uniform(ifd, segments, 339, 1, "SampleFormat")
    predictor = _predictor(ifd, segments, compression, bits)
    photometric = ifd.integer(262, segments, 1)
    extra = tuple(int(v) for v in ifd.numbers(338, segments))[:samples]
    if not all(0 <= number <= 65535 for number in (photometric, *extra)):
        raise HeaderError("a kind of samples beyond 65535", tag="PhotometricInterpretation")
    subsampling = ifd.numbers(530, segments) or (2, 2)
    tile_width, tile_height, strips = _tile_size(ifd, segments, width, height)
    layout = TileLayout(
        width=tile_width,
        height=tile_height,
        dtype=sample_dtype(bits, sample_format),
        samples=1 if planar == 2 else samples,
        bits=bits,
        compression=compression,
        predictor=predictor,
        photometric=photometric,
        fill_order=ifd.integer(266, segments, 1),
        little_endian=ifd.form.order == "<",
        subsampling=(int(subsampling[0]), int(subsampling[-1])) if photometric == 6 else (1, 1),
        extra_samples=extra,
        tables=_codec_tables(ifd, segments, compression),
        strips=strips,
    )
    _check(layout)
    return layout, samples


def _uniform(ifd: Ifd, segments: Segments, tag: int, default: int, name: str) -> int:
    """Return the one value that a per-sample tag has for every sample."""
    entry = ifd.entries.get(tag)
    if entry is None or entry[1] == 1:
        return ifd.integer(tag, segments, default)
    values = set(ifd.numbers(tag, segments))
    if len(values) != 1:
        raise UnsupportedTiffError(f"{name} differs between bands: {sorted(values)}", tag=name)
    value = values.pop()
    if not isinstance(value, int):
        raise HeaderError(f"{name} is not a whole number", tag=name)
    return value


def _predictor(ifd: Ifd, segments: Segments, compression: int, bits: int) -> int:
    predictor = ifd.integer(317, segments, 1)
    if predictor == 1 or compression not in _WITH_PREDICTOR:
        return 1  # other codecs know no predictor; libtiff ignores the tag there too
    if bits not in _PREDICTABLE.get(predictor, ()):
        raise UnsupportedTiffError(
            f"predictor {predictor} over samples of {bits} bits", tag="Predictor"
        )
    return predictor


def _tile_size(ifd: Ifd, segments: Segments, width: int, height: int) -> tuple[int, int, bool]:
    if 322 in ifd.entries or 324 in ifd.entries:
        tile_width, tile_height = ifd.integer(322, segments, 0), ifd.integer(323, segments, 0)
        if not 0 < tile_width < 1 << 31:
            raise HeaderError(f"TileWidth is {tile_width}", tag="TileWidth")
        if not 0 < tile_height < 1 << 31:
            raise HeaderError(f"TileLength is {tile_height}", tag="TileLength")
        return tile_width, tile_height, False
    rows = ifd.integer(278, segments, height)
    if rows == 0:
        raise HeaderError("RowsPerStrip is 0", tag="RowsPerStrip")
    return width, min(rows, height), True


def _codec_tables(ifd: Ifd, segments: Segments, compression: int) -> bytes:
    if compression == 7:
        return ifd.blob(347, segments)
    if compression == 34887:
        # Two words, version and further compression, kept as little-endian bytes.
        return np.asarray(ifd.numbers(50674, segments)[:2], "<u4").tobytes()
    if compression == 3:
        return np.asarray([ifd.integer(292, segments, 0)], "<u4").tobytes()
    return b""


def _check_size(layout: TileLayout) -> None:
    """Refuse tiles that no one could want to hold, before anything is allocated for them."""
    nbytes = layout.width * layout.height * layout.samples * np.dtype(layout.dtype).itemsize
    what = "strip" if layout.strips else "tile"
    if nbytes > MAX_TILE_BYTES:
        raise UnsupportedTiffError(
            f"one {what} of {layout.width} x {layout.height} pixels takes {nbytes} bytes",
            tag="RowsPerStrip" if layout.strips else "TileLength",
        )


def _check(layout: TileLayout) -> None:
    """Refuse kinds of images that are not decoded."""
    if layout.compression in _CCITT and (layout.bits != 1 or layout.samples != 1):
        raise UnsupportedTiffError("CCITT compression of more than one bit", tag="BitsPerSample")
    if layout.photometric == 6 and layout.compression not in (7, 50001, 50002, 52546):
        raise UnsupportedTiffError("YCbCr outside of JPEG", tag="PhotometricInterpretation")
    if layout.photometric == 5:
        # GDAL turns these into RGBA; as bands they mean nothing.
        raise UnsupportedTiffError("CMYK, the inks of a print", tag="PhotometricInterpretation")
    if layout.fill_order not in (1, 2):
        raise HeaderError(f"FillOrder is {layout.fill_order}", tag="FillOrder")


def _tables(
    segments: Segments, ifd: Ifd, layout: TileLayout, width: int, height: int, planes: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Read offsets and byte counts of all tiles, and check them against the size of the file."""
    names = (
        ("StripOffsets", "StripByteCounts") if layout.strips else ("TileOffsets", "TileByteCounts")
    )
    tags = (273, 279) if layout.strips else (324, 325)
    if not layout.strips and 324 not in ifd.entries:
        tags = (273, 279)  # tiled files whose writer used the tags of strips
    expected = -(-width // layout.width) * -(-height // layout.height) * planes
    offsets = ifd.array(tags[0], segments)
    if offsets is None:
        raise HeaderError(f"{names[0]} is missing", tag=names[0])
    counts = ifd.array(tags[1], segments)
    if counts is None:
        if layout.compression != 1 or not layout.strips or expected > len(offsets):
            raise HeaderError(f"{names[1]} is missing", tag=names[1])
        counts = guess_counts(layout, height, planes)
    if len(offsets) < expected:
        raise HeaderError(f"{len(offsets)} offsets for {expected} tiles", tag=names[0])
    if len(counts) < expected:
        raise HeaderError(f"{len(counts)} byte counts for {expected} tiles", tag=names[1])
    offsets, counts = offsets[:expected], counts[:expected]
    if max(offsets.max(), counts.max()) >= _FAR:
        raise HeaderError("tiles that no file is large enough for", tag=names[0])
    # An offset of 0 is as good as a count of 0: nothing was written there.
    if not offsets.all():
        counts = np.where(offsets == 0, np.uint64(0), counts)
    return offsets, counts
