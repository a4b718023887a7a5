"""Small static catalogues of other kinds than Sentinel-2: heights, Landsat, embeddings; made from nothing.

Like `catalog.write_demo_catalog`: the same arguments give the same bytes, hrefs are relative, and
the ground is a function of its coordinates, so that what lies on a seam is known.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from pyproj import Transformer

from rasteret_dask.testing.cog import make_cog

Array = npt.NDArray[Any]


def height(longitude: Array, latitude: Array) -> Array:
    """Metres above the sea of the made-up ground; smooth, between 400 and 1600."""
    ridges = np.sin(longitude * 220.0) * np.cos(latitude * 260.0)
    made: Array = 1000.0 + 600.0 * ridges
    return made


def write_dem_catalog(
    directory: str | os.PathLike[str],
    *,
    longitude: float = 12.0,
    latitude: float = 47.2,
    side: float = 0.05,
) -> Path:
    """Heights as Copernicus GLO-30 has them: float32 in degrees, two tiles that meet at `longitude`.

    Parameters
    ----------
    directory : path-like
    longitude, latitude : float
        The middle of the seam.
    side : float
        Degrees along a side of a tile.

    Returns
    -------
    Path
        ``catalog.json``; the collection is ``cop-dem-glo-30``, the asset ``data``.
    """
    step = 1 / 3600
    n = round(side / step)
    items = []
    for name, left in (("W", longitude - n * step), ("E", longitude)):
        transform = Affine(step, 0, left, 0, -step, latitude + n * step / 2)
        columns, rows = np.meshgrid(np.arange(n) + 0.5, np.arange(n) + 0.5)
        heights = height(*_xy(transform, columns, rows)).astype("float32")
        folder = Path(directory) / name
        make_cog(folder / "data.tif", heights, transform=transform, crs="EPSG:4326", blocksize=128)
        item = _item(
            f"Copernicus_DSM_COG_10_{name}", "2021-04-22T00:00:00Z", transform, (n, n), 4326
        )
        items.append(item | {"assets": {"data": _asset("data.tif")}, "folder": name})
    return _write(Path(directory), "cop-dem-glo-30", items)


def write_landsat_catalog(
    directory: str | os.PathLike[str],
    *,
    dates: Sequence[str] = ("2023-07-03", "2023-07-11", "2023-07-19"),
    size: int = 256,
    seed: int = 7,
) -> Path:
    """Surface temperatures as Landsat Collection 2 has them: two rows of one path that overlap.

    Band 10 of Landsat 8 and 9 is the asset ``lwir11``; the last date is Landsat 7's, whose band 6 is
    ``lwir``. ``qa_pixel`` has bits for fill (0), dilated cloud (1), cloud (3), shadow (4) and clear (6).

    Parameters
    ----------
    directory : path-like
    dates : sequence of str
    size : int
        Pixels of 30 m along a side of a scene.
    seed : int

    Returns
    -------
    Path
        ``catalog.json``; the collection is ``landsat-c2-l2``.
    """
    items = []
    for step, day in enumerate(dates):
        sensor, asset = ("LE07", "lwir") if step and step == len(dates) - 1 else ("LC08", "lwir11")
        for row in (27, 28):
            random = np.random.default_rng([seed, step, row])
            top = 5_250_000.0 - (row - 27) * size * 20
            transform = Affine(30, 0, 300_000 + (row - 27) * 900, 0, -30, top)
            columns, rows = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
            x, y = _xy(transform, columns, rows)
            kelvin = 295 + 12 * np.sin(x / 1700) * np.sin(y / 1300) + 3 * step
            stored = np.rint((kelvin + random.normal(0, 0.2, x.shape) - 149.0) / 0.00341802)
            qa = np.full(x.shape, 1 << 6, dtype="uint16")
            cloud = np.sin(x / 2100 + 2 * step) + np.cos(y / 1900 - step) > 0.9
            edge = np.sin(x / 2100 + 2 * step) + np.cos(y / 1900 - step) > 0.7
            qa[edge], qa[cloud] = 1 << 1, (1 << 3) | (3 << 8)
            qa[np.roll(cloud, 20, axis=0) & ~edge] = 1 << 4
            fill = columns + rows < size / 8  # the corner of a scene that is not a square
            stored[fill], qa[fill] = 0, 1
            name = f"{sensor}_L2SP_1920{row}_{day.replace('-', '')}_02_T1"
            folder = Path(directory) / name
            common: dict[str, Any] = {"transform": transform, "crs": "EPSG:32633", "blocksize": 128}
            make_cog(folder / "ST.TIF", stored.astype("uint16"), nodata=0, **common)
            make_cog(folder / "QA_PIXEL.TIF", qa, nodata=1, **common)
            moment = f"{day}T09:5{row - 26}:11Z"
            item = _item(name, moment, transform, (size, size), 32633)
            item["properties"] |= {
                "platform": "landsat-8" if sensor == "LC08" else "landsat-7",
                "eo:cloud_cover": round(100 * float(cloud.mean()), 2),
            }
            item["assets"] = {asset: _asset("ST.TIF"), "qa_pixel": _asset("QA_PIXEL.TIF")}
            items.append(item | {"folder": name})
    return _write(Path(directory), "landsat-c2-l2", items)


def write_embedding_catalog(
    directory: str | os.PathLike[str],
    *,
    years: Sequence[int] = (2023,),
    size: int = 128,
    bands: int = 64,
    seed: int = 7,
) -> Path:
    """Embeddings as AlphaEarth has them: 64 int8 bands in one file, in planes, nodata -128.

    The ground has six covers in patches; pixels of one cover are alike, and a corner is nodata.

    Parameters
    ----------
    directory : path-like
    years : sequence of int
    size : int
        Pixels of 10 m along a side.
    bands : int
    seed : int

    Returns
    -------
    Path
        ``catalog.json``; the collection is ``aef-v1-annual``, the asset ``data``.
    """
    items = []
    transform = Affine(10, 0, 272_000, 0, -10, 5_232_000)
    rows, columns = np.mgrid[:size, :size]
    covers = ((rows // 16) * 5 + (columns // 16) * 3) % 6
    for year in years:
        random = np.random.default_rng([seed, year])
        means = random.normal(size=(6, bands))
        vectors = means[covers] + random.normal(0, 0.25, (size, size, bands))
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        stored = np.sign(vectors) * np.rint(127.5 * np.sqrt(np.abs(vectors)))
        pixels = np.moveaxis(np.clip(stored, -127, 127), -1, 0).astype("int8")
        pixels[:, :8, :8] = -128
        name = f"aef_{year}"
        make_cog(
            Path(directory) / name / "data.tif",
            pixels,
            transform=transform,
            crs="EPSG:32633",
            nodata=-128,
            blocksize=64,
            driver="GTiff",
            interleave="band",
            overviews=0,
        )
        item = _item(name, f"{year}-01-01T00:00:00Z", transform, (size, size), 32633)
        items.append(item | {"assets": {"data": _asset("data.tif")}, "folder": name})
    return _write(Path(directory), "aef-v1-annual", items)


# --- STAC ----------------------------------------------------------------------------------------
def _item(
    name: str, moment: str, transform: Affine, shape: tuple[int, int], epsg: int
) -> dict[str, Any]:
    rows, columns = shape
    corners = [(0, 0), (0, rows), (columns, rows), (columns, 0), (0, 0)]
    to_lonlat = Transformer.from_crs(f"EPSG:{epsg}", "OGC:CRS84", always_xy=True)
    ring = [
        [round(v, 7) for v in to_lonlat.transform(*_xy(transform, *corner))] for corner in corners
    ]
    xs, ys = [x for x, _ in ring], [y for _, y in ring]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
        "id": name,
        "bbox": [min(xs), min(ys), max(xs), max(ys)],
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"datetime": moment, "proj:epsg": epsg},
        "assets": {},
    }


def _xy(transform: Affine, columns: Any, rows: Any) -> tuple[Any, Any]:
    return transform.c + transform.a * columns, transform.f + transform.e * rows


def _asset(href: str) -> dict[str, Any]:
    return {
        "href": f"./{href}",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
    }


def _write(root: Path, collection: str, items: Sequence[Mapping[str, Any]]) -> Path:
    links = []
    for item in items:
        made = {key: value for key, value in item.items() if key != "folder"}
        made |= {
            "collection": collection,
            "links": [{"rel": "collection", "href": "../collection.json"}],
        }
        _dump(root / item["folder"] / "item.json", made)
        links.append({"rel": "item", "href": f"./{item['folder']}/item.json"})
    boxes = np.array([item["bbox"] for item in items])
    times = sorted(item["properties"]["datetime"] for item in items)
    box = boxes[:, :2].min(axis=0).tolist() + boxes[:, 2:].max(axis=0).tolist()
    extent = {"spatial": {"bbox": [box]}, "temporal": {"interval": [[times[0], times[-1]]]}}
    said = {"stac_version": "1.0.0", "description": "Made up", "license": "CC0-1.0"}
    _dump(
        root / "collection.json",
        {"type": "Collection", "id": collection, "extent": extent, "links": links, **said},
    )
    child = [{"rel": "child", "href": "./collection.json"}]
    _dump(root / "catalog.json", {"type": "Catalog", "id": "made-up", "links": child, **said})
    return root / "catalog.json"


def _dump(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
