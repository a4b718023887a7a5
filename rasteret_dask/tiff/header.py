"""Parse a TIFF header: known bytes in, a :class:`TiffHeader` or the bytes still needed out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from rasteret_dask.errors import HeaderError, RasteretError, UnsupportedTiffError
from rasteret_dask.tiff.georef import read_georef
from rasteret_dask.tiff.ifd import MAX_HEADER_BYTES, ByteForm, Ifd, read_ifd, tag_name
from rasteret_dask.tiff.levels import read_level
from rasteret_dask.tiff.metadata import read_ghost_area, read_metadata
from rasteret_dask.tiff.model import Level, TiffHeader
from rasteret_dask.tiff.segments import NeedBytes, Segments, merge_ranges

__all__ = ["MAX_ROUNDS", "NeedBytes", "Segments", "parse"]

MAX_ROUNDS: Final = 64
"""Rounds of reading after which a caller should give a header up."""

MAX_IFDS: Final = 1024
"""Directories followed; the rest of a long chain of pages is left alone, with a warning."""

MAX_PAGES: Final = 32
"""Images of their own in a row after which no overview of the first is looked for: each may take a round of reading."""

MAX_TEXT_BYTES: Final = 2 * 1024 * 1024
"""Bytes of one georeferencing or metadata tag; larger ones are ignored, with a warning."""

SLACK: Final = 4 * 1024 * 1024
"""What reading ahead may fetch beside the values themselves."""

_REDUCED, _MASK = 1, 4

_LAYOUT_TAGS: Final = frozenset(
    (
        256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 317, 322, 323, 324, 325, 338,
        339, 347, 530, 50674,
    )
)  # fmt: skip
_GEO_TAGS: Final = frozenset((320, 33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113))
_MAIN_TAGS: Final = _LAYOUT_TAGS | _GEO_TAGS
_TABLES: Final = frozenset((273, 279, 324, 325))
_OPTIONAL: Final = _GEO_TAGS | {330}


@dataclass(frozen=True, slots=True)
class _Chain:
    main: Ifd
    overviews: tuple[Ifd, ...]
    masks: tuple[Ifd, ...]
    warnings: tuple[str, ...]


def parse(
    segments: Segments, origins: list[tuple[Level, Ifd]] | None = None
) -> TiffHeader | NeedBytes:
    """Parse the header of a TIFF of which some byte ranges are known.

    Pure: the caller fetches what :class:`NeedBytes` names, adds it to the segments, and calls
    again.

    Parameters
    ----------
    segments : Segments
        What is known; at least the first 16 bytes (or all of a smaller file).
    origins : list, optional
        Receives each level and mask with the directory that it was read from.

    Returns
    -------
    TiffHeader or NeedBytes
        ``size`` is taken from the segments; ``etag`` is for the caller to fill in.

    Raises
    ------
    HeaderError
        When the header contradicts itself, or lies outside of the file; ``tag`` says where.
    UnsupportedTiffError
        When the file is of a kind that is not read.
    """
    try:
        return _parse(segments, [] if origins is None else origins)
    except RasteretError:
        raise
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        # One bad file is one bad file, whatever its numbers do.
        raise HeaderError(f"the header makes no sense ({type(error).__name__})") from None


def _parse(segments: Segments, origins: list[tuple[Level, Ifd]]) -> TiffHeader | NeedBytes:
    found = _byte_form(segments)
    if isinstance(found, NeedBytes):
        return found
    form, first = found
    chain = _walk(segments, form, first)
    if isinstance(chain, NeedBytes):
        return chain
    notes = list(chain.warnings)
    needs, total = _missing(segments, chain.main, _MAIN_TAGS, notes)
    for ifd in (*chain.overviews, *chain.masks):
        more, size = _missing(segments, ifd, _LAYOUT_TAGS, notes)
        needs += more
        total += size
    if total > MAX_HEADER_BYTES:
        # Directories may share their tables, so this is more than what is fetched.
        raise HeaderError(f"the values of all directories take {total} bytes", tag="IFD")
    if needs:
        return _need(segments, needs)
    return _assemble(segments, form, chain, notes, origins)


def _byte_form(segments: Segments) -> tuple[ByteForm, int] | NeedBytes:
    """Read the first bytes of the file: byte order, version, where the first directory is."""
    size = segments.size
    if size is not None and size < 8:
        raise HeaderError(f"a file of {size} bytes is no TIFF", tag="magic")
    start = segments.get(0, 16) or segments.get(0, 8)
    if start is None:
        return NeedBytes(((0, 16 if size is None else min(16, size)),))
    order = {b"II": "<", b"MM": ">"}.get(bytes(start[:2]))
    if order is None:
        _refuse_by_magic(bytes(start[:12]))
    assert order is not None
    name = ByteForm(order, False).endian
    version = int.from_bytes(start[2:4], name)
    if version == 42:
        return ByteForm(order, False), int.from_bytes(start[4:8], name)
    if version != 43:
        raise HeaderError(f"version {version} is neither TIFF (42) nor BigTIFF (43)", tag="magic")
    if len(start) < 16:
        if size is None:
            return NeedBytes(((0, 16),))
        raise HeaderError("a BigTIFF of fewer than 16 bytes", tag="magic")
    if int.from_bytes(start[4:6], name) != 8:
        raise HeaderError("a BigTIFF whose offsets are not 8 bytes wide", tag="magic")
    return ByteForm(order, True), int.from_bytes(start[8:16], name)


def _refuse_by_magic(start: bytes) -> None:
    """Name what the file is instead of a TIFF."""
    if start.startswith((b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")):
        raise UnsupportedTiffError("the file is JPEG 2000, whatever its name says", tag="magic")
    if start.startswith(b"<"):
        raise HeaderError(
            "the file is XML or HTML, perhaps the error page of a server", tag="magic"
        )
    if start.startswith(b"version https://git-lfs"[:12]):
        raise HeaderError("the file is a Git LFS pointer, not the data", tag="magic")
    raise HeaderError("the file does not start as a TIFF does", tag="magic")


def _walk(segments: Segments, form: ByteForm, first: int) -> _Chain | NeedBytes:
    """Follow the chain of directories and sort them by their kind."""
    seen: set[int] = set()
    found: list[Ifd] = []
    warnings: list[str] = []
    pages = 0
    offset = first
    if offset == 0:
        raise HeaderError("the file has no directory", tag="IFD")
    while offset:
        if offset in seen:
            raise HeaderError(f"the directories form a loop at byte {offset}", tag="IFD")
        if len(found) >= MAX_IFDS:
            warnings.append(f"only the first {MAX_IFDS} directories were read")
            break
        seen.add(offset)
        try:
            ifd = read_ifd(segments, form, offset)
        except HeaderError as error:
            if not found:
                raise
            # The image itself is whole; what follows it is not, and GDAL passes over it too.
            warnings.append(
                f"directories after the first {len(found)} are damaged: {error.message}"
            )
            break
        if not isinstance(ifd, Ifd):
            return _need(segments, [ifd])
        found.append(ifd)
        pages = pages + 1 if _is_page(ifd, segments) else 0
        if pages > MAX_PAGES:
            warnings.append(f"only the first {len(found)} of many pages were looked at")
            break
        offset = ifd.next
    children = (
        _children(segments, form, found[0], seen, warnings) if 330 in found[0].entries else []
    )
    if isinstance(children, NeedBytes):
        return children
    return _sort(segments, found[0], [*found[1:], *children], warnings)


def _is_page(ifd: Ifd, segments: Segments) -> bool:
    """Whether a directory is an image of its own: none that belongs to another."""
    try:
        return not ifd.integer(254, segments, 0) & (_MASK | _REDUCED)
    except HeaderError:
        return True


def _children(
    segments: Segments, form: ByteForm, main: Ifd, seen: set[int], warnings: list[str]
) -> list[Ifd] | NeedBytes:
    """Read the sub-directories of the first directory, where some writers keep overviews."""
    needs, _ = _missing(segments, main, frozenset((330,)), warnings)
    if needs:
        return _need(segments, needs)
    found: list[Ifd] = []
    try:
        offsets = main.array(330, segments)
        for offset in [] if offsets is None else offsets[:MAX_IFDS].tolist():
            if offset in seen:
                continue
            seen.add(offset)
            ifd = read_ifd(segments, form, offset)
            if isinstance(ifd, Ifd):
                found.append(ifd)
            else:
                needs.append(ifd)
    except HeaderError as error:
        warnings.append(f"the sub-directories are damaged: {error.message}")
    return _need(segments, needs) if needs else found


def _sort(segments: Segments, main: Ifd, others: list[Ifd], warnings: list[str]) -> _Chain:
    overviews: list[Ifd] = []
    masks: list[Ifd] = []
    for ifd in others:
        kind = ifd.integer(254, segments, 0)
        if kind & _MASK:
            masks.append(ifd)
        elif kind & _REDUCED:
            overviews.append(ifd)
    return _Chain(main, tuple(overviews), tuple(masks), tuple(warnings))


def _missing(
    segments: Segments, ifd: Ifd, tags: frozenset[int], notes: list[str]
) -> tuple[list[tuple[int, int]], int]:
    """Return the byte ranges of values that are not yet known, and the bytes of all values.

    What is out of bounds is an error, or a note where the tag can be done without.
    """
    needs: list[tuple[int, int]] = []
    total = 0
    for tag, (start, stop) in list(ifd.outside.items()):
        if tag not in tags:
            continue
        wrong = ""
        if stop - start > (MAX_TEXT_BYTES if tag in _OPTIONAL else MAX_HEADER_BYTES):
            wrong = f"{tag_name(tag)} asks for {stop - start} bytes"
        elif segments.size is not None and stop > segments.size:
            wrong = f"{tag_name(tag)} lies past the end of the file"
        if wrong and tag not in _OPTIONAL:
            raise HeaderError(wrong, tag=tag_name(tag))
        if wrong:
            notes.append(f"{wrong} and is ignored")
            ifd.drop(tag)
            continue
        # Tables become 64-bit numbers whatever they are kept as.
        total += 8 * ifd.entries[tag][1] if tag in _TABLES else stop - start
        if segments.get(start, stop) is None:
            needs.append((start, stop))
    return needs, total


def _need(segments: Segments, ranges: list[tuple[int, int]]) -> NeedBytes:
    merged = merge_ranges(ranges)
    asked = sum(stop - start for start, stop in merged)
    if asked + segments.known > MAX_HEADER_BYTES + SLACK:
        raise HeaderError(f"the header asks for {asked} bytes", tag="IFD")
    return NeedBytes(merged)


def _assemble(
    segments: Segments,
    form: ByteForm,
    chain: _Chain,
    warnings: list[str],
    origins: list[tuple[Level, Ifd]],
) -> TiffHeader:
    main = read_level(segments, chain.main)
    origins.append((main, chain.main))
    levels = [main]
    sizes = {(main.width, main.height)}
    for ifd in chain.overviews:
        try:
            level = read_level(segments, ifd)
        except HeaderError as error:
            warnings.append(f"an overview was passed over: {error}")
            continue
        size = (level.width, level.height)
        if level.samples != main.samples or level.layout.dtype != main.layout.dtype:
            warnings.append("a reduced image of other bands or type is not taken for an overview")
        elif size in sizes:  # of another page, most likely
            warnings.append(f"a second reduced image of {size[0]} × {size[1]} is passed over")
        else:
            sizes.add(size)
            levels.append(level)
            origins.append((level, ifd))
    levels[1:] = sorted(levels[1:], key=lambda level: -level.width * level.height)
    warnings.extend(_past_the_end(segments.size, main))
    metadata = read_metadata(segments, chain.main, main)
    georef = read_georef(segments, chain.main, main)
    leader, trailer = read_ghost_area(segments)
    return TiffHeader(
        levels=tuple(levels),
        masks=_pair_masks(segments, levels, chain.masks, warnings, origins),
        crs=georef.crs,
        transform=georef.transform,
        gcps=georef.gcps,
        nodata=metadata.nodata,
        scales=metadata.scales,
        offsets=metadata.offsets,
        descriptions=metadata.descriptions,
        units=metadata.units,
        colormap=metadata.colormap,
        categories=metadata.categories,
        overview_resampling=metadata.overview_resampling,
        leader=leader,
        trailer=trailer,
        byte_order=form.order,
        bigtiff=form.big,
        size=segments.size,
        warnings=(*warnings, *georef.warnings, *metadata.warnings),
    )


def _past_the_end(size: int | None, level: Level) -> list[str]:
    """Tell how many tiles a truncated file lacks: the others can still be read."""
    if size is None:
        return []
    # Compared without adding, which could overflow.
    room = np.where(level.offsets < size, np.uint64(size) - level.offsets, np.uint64(0))
    lost = int(np.count_nonzero((level.counts > room) & (level.counts > 0)))
    return [f"{lost} tiles of {len(level.offsets)} lie past the end of the file"] if lost else []


def _pair_masks(
    segments: Segments,
    levels: list[Level],
    ifds: tuple[Ifd, ...],
    warnings: list[str],
    origins: list[tuple[Level, Ifd]],
) -> tuple[Level | None, ...]:
    """Give each level the mask that has its size."""
    by_size: dict[tuple[int, int], Level] = {}
    for ifd in ifds:
        try:
            mask = read_level(segments, ifd)
        except HeaderError as error:
            warnings.append(f"a mask was passed over: {error}")
            continue
        origins.append((mask, ifd))
        by_size.setdefault((mask.width, mask.height), mask)
    return tuple(by_size.get((level.width, level.height)) for level in levels)
