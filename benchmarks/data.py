"""Generated scenes: few images on disk, served under the names of many.

    python -m benchmarks.data [FOLDER]

Three variants of images with 10,980² pixels of uint16, each with overviews:

- ``s2``: 1024-pixel tiles, deflate, predictor 2, as Sentinel-2 on AWS (there in EPSG:32633 and :32632)
- ``pc``: 15 bits a sample, 512-pixel tiles, deflate, no predictor, as Planetary Computer's
- ``zstd``: 256-pixel tiles, ZSTD, predictor 2
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pyproj import Transformer

SIDE = 10980
BANDS = ("B02", "B03", "B04", "B08")
COMMON = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir"}
# Upper left corners of both tiles; they share most of their ground (about 15° E is central to zone 33).
CORNERS = {32633: (300_000.0, 5_300_040.0), 32632: (753_000.0, 5_313_000.0)}
VARIANTS = {"s2": 4, "pc": 4, "zstd": 2}
_OPTIONS: dict[str, dict[str, Any]] = {
    "s2": {"blocksize": 1024, "compress": "deflate", "predictor": 2},
    "pc": {"blocksize": 512, "compress": "deflate", "predictor": 1, "nbits": 15},
    "zstd": {"blocksize": 256, "compress": "zstd", "predictor": 2},
}


def folder(given: str | None = None) -> Path:
    """Where the images are: the argument, else ``$RASTERET_BENCH_DATA``, else ``./bench-data``."""
    return Path(given or os.environ.get("RASTERET_BENCH_DATA") or "bench-data").resolve()


def pixels(number: int, side: int = SIDE) -> np.ndarray:
    """Image `number`: land-like digital numbers, never 0, below 2**15."""
    random = np.random.default_rng([2026, number])
    ramp = np.linspace(0, 2 * np.pi, side, dtype="float32")
    field = np.full((side, side), 1400, "float32")
    for scale in (1, 3, 7, 19):
        phase = random.uniform(0, 2 * np.pi, 2).astype("float32")
        down, across = np.sin(scale * ramp + phase[0]), np.cos(1.3 * scale * ramp + phase[1])
        field += (420 / scale**0.5) * down[:, None] * across[None, :]
    # Parcels of 23 pixels give edges; the noise sets the compression ratio (about 1.7).
    count = side // 23 + 1
    parcels = random.uniform(0.6, 1.6, (count, count)).astype("float32")
    field *= np.repeat(np.repeat(parcels, 23, 0)[:side], 23, 1)[:, :side]
    field += random.standard_normal((side, side), dtype="float32") * 20
    image: np.ndarray[Any, Any] = np.clip(field, 1, 32767).astype("uint16")
    return image


def generate(root: Path, variants: tuple[str, ...] = tuple(VARIANTS), side: int = SIDE) -> None:
    """Write what is not there yet."""
    # Not at the top: processes that measure a peer, some in an environment of its own, need none of it.
    from rasteret_dask.testing.cog import make_cog

    root.mkdir(parents=True, exist_ok=True)
    for number in range(max(VARIANTS[variant] for variant in variants)):
        missing = [
            variant
            for variant in variants
            if number < VARIANTS[variant] and not (root / f"{variant}-{number}.tif").exists()
        ]
        image = pixels(number, side) if missing else None
        for variant in missing:
            started = time.perf_counter()
            left, top = CORNERS[32633]
            partial = root / f"{variant}-{number}.partial"
            assert image is not None
            make_cog(
                partial,
                image,
                transform=(10, 0, left, 0, -10, top),
                crs="EPSG:32633",
                nodata=0,
                resampling="average",
                num_threads=os.cpu_count() or 1,
                level=1 if variant == "zstd" else 6,
                **_OPTIONS[variant],
            )
            os.replace(partial, root / f"{variant}-{number}.tif")
            size = (root / f"{variant}-{number}.tif").stat().st_size
            print(
                f"{variant}-{number}.tif: {size / 1e6:.0f} MB, ratio {image.nbytes * 4 / 3 / size:.2f}, "
                f"{time.perf_counter() - started:.1f} s"
            )
    for number in range(2):
        if "s2" in variants:
            move_to_zone_32(root / f"s2-{number}.tif", root / f"s2w-{number}.tif")


def move_to_zone_32(source: Path, target: Path) -> None:
    """Copy an image with another georeference written over the one in its header."""
    if target.exists():
        return
    partial = target.with_suffix(".partial")
    shutil.copyfile(source, partial)
    with open(partial, "r+b") as stream:
        head = stream.read(65536)
        replacements = [
            (struct.pack("<4H", 3072, 0, 1, 32633), struct.pack("<4H", 3072, 0, 1, 32632)),
            (struct.pack("<2d", *CORNERS[32633]), struct.pack("<2d", *CORNERS[32632])),
            (b"UTM zone 33N", b"UTM zone 32N"),
        ]
        for old, new in replacements:
            if head.count(old) != 1:
                raise RuntimeError(f"{source}: {old!r} is there {head.count(old)} times")
            head = head.replace(old, new)
        stream.seek(0)
        stream.write(head)
    os.replace(partial, target)


@dataclass(frozen=True)
class Scene:
    """One item: its name, time, EPSG code, and the path of each band below the server's root."""

    id: str
    when: dt.datetime
    epsg: int
    paths: dict[str, str]
    files: dict[str, str]

    @property
    def transform(self) -> tuple[float, ...]:
        left, top = CORNERS[self.epsg]
        return (10.0, 0.0, left, 0.0, -10.0, top)

    def stac(self, root: str) -> dict[str, Any]:
        """A STAC item as Earth Search writes it, hrefs below `root`."""
        left, top = CORNERS[self.epsg]
        to_lonlat = Transformer.from_crs(f"EPSG:{self.epsg}", "OGC:CRS84", always_xy=True)
        side = SIDE * 10.0
        corners = [(0, 0), (0, side), (side, side), (side, 0), (0, 0)]
        ring = [list(to_lonlat.transform(left + dx, top - dy)) for dx, dy in corners]
        xs, ys = [x for x, _ in ring], [y for _, y in ring]
        stamp = self.when.isoformat() + "Z"
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": [
                "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
                "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
                "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
            ],
            "id": self.id,
            "collection": "sentinel-2-l2a",
            "bbox": [min(xs), min(ys), max(xs), max(ys)],
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {
                "datetime": stamp,
                "proj:epsg": self.epsg,
                "eo:cloud_cover": 10.0,
                "s2:processing_baseline": "05.09",
                "earthsearch:boa_offset_applied": True,
            },
            "links": [],
            "assets": {
                band: {
                    "href": f"{root}/{path}",
                    "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                    "roles": ["data"],
                    "proj:shape": [SIDE, SIDE],
                    "proj:transform": list(self.transform),
                    "eo:bands": [{"name": band, "common_name": COMMON[band]}],
                    "raster:bands": [{"nodata": 0, "data_type": "uint16"}],
                }
                for band, path in self.paths.items()
            },
        }


def scenes(variant: str, count: int, epsg: int = 32633) -> list[Scene]:
    """`count` dates of one tile. Bands and dates take turns at the images, so no two neighbours are equal."""
    images = 2 if epsg == 32632 else VARIANTS[variant]
    stem = "s2w" if epsg == 32632 else variant
    made = []
    for number in range(count):
        when = dt.datetime(2023, 1, 1, 10, 0, 30 if epsg == 32632 else 15) + dt.timedelta(
            days=number
        )
        name = f"S2A_{epsg}_{variant}_{when:%Y%m%d}"
        made.append(
            Scene(
                name,
                when,
                epsg,
                {band: f"{variant}/{name}/{band}.tif" for band in BANDS},
                {
                    band: f"{stem}-{(number + place) % images}.tif"
                    for place, band in enumerate(BANDS)
                },
            )
        )
    return made


def aliases(made: list[Scene]) -> dict[str, str]:
    """What the server must know to answer for these scenes."""
    return {scene.paths[band]: scene.files[band] for scene in made for band in scene.paths}


@dataclass(frozen=True)
class Level:
    """Full resolution of an image: tile size, bits, and where its tiles are."""

    tile: int
    bits: int
    compression: int
    predictor: int
    offsets: np.ndarray
    counts: np.ndarray


def level(path: Path) -> Level:
    """Read by tifffile: what the floor knows beforehand."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        shape = (-(-page.imagelength // page.tilelength), -(-page.imagewidth // page.tilewidth))
        return Level(
            page.tilewidth,
            page.bitspersample,
            int(page.compression),
            int(page.predictor),
            np.array(page.dataoffsets, "int64").reshape(shape),
            np.array(page.databytecounts, "int64").reshape(shape),
        )


if __name__ == "__main__":
    generate(folder(sys.argv[1] if len(sys.argv) > 1 else None))
