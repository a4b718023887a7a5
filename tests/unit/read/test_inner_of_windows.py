"""What files mask themselves is nothing in windows and points too, as rasterio's masked reads have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from handmade import Scene, collect
from rasterio.features import geometry_mask
from rasterio.windows import Window

import rasteret_dask as rd
from rasteret_dask.errors import NodataError
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import RangeServer

AT = Affine(10, 0, 500_000.0, 0, -10.0, 5_200_000.0)
BOX = (500_300.0, 5_199_000.0, 501_500.0, 5_199_800.0)
WINDOW = Window(30, 20, 120, 80)
SHAPE = shapely.Polygon([(500_303, 5_199_007), (501_493, 5_199_111), (501_207, 5_199_793), (500_511, 5_199_602)])  # fmt: skip
POINTS = np.random.default_rng(5).uniform((500_001, 5_198_001), (502_299, 5_199_999), (300, 2))
KINDS = ["alpha", "alpha in a plane", "mask", "mask and nodata"]


def make(path: Path, kind: str) -> tuple[Path, dict[str, int]]:
    """A file of 230 × 200 pixels, a third of them hidden, and the bands to read."""
    rng = np.random.default_rng(3)
    if kind.startswith("alpha"):
        image = rng.integers(1, 256, (4, 200, 230)).astype(np.uint8)
        image[-1] = rng.choice(np.array([0, 1, 128, 255], np.uint8), image.shape[1:])
        image[-1, 30:90, 40:130] = 0
        interleave = "band" if kind.endswith("plane") else "pixel"
        how: dict[str, Any] = {"driver": "GTiff", "interleave": interleave, "alpha": "YES"}
        return make_cog(path, image, transform=AT, blocksize=64, **how), {"r": 0, "b": 2}
    values = rng.integers(1, 60_000, (200, 230)).astype(np.uint16)
    shown = rng.random(values.shape) > 0.3
    shown[30:90, 40:130] = False
    nodata = 7 if "nodata" in kind else None
    values[100:120] = 7
    return make_cog(path, values, transform=AT, blocksize=64, mask=shown, nodata=nodata), {"v": 0}


def scene(file: Any, bands: dict[str, int]) -> rd.Collection:
    return collect(Scene("a", {name: (file, k) for name, k in bands.items()}))


def masked(file: Path, bands: dict[str, int], window: Window | None = None) -> np.ma.MaskedArray:
    """GDAL's own opinion; a mask in the file stands above nodata there, and here both hide."""
    with rasterio.open(file) as image:
        read = image.read([k + 1 for k in bands.values()], window=window, masked=True)
        hidden = np.ma.getmaskarray(read)
        if image.nodata is not None:
            hidden = hidden | (read.data == image.nodata)
        return np.ma.MaskedArray(read.data, hidden)


@pytest.mark.parametrize("kind", KINDS)
def test_windows_hide_what_rasterio_hides(tmp_path: Path, kind: str) -> None:
    file, bands = make(tmp_path / "v.tif", kind)
    expected = masked(file, bands, WINDOW)
    assert 0.2 < expected.mask.mean() < 0.9
    collection = scene(file, bands)
    how: dict[str, Any] = {"geometry_crs": 32633}
    fill = 7 if "nodata" in kind else 3
    found = collection.get_numpy(BOX, list(bands), fill_value=None if fill == 7 else 3, **how)
    assert np.array_equal(found.reshape(expected.shape), expected.filled(fill))
    frame = collection.get_gdf(SHAPE, list(bands), fill_value=fill, **how)
    at = rasterio.open(file).window_transform(WINDOW)
    outside = geometry_mask([SHAPE], expected.shape[1:], at)
    for k, band in enumerate(bands):
        assert np.array_equal(frame[band][0], np.where(outside, fill, expected[k].filled(fill)))
    rows = collection.get_gdf(SHAPE, list(bands), fill_value=fill, per="band", **how)
    assert np.array_equal(rows["data"][0], frame[next(iter(bands))][0])


@pytest.mark.parametrize("kind", KINDS)
def test_points_hide_what_rasterio_hides(tmp_path: Path, kind: str) -> None:
    file, bands = make(tmp_path / "v.tif", kind)
    whole = masked(file, bands)
    collection = scene(file, bands)
    nothing = 7.0 if "nodata" in kind else np.nan
    found = collection.sample_points(POINTS, list(bands), geometry_crs=32633)
    cols, rows = (np.floor(v).astype(int) for v in ~AT * POINTS.T)
    for k, band in enumerate(bands):
        mine = found.filter(np.array(found["band"].to_pylist()) == band)
        there = mine["point_index"].to_numpy()
        expected = whole[k].astype(float).filled(nothing)[rows[there], cols[there]]
        assert len(there) == 300
        assert np.array_equal(mine["value"].to_numpy(), expected, equal_nan=True)
    # Around a hidden pixel: the nearest that is seen, and squares with nothing where nothing is seen.
    how: dict[str, Any] = {"max_distance_pixels": 2, "return_neighbourhood": "always"}
    near = collection.sample_points(POINTS, list(bands), geometry_crs=32633, **how)
    padded = np.pad(whole.astype(float).filled(nothing), ((0, 0), (2, 2), (2, 2)), constant_values=np.nan)  # fmt: skip
    for row in near.to_pylist():
        p, k = row["point_index"], list(bands).index(row["band"])
        square = padded[k, rows[p] : rows[p] + 5, cols[p] : cols[p] + 5]
        assert np.array_equal(row["neighbourhood_values"], square.ravel(), equal_nan=True)
        seen = square[np.isfinite(square) & (square != nothing)]
        assert (row["value"] in seen) == bool(len(seen))


def test_without_a_value_for_nothing_windows_ask_for_one(tmp_path: Path) -> None:
    file, bands = make(tmp_path / "v.tif", "alpha")
    with pytest.raises(NodataError, match=r"the file masks.*item='a', band='r'"):
        scene(file, bands).get_numpy(BOX, list(bands), geometry_crs=32633)
    opaque = np.full((4, 200, 230), 255, np.uint8)
    whole = make_cog(tmp_path / "o.tif", opaque, transform=AT, blocksize=64, alpha="YES", driver="GTiff")  # fmt: skip
    assert (scene(whole, {"r": 0}).get_numpy(BOX, "r", geometry_crs=32633) == 255).all()


def test_alpha_in_the_same_tiles_costs_no_request(tmp_path: Path) -> None:
    make(tmp_path / "v.tif", "alpha")
    with RangeServer(tmp_path) as server:
        collection = scene(f"{server.url}/v.tif", {"r": 0, "b": 2})
        server.reset()
        collection.sample_points(POINTS[:1], geometry_crs=32633)
        assert server.counters().requests == 1
        server.reset()
        collection.get_numpy(BOX, geometry_crs=32633, fill_value=0)
        first = server.counters().bytes
        tiles = {(r // 64, c // 64) for r in range(20, 100) for c in range(30, 150)}
        # Six of sixteen tiles.
        assert first < (tmp_path / "v.tif").stat().st_size * len(tiles) / 16 * 1.2
