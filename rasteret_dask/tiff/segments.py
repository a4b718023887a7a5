"""The known byte ranges of a file, so that parsing needs no I/O."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NeedBytes:
    """What a parser must see before it can go on.

    Parameters
    ----------
    ranges : tuple of (int, int)
        Half-open ``(start, stop)`` byte ranges, sorted, none touching another.
    """

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Segments:
    """Byte ranges of one file, as far as they have been fetched.

    Parameters
    ----------
    parts : tuple of (int, bytes)
        ``(first byte, data)``, sorted and merged where they touch.
    size : int, optional
        Bytes of the whole file, when known.
    """

    parts: tuple[tuple[int, bytes], ...] = ()
    size: int | None = None

    @classmethod
    def whole(cls, data: bytes) -> Segments:
        """Return the segments of a file that is in memory entirely."""
        return cls(((0, data),), len(data))

    def add(self, start: int, data: bytes, size: int | None = None) -> Segments:
        """Return a copy that also knows ``data`` at ``start`` (and the size of the file)."""
        merged: list[tuple[int, bytes]] = []
        for first, piece in sorted([*self.parts, (start, bytes(data))], key=lambda part: part[0]):
            if merged and first <= merged[-1][0] + len(merged[-1][1]):
                before, known = merged[-1]
                if first + len(piece) > before + len(known):
                    merged[-1] = (before, known + piece[before + len(known) - first :])
            else:
                merged.append((first, piece))
        return Segments(tuple(merged), self.size if size is None else size)

    def get(self, start: int, stop: int) -> memoryview | None:
        """Return bytes ``start:stop``, or None when they are not all known."""
        for first, data in self.parts:
            if first <= start and stop <= first + len(data):
                return memoryview(data)[start - first : stop - first]
        return None

    @property
    def start(self) -> bytes | None:
        """The file from its first byte, when that is all that is known; else None."""
        one = len(self.parts) == 1 and self.parts[0][0] == 0
        return self.parts[0][1] if one else None

    @property
    def known(self) -> int:
        """Bytes held in all."""
        return sum(len(data) for _, data in self.parts)


def merge_ranges(ranges: list[tuple[int, int]], gap: int = 4096) -> tuple[tuple[int, int], ...]:
    """Sort ranges and join those that are at most ``gap`` bytes apart."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1] + gap:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)
