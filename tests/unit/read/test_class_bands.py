"""Class bands: known by five things, each alone, from STAC items to pixels; never interpolated unless told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine

import rasteret_dask as rd
from rasteret_dask.testing.cog import make_cog

AT = Affine(10, 0, 500_000, 0, -10, 5_200_000)
CLASSES = np.random.default_rng(12).choice(np.array([1, 9], np.uint8), (64, 64))
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # the way: how the file is written, what its asset says, what the descriptor says
    "a single bit": ({"nbits": 1, "nodata": None}, {}, {}),
    "a colour map": ({"colormap": {k: (k, k, k, 255) for k in range(10)}}, {}, {}),
    "STAC's role": ({}, {"roles": ["data", "classification"]}, {}),
    "STAC's role for masks": ({}, {"roles": ["data-mask"]}, {}),
    "STAC's classes": ({}, {"classification:classes": [{"value": 1, "name": "water"}]}, {}),
    "STAC's classes of a band": (
        {},
        {"raster:bands": [{"classification:classes": [{"value": 1, "name": "water"}]}]},
        {},
    ),
    "STAC's bits": (
        {},
        {"classification:bitfields": [{"name": "cloud", "offset": 3, "length": 1, "classes": []}]},
        {},
    ),
    "STAC's values": ({}, {"file:values": [{"values": [1], "summary": "water"}]}, {}),
    "the descriptor": ({}, {}, {"categorical": True}),
}


def build(path: Path, way: str, *, name: str = "v") -> rd.Collection:
    how, asset, told = WAYS.get(way, ({}, {}, {}))
    image = (CLASSES == 9).astype(np.uint8) if "nbits" in how else CLASSES
    options = {"nodata": 0, "blocksize": 64, "overviews": 0, **how}
    file = make_cog(path / "v.tif", image, transform=AT, **options)
    corners = [[15, 46], [16, 46], [16, 47], [15, 47], [15, 46]]
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "a",
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "bbox": [15, 46, 16, 47],
        "properties": {"datetime": "2023-07-03T10:00:00Z"},
        "assets": {name: {"href": str(file), "type": "image/tiff; application=geotiff", **asset}},
        "links": [],
    }
    choice: dict[str, Any] = {}
    if told:
        band = rd.BandInfo(name, name, **told)
        choice = {"descriptor": rd.DatasetDescriptor(id="own", bands=(band,))}
    return rd.build_from_items([item], name="classes", workspace_dir=path / "ws", **choice)


def values(cube: Any) -> set[float]:
    found = np.unique(cube.v.values)
    return set(found[np.isfinite(found)].tolist())


@pytest.mark.parametrize("way", WAYS)
def test_one_sign_is_enough_and_nothing_else_is_interpolated(tmp_path: Path, way: str) -> None:
    collection = build(tmp_path, way)
    known = {0.0, 1.0} if way == "a single bit" else {1.0, 9.0}
    how: dict[str, Any] = {"resolution": 7, "masked": True}
    for method in ("bilinear", "cubic", "average", "med"):
        cube = collection.get_xarray(resampling=method, **how).compute()
        assert values(cube) == known
        assert cube.v.attrs["rasteret:resampling"] == "nearest"
    assert values(collection.get_xarray(resampling="mode", **how).compute()) == known
    # In another projection too.
    warped = collection.get_xarray(resampling="cubic", crs="EPSG:3857", resolution=9, masked=True)
    assert values(warped.compute()) <= known
    # Told by name or by role, it is obeyed; weighed values are rounded to the file's type.
    nearest = collection.get_xarray(**how).v.values
    for told in ({"v": "bilinear"}, {"classes": "bilinear"}):
        cube = collection.get_xarray(resampling=told, **how).compute()
        assert cube.v.attrs["rasteret:resampling"] == "bilinear"
        assert not np.array_equal(cube.v.values, nearest, equal_nan=True)


def test_without_a_sign_it_is_a_picture(tmp_path: Path) -> None:
    cube = build(tmp_path, "none").get_xarray(resampling="bilinear", resolution=7, masked=True)
    assert len(values(cube.compute())) > 4
