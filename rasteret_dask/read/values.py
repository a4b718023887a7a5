"""What stored numbers mean where a read is no cube: scaled or decoded values, with NaN for nothing, as a cube has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.radiometry import DECODERS, Number, convert, valid_pixels
from rasteret_dask.plan.table import RawSources
from rasteret_dask.read.request import CubeRequest

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Meaning:
    """What becomes of the stored numbers of a band.

    Parameters
    ----------
    decode : str, optional
        The decoder; it stands above scale and offset.
    scaled : bool
        Scale and offset are applied.
    doubted : str, optional
        What the band is called, where its lowest numbers are held against the offset that is applied (`rasteret_dask.read.doubt`).
    """

    decode: str | None = None
    scaled: bool = False
    doubted: str | None = None

    @property
    def stored(self) -> bool:
        """The numbers stay as they are stored."""
        return self.decode is None and not self.scaled

    def dtype(self, native: np.dtype[Any]) -> np.dtype[Any]:
        """Type of the values of files of a type."""
        return native if self.stored else np.dtype(np.float32)

    def apply(self, stored: Array, nodata: Number, scale: float, add: float) -> Array:
        """Return values in float32, NaN for nothing; or the stored numbers themselves.

        Parameters
        ----------
        stored : ndarray
            In the file's own type.
        nodata : number, optional
            What the file calls nothing.
        scale, add : float
            Of the file.
        """
        if self.stored:
            return stored
        valid = valid_pixels(stored, nodata)
        if self.decode is not None:
            values: Array = DECODERS[self.decode](stored)
        else:
            values = convert(stored, np.dtype(np.float32), scale, add, valid)
        # What is neither scaled nor decoded may be the file's own memory.
        return values if valid is None else np.where(valid, values, np.float32(np.nan))


STORED = Meaning()


def meaning(asked: str, raw: RawSources, request: CubeRequest) -> Meaning:
    """Return what a request makes of a band's numbers: by the same rule as a cube, so the same for all files of the band.

    Raises
    ------
    ArgumentError
        If the descriptor names a decoder that there is not.
    """
    decoder = request.decoders.get(asked)
    if decoder is not None and decoder not in DECODERS:
        raise ArgumentError(f"no decoder {decoder!r}; there is {', '.join(DECODERS)}", band=asked)
    scaled = bool((raw.scales != 1.0).any() or (raw.adds != 0.0).any())
    return Meaning(decoder, request.scale and scaled)
