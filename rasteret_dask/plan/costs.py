"""What reading a band costs, as numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BandCost:
    """What one band costs.

    Parameters
    ----------
    requests, bytes, tiles, tasks : int
        Tiles are those fetched, mask tiles included.
    pixels_fetched, pixels_used : int
        Pixels of the fetched tiles, and how many of them the plan needs.
    peak_chunk_bytes : int
        Memory of the largest chunk.
    """

    requests: int = 0
    bytes: int = 0
    tiles: int = 0
    tasks: int = 0
    pixels_fetched: int = 0
    pixels_used: int = 0
    peak_chunk_bytes: int = 0

    def plus(self, other: BandCost) -> BandCost:
        """Both together; the peak is that of the larger."""
        return BandCost(
            requests=self.requests + other.requests,
            bytes=self.bytes + other.bytes,
            tiles=self.tiles + other.tiles,
            tasks=self.tasks + other.tasks,
            pixels_fetched=self.pixels_fetched + other.pixels_fetched,
            pixels_used=self.pixels_used + other.pixels_used,
            peak_chunk_bytes=max(self.peak_chunk_bytes, other.peak_chunk_bytes),
        )

    @property
    def used_share(self) -> float:
        """Share of the fetched pixels that is used, 0 to 1."""
        return self.pixels_used / self.pixels_fetched if self.pixels_fetched else 1.0
