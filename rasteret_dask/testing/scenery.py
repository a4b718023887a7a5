"""A made-up landscape as a function of longitude and latitude.

Images of it in any projection show the same ground, so a seam between two UTM zones, a shift by
half a pixel or a warp gone wrong is plain to see, and can be measured against
:meth:`Scenery.observe` itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import ArgumentError

FloatArray = npt.NDArray[np.float64]

BANDS = ("blue", "green", "red", "nir")

# Surface reflectance × 10,000 of each cover, in the order of BANDS.
_WATER = (350.0, 420.0, 240.0, 130.0)
_FOREST = (240.0, 430.0, 270.0, 2700.0)
_CROP = (380.0, 760.0, 410.0, 4300.0)
_SOIL = (900.0, 1250.0, 1650.0, 2350.0)
_STONE = (1250.0, 1450.0, 1600.0, 1950.0)
_CLOUD = (7900.0, 7700.0, 7600.0, 7900.0)

# Sentinel-2's scene classification.
_SHADOW, _VEGETATION, _BARE, _WATER_CLASS = 3, 4, 5, 6
_CLOUD_MEDIUM, _CLOUD_HIGH, _CIRRUS = 8, 9, 10

# The value of the cloud field above which there are clouds, date after date: from fair to overcast.
_CLOUDINESS = (0.62, 0.53, 0.70, 0.57, 0.66, 0.48)


@dataclass(frozen=True, slots=True)
class Ground:
    """What does not change from date to date at a set of points; made by :meth:`Scenery.ground`."""

    u: FloatArray
    v: FloatArray
    forest: FloatArray
    stone: FloatArray
    water: FloatArray
    phase: FloatArray
    shade: FloatArray


@dataclass(frozen=True, slots=True)
class Scenery:
    """A landscape with parcels, forest, a river, stone, and clouds that drift.

    Parameters
    ----------
    longitude, latitude : float
        Degrees; the middle.
    extent : float
        Metres across which there is something of everything to be seen.
    seed : int
        Another landscape.
    """

    longitude: float = 12.0
    latitude: float = 47.2
    extent: float = 10_240.0
    seed: int = 7

    def __post_init__(self) -> None:
        if self.extent <= 0:
            raise ArgumentError(f"extent is {self.extent}; it must be positive")

    def ground(self, longitude: npt.ArrayLike, latitude: npt.ArrayLike) -> Ground:
        """The covers at some points.

        Parameters
        ----------
        longitude, latitude : array-like
            Degrees, of one shape.
        """
        u = (np.asarray(longitude, "float64") - self.longitude) * (
            111_320.0 * np.cos(np.radians(self.latitude))
        )
        v = (np.asarray(latitude, "float64") - self.latitude) * 110_574.0
        big = self.extent / 3
        relief = _noise(u, v, big, self.seed, 6)
        river = np.abs(_noise(u, v, big * 1.5, self.seed + 1, 3) - 0.5)
        parcel, edge = _parcels(u, v, self.extent / 34, self.seed + 2)
        return Ground(
            u=u,
            v=v,
            forest=_ramp(relief, 0.54, 0.56),
            stone=_ramp(_noise(u, v, big / 2, self.seed + 3, 5), 0.66, 0.69),
            water=1.0 - _ramp(river, 0.008, 0.011),
            phase=parcel,
            shade=(0.80 + 0.35 * _noise(u, v, big / 24, self.seed + 4, 3)) * (1.0 - 0.15 * edge),
        )

    def observe(self, ground: Ground, step: int) -> dict[str, FloatArray]:
        """Reflectance × 10,000 of each of `BANDS` on date `step`, with clouds and shadows."""
        green = 0.5 + 0.5 * np.sin(2 * np.pi * ground.phase + 0.55 * step)
        cloud, shadow = self._clouds(ground, step)
        bands = {}
        for index, band in enumerate(BANDS):
            value = _SOIL[index] + (_CROP[index] - _SOIL[index]) * green
            for cover, dn in (
                (ground.forest, _FOREST),
                (ground.stone, _STONE),
                (ground.water, _WATER),
            ):
                value = value + (dn[index] - value) * cover
            value = value * ground.shade * (1.0 - 0.55 * shadow)
            bands[band] = value + (_CLOUD[index] - value) * cloud
        return bands

    def classify(self, ground: Ground, step: int) -> npt.NDArray[np.uint8]:
        """Sentinel-2's scene classes on date number `step`; every cloud and shadow is found."""
        green = 0.5 + 0.5 * np.sin(2 * np.pi * ground.phase + 0.55 * step)
        cloud, shadow = self._clouds(ground, step)
        classes = np.where((green > 0.3) | (ground.forest > 0.5), _VEGETATION, _BARE)
        classes = np.where(ground.stone > 0.5, _BARE, classes)
        classes = np.where(ground.water > 0.5, _WATER_CLASS, classes)
        classes = np.where(shadow > 0, _SHADOW, classes)
        classes = np.where(cloud > 0, _CIRRUS, classes)
        classes = np.where(cloud > 0.15, _CLOUD_MEDIUM, classes)
        return np.where(cloud > 0.6, _CLOUD_HIGH, classes).astype("uint8")

    def _clouds(self, ground: Ground, step: int) -> tuple[FloatArray, FloatArray]:
        threshold = _CLOUDINESS[step % len(_CLOUDINESS)]
        seed = self.seed + 100 + step
        drift = 0.11 * self.extent * step
        cast = 0.04 * self.extent
        size = self.extent / 3.5

        def at(du: float, dv: float) -> FloatArray:
            field = _noise(ground.u - drift + du, ground.v + dv, size, seed, 5)
            return _ramp(field, threshold, threshold + 0.06)

        return at(0.0, 0.0), at(cast, -cast)


def _ramp(values: FloatArray, low: float, high: float) -> FloatArray:
    """0 below `low`, 1 above `high`, linear in between."""
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def _hash(i: npt.NDArray[np.int64], j: npt.NDArray[np.int64], seed: int) -> FloatArray:
    """A number in [0, 1) for each cell of an endless lattice."""
    h: Any = i.astype("uint32") * np.uint32(374_761_393)
    h = h + j.astype("uint32") * np.uint32(668_265_263)
    h = h + np.uint32((seed * 2_246_822_519) % 2**32)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(1_274_126_177)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(2_654_435_761)
    values: FloatArray = (h ^ (h >> np.uint32(16))) / 2.0**32
    return values


def _noise(u: FloatArray, v: FloatArray, size: float, seed: int, octaves: int) -> FloatArray:
    """Value noise about 0.5, within [0, 1]: features of `size` metres, halved with every octave."""
    total: Any = 0.0
    for octave in range(octaves):
        # Each octave is turned by a radian, or the lattices would show.
        turn = 1.0 * octave + 0.3
        s = (np.cos(turn) * u - np.sin(turn) * v) / size * 2**octave
        t = (np.sin(turn) * u + np.cos(turn) * v) / size * 2**octave
        i, j = np.floor(s).astype("int64"), np.floor(t).astype("int64")
        s, t = s - i, t - j
        s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
        here = seed * 31 + octave
        top = _hash(i, j, here) * (1 - s) + _hash(i + 1, j, here) * s
        bottom = _hash(i, j + 1, here) * (1 - s) + _hash(i + 1, j + 1, here) * s
        total = total + (top * (1 - t) + bottom * t) * 0.5**octave
    values: FloatArray = total / (2 - 2 * 0.5**octaves)
    return values


def _parcels(u: FloatArray, v: FloatArray, size: float, seed: int) -> tuple[FloatArray, FloatArray]:
    """For each point the number in [0, 1) of its parcel, and 1 near the parcel's border."""
    i, j = np.floor(u / size).astype("int64"), np.floor(v / size).astype("int64")
    nearest = np.full(u.shape, np.inf)
    second = np.full(u.shape, np.inf)
    number = np.zeros(u.shape)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            x = (i + di + 0.15 + 0.7 * _hash(i + di, j + dj, seed)) * size
            y = (j + dj + 0.15 + 0.7 * _hash(i + di, j + dj, seed + 1)) * size
            # The greater of both differences gives straight borders, as fields have.
            distance = np.maximum(np.abs(u - x), np.abs(v - y))
            closer = distance < nearest
            second = np.minimum(second, np.where(closer, nearest, distance))
            number = np.where(closer, _hash(i + di, j + dj, seed + 2), number)
            nearest = np.minimum(nearest, distance)
    return number, 1.0 - _ramp(second - nearest, 0.02 * size, 0.08 * size)
