"""One tree of exceptions; each survives pickling from a worker to the client.

Every class takes the same keyword arguments that say *where* something went wrong, so that code which knows
more (the item, the band) can add it to an error raised by code which knows less (the tile).
"""

from __future__ import annotations

from typing import Any, Self

_WHERE = ("item", "band", "url", "level", "tile", "range", "tag", "path")


_context: Any = vars(BaseException)["__context__"]


class RasteretError(Exception):
    """Base of everything this package raises on purpose.

    Parameters
    ----------
    message : str
        What was wrong, in one sentence.
    hint : str, optional
        What to do about it.
    item, band, url : str, optional
        The STAC item, the band and the *unsigned* URL concerned.
    level : int, optional
        0 for full resolution, 1 for the first overview, and so on.
    tile : tuple of int, optional
        ``(row, column)`` of the tile within its level; a third number is the plane.
    range : tuple of int, optional
        ``(start, stop)`` bytes within the file.
    tag : str, optional
        The TIFF tag that was wrong.
    path : str, optional
        The key of a configuration, as ``cube.bands[1]``.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        item: str | None = None,
        band: str | None = None,
        url: str | None = None,
        level: int | None = None,
        tile: tuple[int, ...] | None = None,
        range: tuple[int, int] | None = None,
        tag: str | None = None,
        path: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.item = item
        self.band = band
        self.url = url
        self.level = level
        self.tile = tile
        self.range = range
        self.tag = tag
        self.path = path

    def _fields(self) -> dict[str, Any]:
        names = ("hint", *_WHERE)
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def located(self, **where: Any) -> Self:
        """Return a copy that also says where it happened; what is known already is kept."""
        return type(self)(self.message, **{**where, **self._fields()})

    # distributed (by way of tblib) pickles what was being handled when an error was raised, ``from None`` or not. That may be a store's
    # own error, whose text holds a signature, or one that cannot be pickled at all (isal's), and then ours would be lost with it.
    @property
    def __context__(self) -> BaseException | None:
        return None if self.__suppress_context__ else _context.__get__(self)

    @__context__.setter
    def __context__(self, value: BaseException | None) -> None:
        _context.__set__(self, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self._fields())

    def __str__(self) -> str:
        where = ", ".join(f"{n}={v!r}" for n in _WHERE if (v := getattr(self, n)) is not None)
        text = self.message if not where else f"{self.message} [{where}]"
        return text if self.hint is None else f"{text}\n  {self.hint}"


def _rebuild(cls: type[RasteretError], message: str, fields: dict[str, Any]) -> RasteretError:
    return cls(message, **fields)


class RasteretWarning(UserWarning):
    """Something that is probably not what was meant."""


# --- what the caller asked for -------------------------------------------------------------------
class ArgumentError(RasteretError, ValueError):
    """An argument, or a combination of them, that cannot mean anything."""


class ConfigError(ArgumentError):
    """A YAML file or a ``--set`` value that is wrong; ``path`` names the key."""


class UnknownBandError(ArgumentError):
    """A band that no item has, or a name that more than one band answers to."""


class MissingBandError(RasteretError):
    """A band that some of the selected items lack."""


class UnknownDatasetError(ArgumentError):
    """A dataset id that no catalogue holds."""


class EmptySelectionError(ArgumentError):
    """A search, or a selection of a collection, that holds nothing."""


class GridError(ArgumentError):
    """An output grid that cannot be made, or a source that does not fit onto one."""


class NodataError(ArgumentError):
    """Gaps that no nodata value of the source, the descriptor or the caller can fill."""


# --- the files -----------------------------------------------------------------------------------
class HeaderError(RasteretError):
    """A TIFF header that contradicts itself or the file that it is in."""


class UnsupportedTiffError(HeaderError):
    """A TIFF that is well formed, but of a kind this package does not read."""


class TileReadError(RasteretError):
    """A tile whose bytes could not be had, do not decode, or decode to the wrong size."""


class SourceError(RasteretError):
    """Bytes that could not be had: a missing file, a refusal, a server that ignores ``Range``."""


class NotFoundError(SourceError):
    """A file that is not there (404, or no such local file)."""


class AccessError(SourceError):
    """A file that we may not read (401, 403)."""


class RangeIgnoredError(SourceError):
    """A server that answers a range request with the whole file."""


class TransientError(SourceError):
    """An error that a retry may cure (408, 429, 5xx, time-outs, resets, short bodies)."""


class StaleIndexError(SourceError):
    """A file that has changed since its header was indexed."""


# --- collections ---------------------------------------------------------------------------------
class CollectionError(RasteretError):
    """A collection that cannot be opened or written."""


class SchemaVersionError(CollectionError):
    """A collection, commit or record written by a newer version of this package."""


class CommitConflictError(CollectionError):
    """Another builder committed first."""


class BuildMismatchError(CollectionError):
    """A collection of this name exists and was built with other arguments."""


class DuplicateItemError(CollectionError):
    """Two different items with one id."""


class PipelineError(RasteretError):
    """A pipeline that started and could not be finished."""


class RunInterruptedError(PipelineError):
    """A run that was broken off from outside (its cluster was lost); what is finished is kept, and it can go on."""


class WorkersKilledError(RunInterruptedError):
    """A run that was broken off because its workers died of one of its tasks; others may come to their end on the same cluster."""
