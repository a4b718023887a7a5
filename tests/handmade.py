"""Collections made by hand of a few files, for tests that look at reading and not at building."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyproj import Transformer

import rasteret_dask as rd
from rasteret_dask.index import schema
from rasteret_dask.index.rows import header_to_struct
from rasteret_dask.ingest.headers import fetch_header
from rasteret_dask.storage.loop import run
from rasteret_dask.tiff.model import TiffHeader


@dataclass(frozen=True)
class Scene:
    """An item: for each band a file, or a file and which band of it."""

    id: str
    files: Mapping[str, str | Path | tuple[str | Path, int]]
    time: str = "2023-07-03T10:00:00"
    declared: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)


def lonlat_box(header: TiffHeader) -> dict[str, float]:
    """The bounds of a file in lon/lat."""
    if header.transform is None or header.crs is None:
        return {"xmin": -180.0, "ymin": -90.0, "xmax": 180.0, "ymax": 90.0}
    a, b, c, d, e, f = header.transform
    w, h = header.levels[0].width, header.levels[0].height
    xs = [c + a * i * w + b * j * h for i in (0, 1) for j in (0, 1)]
    ys = [f + d * i * w + e * j * h for i in (0, 1) for j in (0, 1)]
    there = Transformer.from_crs(header.crs, "OGC:CRS84", always_xy=True)
    box = there.transform_bounds(min(xs), min(ys), max(xs), max(ys))
    return dict(zip(("xmin", "ymin", "xmax", "ymax"), box))


def make_table(scenes: Sequence[Scene]) -> pa.Table:
    """The rows of scenes, sorted as a collection's are."""
    bands = list(dict.fromkeys(band for scene in scenes for band in scene.files))
    rows = []
    for scene in scenes:
        row: dict[str, Any] = {
            "id": scene.id,
            "datetime": dt.datetime.fromisoformat(scene.time),
            "assets": {},
            **scene.columns,
        }
        for band, given in scene.files.items():
            url, index = given if isinstance(given, tuple) else (given, 0)
            header = run(fetch_header(str(url)))
            row["assets"][band] = {"href": str(url), "band_index": index, "key": band}
            if band in scene.declared:
                row["assets"][band]["raster:bands"] = [dict(scene.declared[band])]
            row[schema.band_column(band)] = header_to_struct(header, index)
            row.setdefault("bbox", lonlat_box(header))
        rows.append(row)
    table = pa.Table.from_pylist(rows, schema=schema.make_schema(bands))
    return table.sort_by([("datetime", "ascending"), ("id", "ascending")])


def collect(*scenes: Scene) -> rd.Collection:
    """A collection of scenes."""
    return rd.as_collection(make_table(scenes))


def austria_scenes(folder: Path, base: str | None = None) -> list[Scene]:
    """The items of s2-austria; ``base`` is where the files are read from, if not from there."""
    scenes = []
    for path in sorted(folder.glob("S2*/*.json")):
        item = json.loads(path.read_text())
        properties = item["properties"]
        root = str(path.parent) if base is None else f"{base}/{path.parent.name}"
        columns = {
            name: properties[name]
            for name in (schema.BASELINE, schema.DATATAKE, schema.BOA_OFFSET_APPLIED)
        }
        columns["bbox"] = dict(zip(("xmin", "ymin", "xmax", "ymax"), item["bbox"]))
        columns["collection"] = item["collection"]
        scenes.append(
            Scene(
                item["id"],
                {b: f"{root}/{item['assets'][b]['href']}" for b in ("red", "nir", "scl")},
                properties["datetime"].removesuffix("Z"),
                columns=columns,
            )
        )
    return scenes
