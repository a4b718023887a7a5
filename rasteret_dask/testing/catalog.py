"""A small static STAC catalogue that looks like Sentinel-2 on Earth Search, made from nothing."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from pyproj import Transformer

from rasteret_dask.errors import ArgumentError
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.scenery import BANDS, Scenery

COLLECTION = "sentinel-2-l2a"
DATES = ("2023-07-03", "2023-07-08", "2023-07-13", "2023-07-18")

_FILES = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08"}
_WAVELENGTHS = {"blue": 0.49, "green": 0.56, "red": 0.665, "nir": 0.842}
_EXTENSIONS = tuple(
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("raster/v1.1.0", "mgrs/v1.0.0", "grid/v1.0.0", "projection/v1.1.0", "eo/v1.1.0")
)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of the grid: its MGRS name, EPSG code, and corner in metres; `size` pixels of 10
    m."""

    name: str
    epsg: int
    left: float
    top: float
    size: int
    delay: float
    wedge: bool

    def transform(self, resolution: float = 10.0) -> Affine:
        """Of pixel corners."""
        return Affine(resolution, 0.0, self.left, 0.0, -resolution, self.top)

    def lonlat(self, resolution: float = 10.0) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Longitude and latitude of every pixel's centre, each of shape (rows, columns)."""
        n = round(self.size * 10 / resolution)
        along = (np.arange(n) + 0.5) * resolution
        x, y = np.meshgrid(self.left + along, self.top - along)
        longitude, latitude = _to_lonlat(self.epsg).transform(x, y)
        return longitude, latitude

    def valid(self, step: int, resolution: float = 10.0) -> npt.NDArray[np.bool_]:
        """False beyond the edge of the swath, which cuts the west off on every other date."""
        n = round(self.size * 10 / resolution)
        if not (self.wedge and step % 2):
            return np.ones((n, n), dtype=bool)
        rows, columns = np.mgrid[:n, :n] + 0.5
        first: npt.NDArray[np.bool_] = columns / n >= _WEDGE_TOP + (_WEDGE_FOOT - _WEDGE_TOP) * (
            rows / n
        )
        return first

    def outline(self, step: int) -> list[list[float]]:
        """The footprint's ring in longitude and latitude, counter-clockwise."""
        side = self.size * 10.0
        cut = self.wedge and step % 2
        top, foot = (_WEDGE_TOP, _WEDGE_FOOT) if cut else (0.0, 0.0)
        corners = [(top, 0.0), (foot, 1.0), (1.0, 1.0), (1.0, 0.0), (top, 0.0)]
        ring = [
            _to_lonlat(self.epsg).transform(self.left + across * side, self.top - down * side)
            for across, down in corners
        ]
        return [[round(x, 7), round(y, 7)] for x, y in ring]


_WEDGE_TOP, _WEDGE_FOOT = 0.28, 0.06


def demo_tiles(size: int = 1024, longitude: float = 12.0, latitude: float = 47.2) -> list[Tile]:
    """Two tiles of `size` pixels of 10 m that overlap by half, in UTM zones 32 and 33."""
    tiles = []
    for name, epsg, across, down, delay, wedge in (
        ("32TQT", 32632, 0.75, 0.5, 0.0, True),
        ("33TTN", 32633, 0.25, 0.46, 14.4, False),
    ):
        to_utm = Transformer.from_crs("OGC:CRS84", f"EPSG:{epsg}", always_xy=True)
        x, y = to_utm.transform(longitude, latitude)
        left = round((x - across * size * 10) / 20) * 20.0
        top = round((y + down * size * 10) / 20) * 20.0
        tiles.append(Tile(name, epsg, left, top, size, delay, wedge))
    return tiles


def write_demo_catalog(
    directory: str | os.PathLike[str],
    *,
    size: int = 1024,
    dates: Sequence[str] = DATES,
    seed: int = 7,
    noise: float = 4.0,
    nbits: int | None = None,
    blocksize: int = 256,
) -> Path:
    """Write a static catalogue of images of one landscape.

    Two overlapping tiles, in EPSG:32632 and EPSG:32633, are seen on each date, 14 seconds apart.
    Each item has the assets ``blue, green, red, nir`` (uint16, 10 m, nodata 0) and ``scl`` (uint8,
    20 m), all of them COGs with relative hrefs. Clouds drift across both tiles; on every other
    date the swath's edge cuts the west of the first.

    Parameters
    ----------
    directory : path-like
        Made when it is missing.
    size : int
        Pixels of 10 m along a side of a tile; a multiple of 2.
    dates : sequence of str
        Days, ``YYYY-MM-DD``.
    seed : int
        Another landscape.
    noise : float
        Standard deviation of what the sensor adds, in digital numbers; 0 leaves the landscape
        itself.
    nbits : int, optional
        Bits a sample of the reflectances as stored (15: as Planetary Computer has them).
    blocksize : int
        Pixels along a side of a TIFF tile.

    Returns
    -------
    Path
        ``catalog.json``. The same arguments give the same bytes.

    Raises
    ------
    ArgumentError
        `size` is odd, or too small.
    """
    if size % 2 or size < 32:
        raise ArgumentError(f"size is {size}; it must be even and at least 32")
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    scenery = Scenery(extent=size * 10.0, seed=seed)
    items = []
    for tile in demo_tiles(size):
        fine, coarse = scenery.ground(*tile.lonlat()), scenery.ground(*tile.lonlat(20.0))
        for step, day in enumerate(dates):
            item = _item(tile, step, day)
            folder = root / item["id"]
            random = np.random.default_rng([seed, tile.epsg, step])
            for band, values in scenery.observe(fine, step).items():
                seen = values + random.normal(0.0, noise, values.shape) if noise else values
                # A digital number of a pixel that was seen is never 0: that would be nodata.
                pixels = np.clip(np.rint(seen), 1, 32767).astype("uint16")
                pixels[~tile.valid(step)] = 0
                make_cog(
                    folder / f"{_FILES[band]}.tif",
                    pixels,
                    transform=tile.transform(),
                    crs=f"EPSG:{tile.epsg}",
                    nodata=0,
                    blocksize=blocksize,
                    nbits=nbits,
                    resampling="average",
                )
            classes = scenery.classify(coarse, step)
            classes[~tile.valid(step, 20.0)] = 0
            make_cog(
                folder / "SCL.tif",
                classes,
                transform=tile.transform(20.0),
                crs=f"EPSG:{tile.epsg}",
                nodata=0,
                blocksize=blocksize,
                resampling="mode",
            )
            _count_classes(item["properties"], classes)
            _write_json(folder / f"{item['id']}.json", item)
            items.append(item)
    return _write_collection(root, items)


def _to_lonlat(epsg: int) -> Transformer:
    return Transformer.from_crs(f"EPSG:{epsg}", "OGC:CRS84", always_xy=True)


def _item(tile: Tile, step: int, day: str) -> dict[str, Any]:
    sensing = dt.datetime.fromisoformat(f"{day}T10:20:31.002")
    taken = sensing - dt.timedelta(minutes=4, seconds=30)
    seen = sensing + dt.timedelta(seconds=tile.delay)
    unit = "AB"[step % 2]
    compact = day.replace("-", "")
    start = taken.strftime("%Y%m%dT%H%M%S")
    ring = tile.outline(step)
    xs, ys = [x for x, _ in ring], [y for _, y in ring]
    name = f"S2{unit}_{tile.name}_{compact}_0_L2A"
    made = seen + dt.timedelta(hours=6)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": name,
        "collection": COLLECTION,
        "bbox": [min(xs), min(ys), max(xs), max(ys)],
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "datetime": _stamp(seen),
            "created": _stamp(made),
            "updated": _stamp(made),
            "platform": f"sentinel-2{unit.lower()}",
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "eo:cloud_cover": 0.0,
            "proj:epsg": tile.epsg,
            "mgrs:utm_zone": int(tile.name[:2]),
            "mgrs:latitude_band": tile.name[2],
            "mgrs:grid_square": tile.name[3:],
            "grid:code": f"MGRS-{tile.name}",
            "s2:product_type": "S2MSI2A",
            "s2:processing_baseline": "05.09",
            "s2:product_uri": f"S2{unit}_MSIL2A_{start}_N0509_R065_T{tile.name}_{start}.SAFE",
            "s2:generation_time": _stamp(made),
            "s2:datatake_id": f"GS2{unit}_{start}_0{41000 + 72 * step}_N05.09",
            "s2:datatake_type": "INS-NOBS",
            "s2:sequence": "0",
            "earthsearch:boa_offset_applied": True,
        },
        "links": [
            {"rel": "root", "href": "../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../collection.json", "type": "application/json"},
            {"rel": "collection", "href": "../collection.json", "type": "application/json"},
            {"rel": "self", "href": f"./{name}.json", "type": "application/geo+json"},
        ],
        "assets": {band: _reflectance_asset(tile, band) for band in BANDS}
        | {"scl": _asset(tile, "SCL.tif", "Scene classification map (SCL)", 20.0, "uint8", {})},
    }


def _reflectance_asset(tile: Tile, band: str) -> dict[str, Any]:
    # Earth Search declares the offset and has applied it already; the trap is kept.
    asset = _asset(
        tile,
        f"{_FILES[band]}.tif",
        f"{band.capitalize() if band != 'nir' else 'NIR 1'} - 10m",
        10.0,
        "uint16",
        {"bits_per_sample": 15, "scale": 0.0001, "offset": -0.1},
    )
    words = {"name": band, "common_name": band, "center_wavelength": _WAVELENGTHS[band]}
    return asset | {"gsd": 10, "eo:bands": [words]}


def _asset(
    tile: Tile, href: str, title: str, resolution: float, dtype: str, extra: dict[str, Any]
) -> dict[str, Any]:
    side = round(tile.size * 10 / resolution)
    return {
        "href": f"./{href}",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "title": title,
        "roles": ["data", "reflectance"],
        "proj:shape": [side, side],
        "proj:transform": list(tile.transform(resolution))[:6],
        "raster:bands": [
            {"nodata": 0, "data_type": dtype, "spatial_resolution": resolution, **extra}
        ],
    }


def _count_classes(properties: dict[str, Any], classes: npt.NDArray[np.uint8]) -> None:
    """Fill in what the producer derives from the scene classification, in percent."""
    seen = max(1, int((classes != 0).sum()))

    def share(*values: int) -> float:
        return round(100.0 * float(np.isin(classes, values).sum()) / seen, 6)

    properties["eo:cloud_cover"] = share(8, 9, 10)
    properties["s2:nodata_pixel_percentage"] = round(100.0 * float((classes == 0).mean()), 6)
    for name, value in (
        ("cloud_shadow", 3),
        ("vegetation", 4),
        ("not_vegetated", 5),
        ("water", 6),
        ("medium_proba_clouds", 8),
        ("high_proba_clouds", 9),
        ("thin_cirrus", 10),
    ):
        properties[f"s2:{name}_percentage"] = share(value)


def _write_collection(root: Path, items: list[dict[str, Any]]) -> Path:
    boxes = np.array([item["bbox"] for item in items])
    times = sorted(item["properties"]["datetime"] for item in items)
    low, high = boxes[:, :2].min(axis=0).tolist(), boxes[:, 2:].max(axis=0).tolist()
    _write_json(
        root / "collection.json",
        {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": COLLECTION,
            "description": "A made-up landscape on the border of UTM zones 32 and 33",
            "license": "CC0-1.0",
            "extent": {
                "spatial": {"bbox": [low + high]},
                "temporal": {"interval": [[times[0], times[-1]]]},
            },
            "links": [
                {"rel": "root", "href": "./catalog.json", "type": "application/json"},
                {"rel": "parent", "href": "./catalog.json", "type": "application/json"},
            ]
            + [
                {
                    "rel": "item",
                    "href": f"./{item['id']}/{item['id']}.json",
                    "type": "application/geo+json",
                }
                for item in items
            ],
        },
    )
    catalog = root / "catalog.json"
    _write_json(
        catalog,
        {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "demo",
            "description": "A made-up catalogue for demonstrations and tests",
            "links": [
                {"rel": "root", "href": "./catalog.json", "type": "application/json"},
                {"rel": "child", "href": "./collection.json", "type": "application/json"},
            ],
        },
    )
    return catalog


def _stamp(moment: dt.datetime) -> str:
    return moment.isoformat(timespec="milliseconds") + "Z"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
