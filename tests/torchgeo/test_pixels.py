"""Pixels of chips against rasterio and TorchGeo's own RasterDataset on the same files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from conftest import Demo
from pyproj import Transformer
from rasterio.windows import Window, from_bounds
from torchgeo.datasets import RasterDataset

import rasteret_dask as rd
from rasteret_dask.errors import ArgumentError, EmptySelectionError, NodataError
from rasteret_dask.integrations.torchgeo import to_torchgeo_dataset
from rasteret_dask.testing.cog import make_cog


def query(dataset: Any, row: int, col: int, size: int, when: int = 0) -> tuple[slice, slice, slice]:
    """A box of whole pixels, in rows and columns from the index's upper left corner."""
    xmin, _, _, ymax = dataset.index.total_bounds
    xres, yres = dataset.res
    x, y = xmin + col * xres, ymax - row * yres
    interval = dataset.index.index[when]
    return (
        slice(x, x + size * xres),
        slice(y - size * yres, y),
        slice(interval.left, interval.right),
    )


def window(path: Any, row: int, col: int, size: int) -> np.ndarray:
    with rasterio.open(path) as image:
        return image.read(1, window=Window(col, row, size, size), boundless=True, fill_value=0)


def test_chips_are_windows_of_the_files(demo: Demo, zone33: Any) -> None:
    dataset = to_torchgeo_dataset(zone33, ["red", "nir", "blue"])
    assert dataset.res == (10.0, 10.0)
    assert len(dataset) == 3
    for when, item in enumerate(demo.items("33TTN")):
        for row, col, size in [(0, 0, 64), (100, 37, 90), (448, 440, 64)]:
            found = dataset[query(dataset, row, col, size, when)]["image"]
            assert found.dtype == torch.uint16
            expected = [window(demo.path(item, b), row, col, size) for b in ("red", "nir", "blue")]
            np.testing.assert_array_equal(found.numpy(), expected)


def test_a_chip_over_the_edge_holds_nodata(demo: Demo, zone33: Any) -> None:
    dataset = to_torchgeo_dataset(zone33, ["red"])
    item = demo.items("33TTN")[1]
    for row, col in [(-20, -30), (480, 490)]:
        found = dataset[query(dataset, row, col, 64, 1)]["image"][0].numpy()
        np.testing.assert_array_equal(found, window(demo.path(item, "red"), row, col, 64))
        assert (found == 0).any()


def test_equal_to_raster_dataset(demo: Demo, zone33: Any) -> None:
    ours = to_torchgeo_dataset(zone33, ["green"], dtype="float32")
    item = demo.items("33TTN")[0]
    theirs = RasterDataset(paths=str(demo.path(item, "green")))
    for row, col, size in [(3, 5, 32), (200, 111, 128)]:
        asked = query(ours, row, col, size)
        found = ours[asked]
        timeless = (asked[0], asked[1], slice(pd.Timestamp.min, pd.Timestamp.max))
        expected = theirs[timeless]
        assert found["image"].dtype == expected["image"].dtype == torch.float32
        assert torch.equal(found["image"], expected["image"])
        assert set(found) == set(expected)


def test_off_grid_queries_take_the_nearest_pixels(demo: Demo, zone33: Any) -> None:
    dataset = to_torchgeo_dataset(zone33, ["red"])
    item = demo.items("33TTN")[0]
    x, y, t = query(dataset, 50, 60, 32)
    for dx, dy, rows, cols in [(4.9, 0, 0, 0), (5.1, 0, 0, 1), (0, 4.9, 0, 0), (0, 5.1, -1, 0)]:
        moved = (slice(x.start + dx, x.stop + dx), slice(y.start + dy, y.stop + dy), t)
        sample = dataset[moved]
        expected = window(demo.path(item, "red"), 50 + rows, 60 + cols, 32)
        np.testing.assert_array_equal(sample["image"][0].numpy(), expected)


def test_chip_size_is_kept_about_the_middle(demo: Demo, zone33: Any) -> None:
    dataset = to_torchgeo_dataset(zone33, ["red"], chip_size=48)
    item = demo.items("33TTN")[0]
    found = dataset[query(dataset, 100, 100, 32)]["image"][0].numpy()
    np.testing.assert_array_equal(found, window(demo.path(item, "red"), 92, 92, 48))


def test_time_series(demo: Demo, zone33: Any) -> None:
    dataset = to_torchgeo_dataset(zone33, ["red", "nir"], time_series=True)
    assert len(dataset) == 1
    sample = dataset[query(dataset, 10, 20, 40)]
    assert sample["image"].shape == (3, 2, 40, 40)
    items = demo.items("33TTN")
    expected = [[window(demo.path(i, b), 10, 20, 40) for b in ("red", "nir")] for i in items]
    np.testing.assert_array_equal(sample["image"].numpy(), expected)
    times = pd.DatetimeIndex(sample["time"].numpy().astype("datetime64[ns]"))
    assert [str(t.date()) for t in times] == ["2023-07-03", "2023-07-08", "2023-07-13"]
    x, y, _ = query(dataset, 10, 20, 40)
    some = dataset[x, y, slice(pd.Timestamp("2023-07-05"), pd.Timestamp("2023-07-10"))]
    np.testing.assert_array_equal(some["image"].numpy(), expected[1:2])


def test_native_types_and_asked_ones(zone33: Any) -> None:
    kinds = {
        None: torch.uint8,
        "int64": torch.int64,
        "float32": torch.float32,
    }
    for dtype, expected in kinds.items():
        options = {} if dtype is None else {"dtype": dtype}
        dataset = to_torchgeo_dataset(zone33, ["scl"], is_image=False, **options)
        sample = dataset[query(dataset, 0, 0, 32)]
        assert "image" not in sample
        assert sample["mask"].shape == (32, 32)
        assert sample["mask"].dtype == expected
    floats = to_torchgeo_dataset(zone33, ["red"], masked=True)
    found = floats[query(floats, -16, 0, 32)]["image"]
    assert found.isnan().float().mean() == 0.5


def test_mixed_resolutions_only_when_asked(demo: Demo, zone33: Any) -> None:
    with pytest.raises(ArgumentError, match="resolution"):
        to_torchgeo_dataset(zone33, ["red", "scl"])
    dataset = to_torchgeo_dataset(zone33, ["red", "scl"], allow_resample=True)
    assert dataset.res == (10.0, 10.0)
    found = dataset[query(dataset, 20, 40, 32)]["image"].numpy()
    item = demo.items("33TTN")[0]
    np.testing.assert_array_equal(found[0], window(demo.path(item, "red"), 20, 40, 32))
    coarse = window(demo.path(item, "scl"), 10, 20, 16)
    np.testing.assert_array_equal(found[1], coarse.repeat(2, 0).repeat(2, 1))
    named = to_torchgeo_dataset(zone33, ["red", "scl"], resolution=20, overviews="off")
    assert named.res == (20.0, 20.0)


def test_mixed_crs_only_when_asked(demo: Demo) -> None:
    with pytest.raises(ArgumentError, match=r"EPSG:32632.*EPSG:32633"):
        to_torchgeo_dataset(demo.collection, ["red"])
    dataset = to_torchgeo_dataset(demo.collection, ["red"], target_crs="EPSG:32633")
    assert dataset.crs.to_epsg() == 32633
    assert len(dataset) == 6
    item = demo.items("32TQT")[0]
    number = dataset.index["item"].tolist().index(item)
    west, south, _, north = dataset.index.geometry.iloc[number].bounds
    t = dataset.index.index[number]
    x, y = west + 1000, (south + north) / 2
    asked = (slice(x, x + 640), slice(y - 640, y), slice(t.left, t.right))
    sample = dataset[asked]
    x0, y1 = sample_corner(sample)
    along = (np.arange(64) + 0.5) * 10
    xs, ys = np.meshgrid(x0 + along, y1 - along)
    to_own = Transformer.from_crs("EPSG:32633", "EPSG:32632", always_xy=True)
    with rasterio.open(demo.path(item, "red")) as image:
        cols, rows = ~image.transform * to_own.transform(xs, ys)
        expected = image.read(1)[np.floor(rows).astype(int), np.floor(cols).astype(int)]
    # A centre that falls on a pixel's edge may go either way.
    sure = np.minimum(abs(cols - np.rint(cols)), abs(rows - np.rint(rows))) > 1e-4
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(sample["image"][0].numpy()[sure], expected[sure])


def sample_corner(sample: Any) -> tuple[float, float]:
    """Upper left corner of a sample, of either version of TorchGeo."""
    bounds = sample["bounds"]
    if isinstance(bounds, torch.Tensor):
        transform = sample["transform"]
        return float(transform[2]), float(transform[5])
    return bounds[0].start, bounds[1].stop


def test_chips_are_windows_of_the_cube(demo: Demo) -> None:
    """Reprojected, mosaicked and masked: a chip is what the cube has there, bit for bit."""
    options = {"groupby": "solar_day", "mask": {"band": "scl", "keep": [4, 5, 6]}}
    dataset = to_torchgeo_dataset(
        demo.collection, ["red", "nir"], target_crs=32633, time_series=True, **options
    )
    grid = dataset.windows.grid
    cube = demo.collection.get_xarray(
        bands=["red", "nir"], geobox=grid.geobox, chunks=None, **options
    )
    sample = dataset[query(dataset, 150, 170, 100)]
    r, c = dataset.windows.chip(_window_of(sample, grid, 100), -(2**62), 2**62).plans[0].origin
    for k, band in enumerate(["red", "nir"]):
        part = cube[band].values[:, r : r + 100, c : c + 100]
        np.testing.assert_array_equal(sample["image"][:, k].numpy(), part)


def _window_of(sample: Any, grid: Any, size: int) -> tuple[int, int, int, int]:
    x, y = sample_corner(sample)
    row, col = round((grid.top - y) / grid.yres), round((x - grid.left) / grid.xres)
    return row, row + size, col, col + size


def test_geometries_bound_the_index(zone33: Any) -> None:
    whole = to_torchgeo_dataset(zone33, ["red"])
    xmin, _, _, ymax = whole.index.total_bounds
    boxes = [
        (xmin + 500, ymax - 1500, xmin + 1500, ymax - 500),
        (xmin + 3000, ymax - 4000, xmin + 3800, ymax - 3200),
    ]
    import shapely  # noqa: PLC0415

    dataset = to_torchgeo_dataset(
        zone33, ["red"], geometries=[shapely.box(*b) for b in boxes], geometry_crs=32633
    )
    assert len(dataset) == 6
    found = {tuple(round(v) for v in g.bounds) for g in dataset.index.geometry}
    assert found == {tuple(round(v) for v in b) for b in boxes}
    with pytest.raises(EmptySelectionError):
        to_torchgeo_dataset(zone33, ["red"], geometries=(0.0, 0.0, 1.0, 1.0))


def test_nothing_there(zone33: Any) -> None:
    dataset = to_torchgeo_dataset(zone33, ["red"])
    x, y, t = query(dataset, 0, 0, 32)
    with pytest.raises(IndexError, match="not found"):
        dataset[slice(x.start + 1e6, x.stop + 1e6), y, t]
    with pytest.raises(IndexError, match="not found"):
        dataset[x, y, slice(pd.Timestamp("1999-01-01"), pd.Timestamp("1999-02-01"))]


def test_what_means_nothing_is_said(zone33: Any) -> None:
    dataset = to_torchgeo_dataset(zone33, ["red"])
    x, y, t = query(dataset, 0, 0, 32)
    with pytest.raises(ArgumentError, match="step of 2"):
        dataset[x, y, slice(t.start, t.stop, 2)]
    with pytest.raises(ArgumentError, match="chip_size"):
        to_torchgeo_dataset(zone33, ["red"], chip_size=0)
    with pytest.raises(ArgumentError, match="on_error"):
        to_torchgeo_dataset(zone33, ["red"], on_error="ignore")


def silent_file(tmp_path: Any, values: Any = None, **more: Any) -> tuple[Any, Any]:
    """A collection of one file that says nothing of its values, and these."""
    path = tmp_path / "a.tif"
    if values is None:
        values = np.arange(64 * 64, dtype="uint16").reshape(64, 64)
    place = {"transform": (10, 0, 500000, 0, -10, 5200000), "crs": "EPSG:32633"}
    make_cog(path, values, **place, blocksize=32, **more)
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "a",
        "bbox": [15.0, 46.9, 15.01, 46.96],
        "geometry": None,
        "properties": {"datetime": "2023-01-01T00:00:00Z"},
        "links": [],
        "assets": {"a": {"href": str(path), "type": "image/tiff", "roles": ["data"]}},
    }
    return rd.build_from_items([item], name="a", workspace_dir=tmp_path), values


@pytest.mark.parametrize("how", [{}, {"masked": True}, {"masked": True, "scale": True}])
def test_what_only_the_dataset_says_holds_for_chips(tmp_path: Any, how: dict[str, Any]) -> None:
    made, values = silent_file(tmp_path)
    told = replace(made, infos=(rd.BandInfo("a", "a", nodata=7, scale=0.5, offset=1.0),))
    dataset = to_torchgeo_dataset(told, ["a"], **how)
    chip = dataset[query(dataset, 0, 0, 64)]["image"][0].numpy()
    expected = values
    if how:
        known = values.astype("float32")
        expected = np.where(values == 7, np.nan, known * 0.5 + 1 if "scale" in how else known)
    assert np.array_equal(chip, expected, equal_nan=True)
    beyond = dataset[query(dataset, -1, 0, 64)]["image"][0]
    assert torch.isnan(beyond).any() if how else (beyond[0] == 7).all()


def test_a_colour_map_makes_classes_of_chips(tmp_path: Any) -> None:
    classes = (np.arange(64 * 64, dtype="uint8") % 5 * 10).reshape(64, 64)
    colours = {k: (k, 0, 0, 255) for k in range(0, 50, 10)}
    made, _ = silent_file(tmp_path, classes, colormap=colours, nodata=255)
    chips = to_torchgeo_dataset(made, ["a"], resampling="bilinear", resolution=7)
    image = chips[query(chips, 0, 0, 64)]["image"]
    assert set(np.unique(image)) <= set(range(0, 50, 10))


def test_no_value_for_gaps_is_an_error(tmp_path: Any) -> None:
    made, values = silent_file(tmp_path)
    dataset = to_torchgeo_dataset(made, ["a"])
    assert torch.equal(dataset[query(dataset, 0, 0, 64)]["image"][0], torch.from_numpy(values))
    with pytest.raises(NodataError, match="no item covers"):
        dataset[query(dataset, -1, 0, 64)]
    filled = to_torchgeo_dataset(made, ["a"], fill_value=7)
    assert (filled[query(filled, -1, 0, 64)]["image"][0, 0] == 7).all()


def test_label_column(demo: Demo, zone33: Any) -> None:
    dataset = to_torchgeo_dataset(zone33, ["red"], label_field="eo:cloud_cover")
    clouds = zone33.to_table(["eo:cloud_cover"]).column(0).to_pylist()
    for when, expected in enumerate(clouds):
        label = dataset[query(dataset, 0, 0, 32, when)]["label"]
        assert label.ndim == 0
        assert label.item() == pytest.approx(expected)
    x, y, _ = query(dataset, 0, 0, 32)
    with pytest.raises(ArgumentError, match="differs"):
        dataset[x, y, slice(pd.Timestamp("2023-07-01"), pd.Timestamp("2023-07-30"))]
    with pytest.raises(ArgumentError, match="column"):
        to_torchgeo_dataset(zone33, ["red"], label_field="nothing")


def test_polygons_become_masks(zone33: Any) -> None:
    import geopandas as gpd  # noqa: PLC0415
    import shapely  # noqa: PLC0415
    from rasterio.features import rasterize  # noqa: PLC0415

    whole = to_torchgeo_dataset(zone33, ["red"])
    xmin, ymin, xmax, ymax = whole.index.total_bounds
    random = np.random.default_rng(5)
    centres = random.uniform((xmin, ymin), (xmax, ymax), (60, 2))
    shapes = [shapely.Point(*c).buffer(r, 5) for c, r in zip(centres, random.uniform(30, 400, 60))]
    frame = gpd.GeoDataFrame({"crop": random.integers(1, 9, 60)}, geometry=shapes, crs="EPSG:32633")
    dataset = to_torchgeo_dataset(zone33, ["red"], geometries=frame, label_field="crop")
    grid = dataset.windows.grid
    full = rasterize(
        [(s, v) for s, v in zip(shapes, frame["crop"])],
        (grid.height, grid.width),
        transform=rasterio.Affine(*grid.affine),
        dtype="int32",
    )
    seen = 0
    for row, col in [(0, 0), (100, 200), (333, 401)]:
        x, y = grid.left + col * 10, grid.top - row * 10
        t = dataset.index.index[0]
        sample = dataset[slice(x, x + 960), slice(y - 960, y), slice(t.left, t.right)]
        assert sample["mask"].dtype == torch.int64
        assert sample["image"].shape[1:] == sample["mask"].shape
        part = full[row : row + 96, col : col + 96]
        np.testing.assert_array_equal(sample["mask"].numpy(), part)
        seen += len(np.unique(part))
    assert seen > 6
    lonlat = to_torchgeo_dataset(zone33, ["red"], geometries=frame.to_crs(4326), label_field="crop")
    moved = lonlat[query(whole, 100, 200, 96)]["mask"].numpy()
    assert (moved != full[100:196, 200:296]).mean() < 0.002


def test_from_bounds_agrees(demo: Demo, zone33: Any) -> None:
    """The bounds that a sample tells are where its pixels are."""
    dataset = to_torchgeo_dataset(zone33, ["red"])
    x, y, t = query(dataset, 77, 88, 32)
    sample = dataset[slice(x.start + 3, x.stop + 3), y, t]
    x0, y1 = sample_corner(sample)
    with rasterio.open(demo.path(demo.items("33TTN")[0], "red")) as image:
        part = from_bounds(x0, y1 - 320, x0 + 320, y1, image.transform)
        np.testing.assert_array_equal(sample["image"][0].numpy(), image.read(1, window=part))
