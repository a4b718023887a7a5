"""Image file directories: the tables of tags that a TIFF is made of."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import HeaderError
from rasteret_dask.tiff.segments import Segments

MAX_TAGS: Final = 4096
"""More entries than this in one directory is damage, not data (libtiff's bound)."""

MAX_HEADER_BYTES: Final = 64 * 1024 * 1024
"""Bytes that the tags of one file may ask for: four million tiles."""

TAG_NAMES: Final = {
    254: "NewSubfileType",
    255: "SubfileType",
    256: "ImageWidth",
    257: "ImageLength",
    258: "BitsPerSample",
    259: "Compression",
    262: "PhotometricInterpretation",
    266: "FillOrder",
    273: "StripOffsets",
    277: "SamplesPerPixel",
    278: "RowsPerStrip",
    279: "StripByteCounts",
    284: "PlanarConfiguration",
    292: "T4Options",
    317: "Predictor",
    320: "ColorMap",
    322: "TileWidth",
    323: "TileLength",
    324: "TileOffsets",
    325: "TileByteCounts",
    330: "SubIFDs",
    338: "ExtraSamples",
    339: "SampleFormat",
    347: "JPEGTables",
    530: "YCbCrSubSampling",
    33550: "ModelPixelScale",
    33922: "ModelTiepoint",
    34264: "ModelTransformation",
    34735: "GeoKeyDirectory",
    34736: "GeoDoubleParams",
    34737: "GeoAsciiParams",
    42112: "GDAL_METADATA",
    42113: "GDAL_NODATA",
    50674: "LercParameters",
}

_SIZES: Final = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8,
    18: 8,
}  # fmt: skip
_CODES: Final = {
    1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I",
    16: "Q", 17: "q", 18: "Q",
}  # fmt: skip
# Some writers use signed types for offsets; GDAL takes those that are not negative.
_ARRAYS: Final = {
    1: "u1", 3: "u2", 4: "u4", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8",
}  # fmt: skip


def tag_name(tag: int) -> str:
    """Return the name of a tag, or its number as text."""
    return TAG_NAMES.get(tag, str(tag))


@dataclass(frozen=True, slots=True)
class ByteForm:
    """How a file writes its numbers.

    Parameters
    ----------
    order : str
        ``<`` or ``>``.
    big : bool
        BigTIFF: 64-bit offsets.
    """

    order: str
    big: bool

    @property
    def endian(self) -> Literal["little", "big"]:
        """The order of bytes, in `int.from_bytes`'s word."""
        return "little" if self.order == "<" else "big"

    @property
    def entry(self) -> str:
        """Layout of one directory entry: tag, type, count, value or offset as raw bytes."""
        return self.order + ("HHQ8s" if self.big else "HHI4s")


@dataclass(frozen=True, slots=True)
class Ifd:
    """One directory, its values not yet decoded.

    Parameters
    ----------
    form : ByteForm
        How numbers are written.
    offset, next : int
        Where it starts, and where the next one does (0: nowhere).
    entries : dict
        Tag to ``(type, count, inline value or packed offset)``.
    outside : dict
        Tag to the byte range of its value, for those that are not inline.
    """

    form: ByteForm
    offset: int
    next: int
    entries: dict[int, tuple[int, int, bytes]]
    outside: dict[int, tuple[int, int]]

    def drop(self, tag: int) -> None:
        """Forget a tag that cannot be used and can be done without."""
        del self.entries[tag]
        self.outside.pop(tag, None)

    def raw(self, tag: int, segments: Segments) -> tuple[int, int, memoryview] | None:
        """Return type, count and bytes of a tag; its span must be among ``segments``.

        Raises
        ------
        HeaderError
            The tag lies outside of the file.
        """
        entry = self.entries.get(tag)
        if entry is None:
            return None
        kind, count, inline = entry
        nbytes = _SIZES.get(kind, 0) * count
        if nbytes <= len(inline):
            return kind, count, memoryview(inline)[:nbytes]
        span = self.outside.get(tag)
        data = None if span is None else segments.get(*span)
        if data is None:
            raise HeaderError(f"{tag_name(tag)} lies outside of the file", tag=tag_name(tag))
        return kind, count, data

    def numbers(self, tag: int, segments: Segments) -> tuple[Any, ...]:
        """Return the values of a short numeric tag; empty when it is absent.

        Raises
        ------
        HeaderError
            The tag has another type.
        """
        found = self.raw(tag, segments)
        if found is None:
            return ()
        kind, count, data = found
        if kind not in _CODES:
            raise HeaderError(f"{tag_name(tag)} has the type {kind}", tag=tag_name(tag))
        return struct.unpack(f"{self.form.order}{count}{_CODES[kind]}", data)

    def integer(self, tag: int, segments: Segments, default: int) -> int:
        """Return the first value of an integer tag.

        Raises
        ------
        HeaderError
            The tag is not a whole number.
        """
        entry = self.entries.get(tag)
        if entry is None:
            return default
        kind, count, inline = entry
        if kind == 3 and count >= 1 and count * 2 <= len(inline):
            # The commonest case by far, kept free of the general machinery.
            return (
                inline[0] | inline[1] << 8 if self.form.order == "<" else inline[0] << 8 | inline[1]
            )
        values = self.numbers(tag, segments) if kind in _ARRAYS else ()
        if not values or values[0] < 0:
            raise HeaderError(f"{tag_name(tag)} is not a whole number", tag=tag_name(tag))
        return int(values[0])

    def array(self, tag: int, segments: Segments) -> npt.NDArray[np.uint64] | None:
        """Return a tag of offsets or counts as ``uint64``; None when it is absent.

        Raises
        ------
        HeaderError
            The tag has another type, or holds negative numbers.
        """
        found = self.raw(tag, segments)
        if found is None:
            return None
        kind, _, data = found
        code = _ARRAYS.get(kind)
        if code is None:
            raise HeaderError(f"{tag_name(tag)} has the type {kind}", tag=tag_name(tag))
        values = np.frombuffer(data, self.form.order + code)
        if code[0] == "i" and (values < 0).any():
            raise HeaderError(f"{tag_name(tag)} holds negative numbers", tag=tag_name(tag))
        return values.astype(np.uint64)

    def text(self, tag: int, segments: Segments) -> str:
        """Return an ASCII tag up to its terminator; empty when it is absent."""
        found = self.raw(tag, segments)
        if found is None:
            return ""
        # GDAL writes UTF-8 here; others wrote Latin-1, which never fails to decode.
        data = bytes(found[2]).rstrip(b"\0")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode("latin-1")

    def blob(self, tag: int, segments: Segments) -> bytes:
        """Return the bytes of a tag; empty when it is absent."""
        found = self.raw(tag, segments)
        return b"" if found is None else bytes(found[2])


def read_ifd(segments: Segments, form: ByteForm, offset: int) -> Ifd | tuple[int, int]:
    """Read one directory, or say which bytes are needed for it.

    Raises
    ------
    HeaderError
        When the directory lies outside of the file or has an absurd number of entries.
    """
    width, entry_size, next_size = (8, 20, 8) if form.big else (2, 12, 4)
    size = segments.size
    if size is not None and offset + width > size:
        raise HeaderError(
            f"a directory starts at byte {offset}, past the end of the file", tag="IFD"
        )
    # Read ahead: the values of small tags usually follow the table.
    ahead = offset + 4096 if size is None else min(offset + 4096, size)
    head = segments.get(offset, offset + width)
    if head is None:
        return offset, ahead
    count = int.from_bytes(head, form.endian)
    if not 0 < count <= MAX_TAGS:
        raise HeaderError(f"a directory has {count} entries", tag="IFD")
    stop = offset + width + count * entry_size
    if size is not None and stop > size:
        raise HeaderError("a directory runs past the end of the file", tag="IFD")
    table = segments.get(offset + width, stop)
    if table is None:
        return offset, max(stop + next_size, ahead) if size is None else min(
            max(stop + next_size, ahead), size
        )
    entries: dict[int, tuple[int, int, bytes]] = {}
    outside: dict[int, tuple[int, int]] = {}
    order, inline = form.endian, next_size
    for tag, kind, number, raw in struct.iter_unpack(form.entry, table):
        entries[tag] = (kind, number, raw)
        nbytes = _SIZES.get(kind, 0) * number
        if nbytes > inline:
            start = int.from_bytes(raw, order)
            outside[tag] = (start, start + nbytes)
    tail = segments.get(stop, stop + next_size)
    if tail is None and (size is None or stop + next_size <= size):
        return offset, stop + next_size
    # Some writers end the file without a link; nothing follows then.
    follow = 0 if tail is None else int.from_bytes(tail, order)
    return Ifd(form, offset, follow, entries, outside)
