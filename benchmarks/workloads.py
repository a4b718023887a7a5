"""What is measured: the same work for everyone, in pixels of known images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.data import BANDS, CORNERS, SIDE, Scene, scenes

Array = np.ndarray[Any, Any]
Window = tuple[int, int, int, int]  # first row, first column, rows, columns
ALL = ("W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8", "W9")
PARTS = ("W8-one", "NDVI")
"""What this package is held against itself with: W8's window of a collection of that scene alone; one band, then two at once."""

BATCH = 16
"""Chips that a trainer takes at once (W9)."""


class Unable(Exception):
    """This library cannot do this work."""


def _as_it_is(result: Any) -> Any:
    return result


@dataclass(frozen=True)
class Job:
    """Work that is ready to be done.

    `run` is what the clock sees, and gives what this library gives (a dataset, a list of arrays, chunks on a cluster). `arrange` brings
    that to the shape that :class:`Workload` names, for the comparison: those copies are the benchmark's own, and no clock sees them.
    `client` is the cluster's, where there is one. What `run` writes into `stages` (seconds by name) is kept beside the measurement.
    """

    run: Callable[[], Any]
    arrange: Callable[[Any], Any] = _as_it_is
    client: Any = None
    stages: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Workload:
    """A piece of work.

    `kind` says what comes out:

    - ``windows``: uint16 (windows, scenes, bands, rows, columns)
    - ``median``: the same reduced over scenes to NDVI's median, float32, and the sum of B02 and B03, uint32
    - ``warp``: uint16 (scenes, rows, columns) on the grid of EPSG:32633, nearest
    - ``points``: uint16 (scenes, points)
    - ``headers``: the number of assets indexed
    - ``lazy``: uint16 (bands, rows, columns) of one scene among many, opened as a cube of them all
    - ``ndvi``: float32 (scenes, rows, columns) of two bands, after as much of one band elsewhere
    - ``chips``: the sum of the pixels of each chip, uint64; a trainer keeps no chip
    """

    name: str
    title: str
    kind: str
    variant: str
    scenes: tuple[Scene, ...]
    bands: tuple[str, ...]
    windows: tuple[Window, ...] = ()
    points: Array = field(default_factory=lambda: np.zeros((0, 2), "int64"))
    chips: tuple[
        tuple[int, int, int], ...
    ] = ()  # number of the scene, first row, first column; 256² pixels
    chosen: int = 0  # number of the scene that is read in the end (lazy)

    def around(self) -> Window:
        """The box of all points."""
        (r0, c0), (r1, c1) = self.points.min(0), self.points.max(0) + 1
        return int(r0), int(c0), int(r1 - r0), int(c1 - c0)

    def picked(self, block: Any) -> Any:
        """The points' pixels of that box."""
        r0, c0 = self.points.min(0)
        return block[:, self.points[:, 0] - r0, self.points[:, 1] - c0]

    def warm(self) -> Workload:
        """The same on one scene that is not part of the work: loads code, opens no file of the work."""
        stem = {32633: self.variant, 32632: "s2w"}
        spare = tuple(
            replace(
                scene,
                id=f"warm_{scene.epsg}_{self.variant}",
                paths={band: f"warm/{self.variant}/{scene.epsg}/{band}.tif" for band in BANDS},
                files=dict.fromkeys(BANDS, f"{stem[scene.epsg]}-0.tif"),
            )
            for scene in {scene.epsg: scene for scene in self.scenes}.values()
        )
        return replace(
            self,
            name=f"{self.name}-warm",
            scenes=spare,
            windows=tuple((row, column, 128, 128) for row, column, *_ in self.windows[:1]),
            points=self.points[:4],
            chips=tuple((0, row, column) for _, row, column in self.chips[:BATCH]),
            chosen=0,
        )

    def bounds(self, window: Window) -> tuple[float, float, float, float]:
        """Left, bottom, right, top of a window in EPSG:32633, in metres."""
        left, top = CORNERS[32633]
        row, column, rows, columns = window
        x, y = left + column * 10, top - row * 10
        return x, y - rows * 10, x + columns * 10, y


def _positions(seed: int, count: int, side: int) -> tuple[Window, ...]:
    random = np.random.default_rng(seed)
    return tuple(
        (int(r), int(c), side, side) for r, c in random.integers(512, SIDE - side - 512, (count, 2))
    )


def make(name: str, variant: str = "s2") -> Workload:
    """The workload W1 … W9 on one variant of the images."""
    if name == "W1":
        return Workload(
            name, "one 256² window × 15 scenes", "windows", variant,
            tuple(scenes(variant, 15)), ("B04",), _positions(11, 1, 256),
        )  # fmt: skip
    if name == "W2":
        return Workload(
            name, "four 256² windows × 30 scenes", "windows", variant,
            tuple(scenes(variant, 30)), ("B04",), _positions(22, 4, 256),
        )  # fmt: skip
    if name == "W3":
        both = (*scenes("s2", 6, 32633), *scenes("s2", 6, 32632))
        return Workload(
            name, "two UTM zones → one 512² grid, 12 scenes", "warp", "s2",
            tuple(sorted(both, key=lambda scene: scene.when)), ("B04",), ((5000, 5200, 512, 512),),
        )  # fmt: skip
    if name == "W4":
        return Workload(
            name, "2048² × 30 scenes × 4 bands → median NDVI", "median", variant,
            tuple(scenes(variant, 30)), BANDS, _positions(44, 1, 2048),
        )  # fmt: skip
    if name == "W5":
        random = np.random.default_rng(55)
        corner = random.integers(512, SIDE - 3500, 2)
        return Workload(
            name, "10,000 points within 30 km × 30 scenes", "points", variant,
            tuple(scenes(variant, 30)), ("B04",), (),
            corner + random.integers(0, 3000, (10_000, 2)),
        )  # fmt: skip
    if name == "W6":
        return Workload(
            name, "headers of 480 assets → collection", "headers", variant,
            tuple(scenes(variant, 120)), BANDS,
        )  # fmt: skip
    if name == "W7":
        return Workload(
            name, "one whole scene, 4 bands", "windows", variant,
            tuple(scenes(variant, 1)), BANDS, ((0, 0, SIDE, SIDE),),
        )  # fmt: skip
    if name == "W8":
        return Workload(
            name, "1,000 scenes × 4 bands opened lazily, one 256² window computed", "lazy", variant,
            tuple(scenes(variant, 1000)), BANDS, ((4000, 6000, 256, 256),), chosen=500,
        )  # fmt: skip
    if name == "W8-one":
        whole = make("W8", variant)
        return replace(whole, name=name, title="W8's window of its scene alone",
            scenes=(whole.scenes[whole.chosen],), chosen=0)  # fmt: skip
    if name == "NDVI":
        # Each window within one tile: what it takes is the way to the server and back.
        return Workload(
            name, "one 128² window of one band, then NDVI of two bands in another", "ndvi", variant,
            tuple(scenes(variant, 1)), ("B04", "B08"),
            ((1100, 1100, 128, 128), (5200, 5200, 128, 128)),
        )  # fmt: skip
    if name == "W9":
        random = np.random.default_rng(99)
        places = zip(*(random.integers(0, high, 4000) for high in (30, SIDE - 256, SIDE - 256)))
        return Workload(
            name, "4,000 random 256² chips of 30 scenes, one band", "chips", variant,
            tuple(scenes(variant, 30)), ("B04",), chips=tuple((int(s), int(r), int(c)) for s, r, c in places),
        )  # fmt: skip
    raise ValueError(f"no workload {name!r}")


_ROWS = 64
"""Rows that are reduced at once: 16 MB of float32 for thirty scenes of 2048 columns, near enough to a processor's cache."""


def median_ndvi(red: Array, nir: Array) -> Array:
    """(scenes, rows, columns) of red and near infrared → NDVI's median over scenes, float32; the arithmetic of W4 for everyone."""
    found = np.empty(red.shape[1:], "float32")
    for cut in _cuts(red):
        r, n = red[cut].astype("float32"), nir[cut].astype("float32")
        found[cut[1]] = np.median((n - r) / (n + r), axis=0)
    return found


def sum_visible(blue: Array, green: Array) -> Array:
    """(scenes, rows, columns) of B02 and B03 → the sum of both over scenes, uint32."""
    found = np.empty(blue.shape[1:], "uint32")
    for cut in _cuts(blue):
        both = blue[cut].sum(axis=0, dtype="uint32"), green[cut].sum(axis=0, dtype="uint32")
        np.add(*both, out=found[cut[1]])
    return found


def _cuts(array: Array) -> list[tuple[slice, slice]]:
    return [np.s_[:, first : first + _ROWS] for first in range(0, array.shape[1], _ROWS)]


def reduce_median(bands: Sequence[Array], threads: int = 2) -> dict[str, Array]:
    """Four arrays of (scenes, rows, columns) → NDVI's median and the sum of B02 and B03, over scenes."""
    blue, green, red, nir = bands

    def part(cut: tuple[slice, slice]) -> tuple[Array, Array]:
        return median_ndvi(red[cut], nir[cut]), sum_visible(blue[cut], green[cut])

    with ThreadPoolExecutor(threads) as pool:
        ndvi, visible = zip(*pool.map(part, _cuts(blue)), strict=True)
    return {"ndvi": np.concatenate(ndvi), "visible": np.concatenate(visible)}


def reduce_lazily(cube: Any) -> tuple[Any, Any]:
    """The same of a cube of xarray whose chunks hold all of time: NDVI's median and the sum, lazy.

    By :func:`xarray.map_blocks`, which hands chunks over as they are: `apply_ufunc`, and Dask's own `map_blocks` where an axis goes,
    copy each into a new array first, although there is but one (decision 66).
    """
    # Not at the top: peers without xarray are measured too, and what they need of memory must not hold it.
    import xarray as xr

    bands = cube[["B02", "B03", "B04", "B08"]].reset_coords(drop=True)

    def over(function: Callable[[Array, Array], Array], names: list[str], dtype: str) -> Any:
        def reduced(block: Any) -> Any:
            pixels = function(*(block[name].values for name in names))
            return xr.DataArray(pixels, {name: block[name] for name in ("y", "x")}, ("y", "x"))

        template = bands[names[0]].isel(time=0, drop=True).astype(dtype)
        return xr.map_blocks(reduced, bands[names], template=template.rename(None))

    return over(median_ndvi, ["B04", "B08"], "float32"), over(sum_visible, ["B02", "B03"], "uint32")


def split(stack: Array) -> list[Array]:
    """(scenes, bands, rows, columns) → one array of (scenes, rows, columns) for each band; no copies."""
    return [stack[:, b] for b in range(stack.shape[1])]
