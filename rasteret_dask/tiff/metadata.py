"""What GDAL writes into a TIFF beside the pixels: nodata, scales, names, ghost area."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree
from xml.sax.saxutils import unescape

import numpy as np
import numpy.typing as npt

from rasteret_dask.tiff.ifd import Ifd
from rasteret_dask.tiff.model import Level
from rasteret_dask.tiff.segments import Segments

_GHOST: Final = b"GDAL_STRUCTURAL_METADATA_SIZE="


@dataclass(frozen=True, slots=True)
class Metadata:
    """The part of a header that comes from GDAL's own tags; fields as in :class:`TiffHeader`."""

    nodata: float | int | None = None
    scales: tuple[float | None, ...] = ()
    offsets: tuple[float | None, ...] = ()
    descriptions: tuple[str | None, ...] = ()
    units: tuple[str | None, ...] = ()
    colormap: npt.NDArray[np.uint16] | None = None
    categories: tuple[str, ...] = ()
    overview_resampling: str | None = None
    warnings: tuple[str, ...] = ()


def read_metadata(segments: Segments, ifd: Ifd, level: Level) -> Metadata:
    """Read nodata, GDAL_METADATA and the colour map of the first directory."""
    warnings: list[str] = []
    nodata: float | int | None = None
    if 42113 in ifd.entries:
        nodata = parse_nodata(ifd.text(42113, segments), level.layout.dtype, warnings)
    items = _items(ifd.text(42112, segments), warnings) if 42112 in ifd.entries else []
    bands = level.samples if level.samples <= 4096 else 0
    resampling = [text for name, _, _, text in items if name == "OVERVIEW_RESAMPLING"]
    return Metadata(
        nodata=nodata,
        scales=_numbers(items, "scale", bands),
        offsets=_numbers(items, "offset", bands),
        descriptions=_texts(items, "description", bands),
        units=_texts(items, "unittype", bands),
        colormap=_colormap(segments, ifd, level),
        overview_resampling=resampling[0] if resampling else None,
        warnings=tuple(warnings),
    )


def parse_nodata(text: str, dtype: str, warnings: list[str]) -> float | int | None:
    """Return the value that GDAL_NODATA names, or None with a warning when the type cannot hold it.

    Parameters
    ----------
    text : str
        As stored; ``nan`` and ``-inf`` are values too.
    dtype : str
        NumPy name of the samples.
    warnings : list of str
        Receives one sentence when the text is passed over.
    """
    text = text.strip().strip("\0").strip()
    if not text:
        return None
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        return _integer_nodata(text, kind, warnings)
    try:
        value = float(text)
    except ValueError:
        warnings.append(f"the nodata value {text!r} is not a number and is ignored")
        return None
    if not math.isfinite(value):
        return value
    limit = float(np.finfo(kind).max)
    # Texts of the largest float32 are rounded either way; GDAL takes them for the limit itself.
    if abs(value) > limit * (1 + 1e-6):
        warnings.append(f"the nodata value {text} does not fit into {dtype} and is ignored")
        return None
    # What the samples hold is the rounded value, and that is what they are compared with.
    return float(kind.type(max(-limit, min(limit, value))).real)


def _integer_nodata(text: str, kind: np.dtype[np.generic], warnings: list[str]) -> int | None:
    try:
        value = int(text)
    except ValueError:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number != int(number):
            warnings.append(f"the nodata value {text!r} is no {kind.name} and is ignored")
            return None
        value = int(number)
    limits = np.iinfo(kind.name)
    if not limits.min <= value <= limits.max:
        warnings.append(f"the nodata value {text} does not fit into {kind.name} and is ignored")
        return None
    return value


_Item = tuple[str, int | None, str, str]


def _items(text: str, warnings: list[str]) -> list[_Item]:
    """Return ``(name, sample, role, text)`` of each item of a GDAL_METADATA document."""
    text = text.strip().rstrip("\0")
    if not text:
        return []
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        # Entities can be made to expand without bound; GDAL never writes any.
        warnings.append("GDAL_METADATA declares entities and is ignored")
        return []
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        warnings.append(f"GDAL_METADATA is not XML: {error}")
        return []
    found: list[_Item] = []
    for item in root.iter("Item"):
        sample = item.get("sample")
        number = (
            int(sample) if sample is not None and sample.isdecimal() and len(sample) < 6 else None
        )
        found.append((item.get("name", ""), number, item.get("role", ""), _unescaped(item.text)))
    return found


def _unescaped(text: str | None) -> str:
    # GDAL escapes texts itself before it writes them into XML, which escapes them again.
    return unescape(text or "", {"&quot;": '"', "&apos;": "'"})


def _numbers(items: list[_Item], role: str, bands: int) -> tuple[float | None, ...]:
    values: list[float | None] = [None] * bands
    for _, sample, found, text in items:
        if found == role and sample is not None and sample < bands:
            try:
                values[sample] = float(text)
            except ValueError:
                continue
    return tuple(values)


def _texts(items: list[_Item], role: str, bands: int) -> tuple[str | None, ...]:
    values: list[str | None] = [None] * bands
    for _, sample, found, text in items:
        if found == role and sample is not None and sample < bands:
            values[sample] = text
    return tuple(values)


def _colormap(segments: Segments, ifd: Ifd, level: Level) -> npt.NDArray[np.uint16] | None:
    if 320 not in ifd.entries or level.layout.photometric != 3 or level.layout.bits > 16:
        return None
    values = ifd.array(320, segments)
    if values is None or len(values) != 3 << level.layout.bits:
        return None
    return values.astype(np.uint16).reshape(3, -1)


def read_ghost_area(segments: Segments) -> tuple[int, int]:
    """Return the bytes before and after each tile that GDAL's ghost area promises.

    COGs written by GDAL keep a small text right after the first 8 (16 in BigTIFF) bytes; it says
    that each tile is preceded by its size and followed by a repetition of its last bytes.
    """
    head = segments.get(0, 43 + 16) or segments.get(0, 43 + 8)
    if head is None:
        return 0, 0
    data = bytes(head)
    at = data.find(_GHOST)
    if at not in (8, 16):
        return 0, 0
    digits = re.match(rb"\d{6}", data[at + len(_GHOST) :])
    size = int(digits.group()) if digits else 0
    block = segments.get(at + 43, at + 43 + size)
    if block is None:
        return 0, 0
    lines = bytes(block).split(b"\n")
    if any(line.startswith(b"KNOWN_INCOMPATIBLE_EDITION=YES") for line in lines):
        return 0, 0  # someone rewrote parts of the file; the promises are void
    leader = 4 if b"BLOCK_LEADER=SIZE_AS_UINT4" in lines else 0
    trailer = 4 if b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED" in lines else 0
    return leader, trailer
