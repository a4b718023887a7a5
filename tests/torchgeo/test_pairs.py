"""``a & b`` and ``a | b``: collections with one another, with rasters, with vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import torch
from conftest import Demo
from pyproj import Transformer
from rasterio.windows import Window
from sampling import queries
from torch.utils.data import DataLoader
from torchgeo.datasets import (
    IntersectionDataset,
    RasterDataset,
    UnionDataset,
    VectorDataset,
    stack_samples,
)
from torchgeo.samplers import RandomGeoSampler

import rasteret_dask as rd
from rasteret_dask.errors import ArgumentError
from rasteret_dask.integrations.pairs import Intersection
from rasteret_dask.integrations.torchgeo import to_torchgeo_dataset
from rasteret_dask.testing.cog import make_cog

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_image_and_mask_lie_pixel_on_pixel(demo: Demo, zone33: Any) -> None:
    images = to_torchgeo_dataset(zone33, ["red", "nir"])
    classes = to_torchgeo_dataset(zone33, ["scl"], is_image=False, dtype="int64")
    both = images & classes
    assert isinstance(both, IntersectionDataset)
    assert classes.res == images.res == (10.0, 10.0)
    asked = queries(both, 6, 64)
    demo.server.reset()
    found = both.__getitems__(asked)
    assert demo.server.counters().requests < 40
    alone = to_torchgeo_dataset(
        zone33, ["red", "nir", "scl"], allow_resample=True, dtype="int64", overviews="off"
    )
    for sample, query in zip(found, asked):
        assert sample["image"].shape == (2, 64, 64)
        assert sample["mask"].shape == (64, 64)
        expected = alone[query]["image"]
        assert torch.equal(sample["image"].to(torch.int64), expected[:2])
        assert torch.equal(sample["mask"], expected[2])
        assert torch.equal(both[query]["mask"], sample["mask"])


@pytest.mark.parametrize("pair", [Intersection, IntersectionDataset])
def test_intersection_across_zones(demo: Demo, zone33: Any, zone32: Any, pair: Any) -> None:
    """The second collection is warped onto the first one's pixels, in TorchGeo's own pair as well."""
    images = to_torchgeo_dataset(zone33, ["red"])
    others = to_torchgeo_dataset(zone32, ["red"])
    # A grid of its own, between the pixels of both.
    images.on_grid((10.0, 10.0), (3.0, 4.0))
    both = pair(images, others, spatial_only=True)
    assert others.crs.to_epsg() == 32633
    cube = zone32.get_xarray(
        bands=["red"], geobox=images.windows.grid.geobox, groupby="time", chunks=None
    )
    grid = images.windows.grid
    left, bottom, right, top = both.index.total_bounds
    r0, c0 = int((grid.top - (top + bottom) / 2) / 10), int(((left + right) / 2 - grid.left) / 10)
    x, y = grid.left + c0 * 10, grid.top - r0 * 10
    t = others.index.index[0]
    wide = slice(t.left - pd.Timedelta("1D"), t.left + pd.Timedelta("1D"))
    sample = both[slice(x, x + 640), slice(y - 640, y), wide]
    assert sample["image"].shape == (2, 64, 64)
    np.testing.assert_array_equal(
        sample["image"][1].numpy(), cube.red.values[0, r0 : r0 + 64, c0 : c0 + 64]
    )


def test_with_a_vector_dataset(demo: Demo, zone33: Any, tmp_path: Path) -> None:
    """Queries that start between pixels give image and polygons of one place."""
    images = to_torchgeo_dataset(zone33, ["red"])
    grid = images.windows.grid
    left, top = grid.left + 1003.0, grid.top - 1004.0
    # Its western edge lies at 110.7 pixels of the image, and the query begins at 100.3.
    field = shapely.box(grid.left + 1107.0, top - 2000, left + 2000, top)
    frame = gpd.GeoDataFrame({"crop": [4]}, geometry=[field], crs="EPSG:32633")
    frame.to_file(tmp_path / "fields.geojson", driver="GeoJSON")
    fields = VectorDataset(
        str(tmp_path / "fields.geojson"), crs=images.crs, res=(10.0, 10.0), label_name="crop"
    )
    both = images & fields
    t = images.index.index[0]
    asked = (slice(left, left + 640), slice(top - 640, top), slice(t.left, t.right))
    [sample] = both.__getitems__([asked])
    assert sample["image"].shape == (1, 64, 64)
    with rasterio.open(demo.path(demo.items("33TTN")[0], "red")) as image:
        expected = image.read(1, window=Window(100, 100, 64, 64))
    np.testing.assert_array_equal(sample["image"][0].numpy(), expected)
    assert (sample["mask"][:, :11] == 0).all()
    assert (sample["mask"][1:, 11:] == 4).all()
    sampler = RandomGeoSampler(both, 32, length=4)
    loader = DataLoader(both, sampler=sampler, batch_size=4, collate_fn=stack_samples)
    assert next(iter(loader))["mask"].shape == (4, 32, 32)


def test_with_a_raster_dataset(demo: Demo, zone33: Any) -> None:
    images = to_torchgeo_dataset(zone33, ["red"], dtype="float32")
    other = RasterDataset(str(demo.path(demo.items("33TTN")[0], "nir")))
    both = images & other
    alone = to_torchgeo_dataset(zone33, ["red", "nir"], dtype="float32")
    asked = [q for q in queries(both, 12, 40) if q[2].start == images.index.index[0].left]
    for sample, query in zip(both.__getitems__(asked), asked):
        assert torch.equal(sample["image"], alone[query]["image"])
    either = images | other
    assert either[queries(either, 1, 40)[0]]["image"].shape == (1, 40, 40)


def test_union(zone33: Any, zone32: Any) -> None:
    first = to_torchgeo_dataset(zone33, ["red"])
    second = to_torchgeo_dataset(zone32, ["red"])
    either = first | second
    assert isinstance(either, UnionDataset)
    assert len(either) == 6
    asked = queries(either, 12, 32)
    found = either.__getitems__(asked)
    assert all(s["image"].shape == (1, 32, 32) for s in found)
    x, y, _ = queries(first, 1, 32)[0]
    month = slice(pd.Timestamp("2023-07-01"), pd.Timestamp("2023-07-30"))
    own = first[x, y, month]["image"]
    merged = either[x, y, month]["image"]
    assert torch.equal(merged[own != 0], own[own != 0])
    with pytest.raises(IndexError):
        either[slice(0, 320), slice(0, 320), month]


LAND_COVER = (0.00013, 0.00011)
"""Size of a pixel in degrees: neither the images' CRS nor their resolution nor their phase."""


@pytest.fixture
def land_cover(demo: Demo, zone33: Any, tmp_path: Path) -> Any:
    """A class map of one year in EPSG:4326, about the images' tile."""
    west, south, east, north = zone33.bounds
    dx, dy = LAND_COVER
    shape = (int((north - south) / dy) + 40, int((east - west) / dx) + 40)
    classes = np.random.default_rng(2).integers(1, 9, shape).astype("uint8")
    path = tmp_path / "cover.tif"
    affine = (dx, 0, west - 7.3 * dx, 0, -dy, north + 9.6 * dy)
    make_cog(path, classes, transform=affine, crs="EPSG:4326", blocksize=128, nodata=0)
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "cover-2023",
        "bbox": [west, south, east, north],
        "geometry": None,
        "properties": {
            "datetime": None,
            "start_datetime": "2023-01-01T00:00:00Z",
            "end_datetime": "2023-12-31T23:59:59Z",
        },
        "links": [],
        "assets": {"map": {"href": str(path), "type": "image/tiff", "roles": ["data"]}},
    }
    return path, rd.build_from_items([item], name="cover", workspace_dir=tmp_path / "workspace")


@pytest.mark.parametrize("pair", [Intersection, IntersectionDataset])
def test_images_with_land_cover(zone33: Any, land_cover: Any, pair: Any) -> None:
    """Each pixel of the mask is the class at the centre of the image's pixel, wherever a sampler asks."""
    path, collection = land_cover
    images = to_torchgeo_dataset(zone33, ["red", "nir"])
    cover = to_torchgeo_dataset(collection, ["map"], is_image=False, dtype="int64")
    data = pair(images, cover)
    assert len(data) == 3
    to_degrees = Transformer.from_crs(32633, 4326, always_xy=True)
    with rasterio.open(path) as image:
        classes, inverse = image.read(1), ~image.transform
    for query in queries(data, 8, 64):
        sample = data[query]
        assert sample["image"].shape == (2, 64, 64)
        assert torch.equal(sample["image"], images[query]["image"])
        x, y, _ = images.snapped(query)
        along = (np.arange(64) + 0.5) * 10
        xs, ys = np.meshgrid(x.start + along, y.stop - along)
        cols, rows = inverse @ to_degrees.transform(xs, ys)
        # A centre on an edge between classes may go either way.
        sure = np.minimum(abs(cols - np.rint(cols)), abs(rows - np.rint(rows))) > 2e-3
        assert sure.mean() > 0.95
        expected = classes[np.floor(rows).astype(int), np.floor(cols).astype(int)]
        np.testing.assert_array_equal(sample["mask"].numpy()[sure], expected[sure])


def test_a_raster_leads(demo: Demo, zone33: Any) -> None:
    """TorchGeo's own dataset on the left: its pair, its grid, our pixels."""
    path = demo.path(demo.items("33TTN")[0], "nir")
    raster, images = RasterDataset(str(path)), to_torchgeo_dataset(zone33, ["red"], dtype="float32")
    both = raster & images
    alone = to_torchgeo_dataset(zone33, ["nir", "red"], dtype="float32")
    first = images.index.index[0]
    inside = slice(first.left, first.right)
    left, top = images.windows.grid.left, images.windows.grid.top
    x, y = slice(left + 800, left + 1440), slice(top - 1440, top - 800)
    assert torch.equal(both[x, y, inside]["image"], alone[x, y, inside]["image"])
    for query in queries(both, 4, 40):
        assert both[query]["image"].shape == (2, 40, 40)
    loader = DataLoader(
        raster | images, sampler=queries(images, 4, 40), batch_size=2, collate_fn=stack_samples
    )
    assert [len(batch["image"]) for batch in loader] == [2, 2]


def test_vectors_lead_and_unite(zone33: Any, tmp_path: Path) -> None:
    images = to_torchgeo_dataset(zone33, ["red"])
    left, bottom, right, top = images.index.total_bounds
    frame = gpd.GeoDataFrame(
        {"crop": [4]}, geometry=[shapely.box(left, bottom, right, top)], crs="EPSG:32633"
    )
    frame.to_file(tmp_path / "fields.geojson", driver="GeoJSON")
    fields = VectorDataset(
        str(tmp_path / "fields.geojson"), crs=images.crs, res=(10.0, 10.0), label_name="crop"
    )
    [query] = queries(images, 1, 40)
    for data in (fields & images, images | fields, fields | images):
        sample = data[query]
        assert torch.equal(sample["image"], images[query]["image"])
        assert (sample["mask"] == 4).all()
        assert sample["mask"].shape == (40, 40)


def test_series_are_put_together_by_their_dates(zone33: Any) -> None:
    red = to_torchgeo_dataset(zone33, ["red"], time_series=True)
    nir = to_torchgeo_dataset(zone33, ["nir", "red"], time_series=True)
    both = red & nir
    alone = to_torchgeo_dataset(zone33, ["red", "nir"], time_series=True)
    for query in queries(both, 3, 40):
        sample, expected = both[query], alone[query]
        assert sample["image"].shape == (len(expected["time"]), 3, 40, 40)
        assert torch.equal(sample["time"], expected["time"])
        assert torch.equal(sample["image"][:, :2], expected["image"])
        assert torch.equal(sample["image"][:, 2], expected["image"][:, 0])
        assert torch.equal((red | alone)[query]["image"][:, 0], expected["image"][:, 0])


def test_series_of_different_dates_make_no_pair(zone33: Any) -> None:
    series = to_torchgeo_dataset(zone33, ["red"], time_series=True)
    items = zone33.to_table(["id", "datetime"]).to_pylist()
    days = sorted({str(item["datetime"])[:10] for item in items})
    later = to_torchgeo_dataset(
        zone33.subset(date_range=(days[1], days[-1])), ["red"], time_series=True
    )
    plain = to_torchgeo_dataset(zone33, ["nir"])
    [query] = queries(series, 1, 40)
    for pair in (series & later, series | later, series & plain, plain & series):
        with pytest.raises(ArgumentError, match="different dates"):
            pair[query]
