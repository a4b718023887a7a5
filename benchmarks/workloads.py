"""What is measured: the same work for everyone, in pixels of known images."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.data import BANDS, CORNERS, SIDE, Scene, scenes

Window = tuple[int, int, int, int]  # first row, first column, rows, columns
Job = Callable[[], Any]


class Unable(Exception):
    """This library cannot do this work."""


@dataclass(frozen=True)
class Workload:
    """A piece of work.

    `kind` says what comes out:

    - ``windows``: uint16 (windows, scenes, bands, rows, columns)
    - ``median``: the same reduced over scenes to NDVI's median, float32, and the sum of B02 and B03, uint32
    - ``warp``: uint16 (scenes, rows, columns) on the grid of EPSG:32633, nearest
    - ``points``: uint16 (scenes, points)
    - ``headers``: the number of assets indexed
    """

    name: str
    title: str
    kind: str
    variant: str
    scenes: tuple[Scene, ...]
    bands: tuple[str, ...]
    windows: tuple[Window, ...] = ()
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), "int64"))

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
    """The workload W1 … W7 on one variant of the images."""
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
    raise ValueError(f"no workload {name!r}")


def reduce_median(stack: np.ndarray, threads: int = 2) -> dict[str, np.ndarray]:
    """`stack` (scenes, 4 bands, rows, columns) → NDVI's median and the sum of B02 and B03, over scenes."""
    _, _, rows, columns = stack.shape
    ndvi = np.empty((rows, columns), "float32")
    visible = np.empty((rows, columns), "uint32")

    def part(first: int) -> None:
        block = stack[:, :, first : first + 64]
        red, nir = block[:, 2].astype("float32"), block[:, 3].astype("float32")
        ndvi[first : first + 64] = np.median((nir - red) / (nir + red), axis=0)
        visible[first : first + 64] = block[:, :2].sum(axis=(0, 1), dtype="uint32")

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, range(0, rows, 64)))
    return {"ndvi": ndvi, "visible": visible}
