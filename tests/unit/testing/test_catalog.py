"""The demo catalogue reads as Sentinel-2 does, and shows one landscape in two zones."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.features
from rasterio.warp import Resampling, reproject, transform_geom

from rasteret_dask.errors import ArgumentError
from rasteret_dask.testing.catalog import demo_tiles, write_demo_catalog
from rasteret_dask.testing.scenery import Scenery

SIZE = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_catalog(
        tmp_path_factory.mktemp("demo"), size=SIZE, noise=0.0, blocksize=64
    ).parent


@pytest.fixture(scope="module")
def items(folder: Path) -> list[pystac.Item]:
    return list(pystac.Catalog.from_file(str(folder / "catalog.json")).get_items(recursive=True))


def zone(item: pystac.Item) -> int:
    # Some versions of pystac rewrite proj:epsg as proj:code, so the name of the tile decides.
    return {"32TQT": 32632, "33TTN": 32633}[item.id.split("_")[1]]


def test_items_say_what_the_files_say(items: list[pystac.Item]) -> None:
    assert len(items) == 8
    for item in items:
        assert set(item.assets) == {"blue", "green", "red", "nir", "scl"}
        for asset in item.assets.values():
            with rasterio.open(asset.get_absolute_href()) as image:
                assert image.crs.to_epsg() == zone(item)
                assert list(image.shape) == asset.extra_fields["proj:shape"]
                assert list(image.transform)[:6] == asset.extra_fields["proj:transform"]
                band = asset.extra_fields["raster:bands"][0]
                assert (image.nodata, image.dtypes[0]) == (0, band["data_type"])
                assert image.overviews(1)


def test_neighbours_are_seconds_apart(items: list[pystac.Item]) -> None:
    by_take: dict[str, list[dt.datetime]] = {}
    for item in items:
        assert item.datetime is not None
        by_take.setdefault(item.properties["s2:datatake_id"], []).append(item.datetime)
    assert len(by_take) == 4
    for times in by_take.values():
        assert len(times) == 2
        assert 0 < abs((times[0] - times[1]).total_seconds()) < 60


def test_cloud_cover_is_that_of_the_classes(items: list[pystac.Item]) -> None:
    covers = []
    for item in items:
        with rasterio.open(item.assets["scl"].get_absolute_href()) as image:
            classes = image.read(1)
        share = 100 * np.isin(classes, (8, 9, 10)).sum() / (classes != 0).sum()
        assert item.properties["eo:cloud_cover"] == pytest.approx(share, abs=1e-5)
        covers.append(share)
    assert max(covers) - min(covers) > 5


def test_the_footprint_is_that_of_the_data(items: list[pystac.Item]) -> None:
    cut = 0
    for item in items:
        with rasterio.open(item.assets["red"].get_absolute_href()) as image:
            geometry = transform_geom("OGC:CRS84", image.crs, item.geometry)
            inside = rasterio.features.geometry_mask(
                [geometry], image.shape, image.transform, invert=True
            )
            seen = image.read(1) != 0
        cut += not seen.all()
        # The footprint's straight edges bend a little in the file's own projection.
        assert (inside != seen).mean() < 0.01
    assert cut == 2


def test_both_zones_show_one_landscape(items: list[pystac.Item]) -> None:
    day = [item for item in items if item.datetime and item.datetime.day == 3]
    west, east = sorted(day, key=zone)
    with (
        rasterio.open(west.assets["red"].get_absolute_href()) as a,
        rasterio.open(east.assets["red"].get_absolute_href()) as b,
    ):
        warped = np.zeros(a.shape, "uint16")
        reproject(rasterio.band(b, 1), warped, dst_transform=a.transform, dst_crs=a.crs,
                  resampling=Resampling.bilinear)  # fmt: skip
        mine = a.read(1)
    both = (warped > 0) & (mine > 0)
    assert both.mean() > 0.3
    difference = np.abs(warped[both].astype(int) - mine[both])
    assert np.median(difference) < 15
    # Shifted by a pixel it is plainly worse: the test would notice.
    shifted = np.roll(warped, 1, axis=1)[both].astype(int)
    assert np.median(np.abs(shifted - mine[both])) > 1.5 * np.median(difference)


def test_the_scenery_is_the_truth(items: list[pystac.Item]) -> None:
    tile = demo_tiles(SIZE)[0]
    scenery = Scenery(extent=SIZE * 10.0)
    expected = scenery.observe(scenery.ground(*tile.lonlat()), 0)["nir"]
    item = next(item for item in items if item.id == "S2A_32TQT_20230703_0_L2A")
    with rasterio.open(item.assets["nir"].get_absolute_href()) as image:
        assert np.array_equal(image.read(1), np.rint(expected))


def test_same_arguments_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_demo_catalog(tmp_path / name, size=64, dates=["2023-07-03"])
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 2 + 2 * 6
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_size(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="even"):
        write_demo_catalog(tmp_path, size=333)
