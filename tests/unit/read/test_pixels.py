"""One file in pixel space: levels, windows, masks, sidecars and what goes wrong, against rasterio."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from rasteret_dask.errors import (
    ArgumentError,
    HeaderError,
    NotFoundError,
    RasteretError,
    StaleIndexError,
    TileReadError,
)
from rasteret_dask.read.pixels import open_tiff
from rasteret_dask.testing.server import RangeServer

HEIGHT, WIDTH = 150, 131
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5.2e6)}
TILED = {"tiled": True, "blockxsize": 32, "blockysize": 48, "compress": "deflate"}


def pixels(bands: int = 3, dtype: str = "uint16", seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 200, (bands, HEIGHT, WIDTH)).astype(dtype)


def make(path: Path, array: Any, **options: Any) -> Path:
    profile = {"driver": "GTiff", "dtype": array.dtype, "count": len(array), **PLACE, **TILED}
    with rasterio.open(path, "w", height=HEIGHT, width=WIDTH, **{**profile, **options}) as sink:
        sink.write(array)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = make(tmp_path_factory.mktemp("pixels") / "a.tif", pixels(), nodata=7, interleave="band")
    with rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE=64), rasterio.open(found, "r+") as sink:
        sink.build_overviews([2, 4, 8])
    return found


def test_every_level(path: Path) -> None:
    image = open_tiff(str(path))
    assert image.shape == (3, HEIGHT, WIDTH)
    assert image.dtype == "uint16"
    with rasterio.open(path) as source:
        np.testing.assert_array_equal(image.read(), source.read())
    for number in range(3):
        with rasterio.open(path, overview_level=number) as source:
            np.testing.assert_array_equal(image.read(number + 1), source.read())
    assert len(image.layers) == 4


sides = st.tuples(st.integers(0, HEIGHT), st.integers(0, HEIGHT)).map(sorted)
across = st.tuples(st.integers(0, WIDTH), st.integers(0, WIDTH)).map(sorted)


@settings(max_examples=60, deadline=None)
@given(rows=sides, cols=across, bands=st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_any_window_and_bands(
    path: Path, rows: list[int], cols: list[int], bands: list[int]
) -> None:
    image = open_tiff(str(path))
    found = image.read(window=(tuple(rows), tuple(cols)), bands=bands)
    with rasterio.open(path) as source:
        whole = source.read(bands)
    np.testing.assert_array_equal(found, whole[:, slice(*rows), slice(*cols)])


def test_windows_as_rasterio_takes_them(path: Path) -> None:
    image = open_tiff(str(path))
    with rasterio.open(path) as source:
        for window in (
            Window(10, 20, 30, 40),
            ((5, 60), (7, 90)),
            ((None, 20), (100, None)),
            Window(100, 100, 500, 500),
        ):
            np.testing.assert_array_equal(image.read(window=window), source.read(window=window))
        one = image.read(bands=2)
        np.testing.assert_array_equal(one, source.read(2))
    assert one.shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    "arguments",
    [
        {"level": 4},
        {"level": -1},
        {"bands": 0},
        {"bands": [1, 4]},
        {"window": ((0.5, 3), (0, 3))},
        {"window": ((5, 3), (0, 3))},
        {"window": ((-5, 3), (0, 3))},
        {"window": 17},
        {"window": Window(0.25, 0, 3, 3)},
    ],
)
def test_what_the_image_does_not_have(path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        open_tiff(str(path)).read(**arguments)


def same_mask(path: Path, image: Any = None) -> Any:
    ours = (image or open_tiff(str(path))).read(masked=True)
    with rasterio.open(path) as source:
        theirs = source.read(masked=True)
    np.testing.assert_array_equal(np.ma.getmaskarray(ours), np.ma.getmaskarray(theirs))
    np.testing.assert_array_equal(ours.data, theirs.data)
    return ours


def test_masked_by_nodata(path: Path) -> None:
    found = same_mask(path)
    assert found.mask.any()
    assert not found.mask.all()
    assert found.fill_value == 7


def test_masked_by_nan(tmp_path: Path) -> None:
    array = pixels(2, "float32")
    array[:, 5:40, 7] = np.nan
    assert same_mask(make(tmp_path / "n.tif", array, nodata=np.nan)).mask.sum() == 70


def test_masked_by_nothing(tmp_path: Path) -> None:
    assert not same_mask(make(tmp_path / "n.tif", pixels())).mask.any()


@pytest.mark.parametrize("nodata", [None, 7])
def test_masked_by_an_internal_mask_and_its_overviews(nodata: int | None, tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    hole = np.ones((HEIGHT, WIDTH), bool)
    hole[40:90, 30:70] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        make(path, pixels(), nodata=nodata)
        with rasterio.open(path, "r+") as sink:
            sink.write_mask(hole)
            sink.build_overviews([2, 4])
    image = open_tiff(str(path))
    assert all(mask is not None for mask in image.header.masks)
    found = same_mask(path, image)
    np.testing.assert_array_equal(found.mask, np.broadcast_to(~hole, found.shape))
    with rasterio.open(path, overview_level=1) as source:
        theirs = source.read(masked=True)
    np.testing.assert_array_equal(image.read(2, masked=True).mask, np.ma.getmaskarray(theirs))


@pytest.mark.parametrize("bands", [2, 4])
def test_masked_by_alpha(bands: int, tmp_path: Path) -> None:
    array = pixels(bands, "uint8")
    array[-1] = np.where(np.arange(WIDTH) % 5 == 0, 0, 255)
    path = make(
        tmp_path / "a.tif", array, photometric="RGB" if bands == 4 else "MINISBLACK", alpha="YES"
    )
    with rasterio.open(path) as source:
        assert source.mask_flag_enums[0] == [MaskFlags.per_dataset, MaskFlags.alpha]
    assert same_mask(path).mask.any()


@pytest.mark.parametrize("nodata", [None, 9])
def test_sparse_tiles(nodata: int | None, tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint16", count=2, height=HEIGHT, width=WIDTH, nodata=nodata,
        sparse_ok=True, **PLACE, **TILED,
    ) as sink:  # fmt: skip
        sink.write(pixels(2)[:, :48, :32], window=Window(32, 48, 32, 48))
    image = open_tiff(str(path))
    assert (image.header.levels[0].counts == 0).sum() > 5
    with rasterio.open(path) as source:
        np.testing.assert_array_equal(image.read(), source.read())


def test_sidecars_when_asked_for(tmp_path: Path) -> None:
    path = make(tmp_path / "s.tif", pixels())
    hole = np.ones((HEIGHT, WIDTH), bool)
    hole[:40] = False
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False, TIFF_USE_OVR=True),
        rasterio.open(path, "r+") as sink,
    ):
        sink.build_overviews([2, 4])
        sink.write_mask(hole)
    assert (tmp_path / "s.tif.ovr").exists()
    assert (tmp_path / "s.tif.msk").exists()
    alone = open_tiff(str(path))
    assert len(alone.layers) == 1
    assert not alone.read(masked=True).mask.any()
    image = open_tiff(str(path), sidecars=True)
    assert len(image.layers) == 3
    same_mask(path, image)
    for number in range(2):
        with rasterio.open(path, overview_level=number) as source:
            np.testing.assert_array_equal(image.read(number + 1), source.read())


def test_sidecars_that_are_not_there(path: Path) -> None:
    assert len(open_tiff(str(path), sidecars=True).layers) == 4


def test_over_http_and_over_a_store_without_versions(path: Path) -> None:
    expected = open_tiff(str(path)).read(1)
    with RangeServer(path.parent) as server:
        image = open_tiff(f"{server.url}/{path.name}")
        server.reset()
        np.testing.assert_array_equal(image.read(1), expected)
        found = server.counters()
    # Twelve tiles lie side by side: one request, or a few, and no header again.
    assert 1 <= found.requests <= 3
    assert found.bytes < path.stat().st_size / 2
    store = fsspec.filesystem("memory")
    store.pipe_file("/pixels/a.tif", path.read_bytes())
    image = open_tiff("memory://pixels/a.tif")
    np.testing.assert_array_equal(image.read(1), expected)
    with pytest.raises(NotFoundError):
        open_tiff("memory://pixels/none.tif")
    store.rm("/pixels", recursive=True)


def test_a_tile_that_does_not_decode_is_named(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bad.tif"
    shutil.copy(path, copy)
    level = open_tiff(str(copy)).header.levels[1]
    across = level.grid[1]
    number = 1 * across + 1
    start, count = int(level.offsets[number]), int(level.counts[number])
    with copy.open("r+b") as handle:
        handle.seek(start)
        handle.write(b"\xff" * count)
    image = open_tiff(str(copy))
    with pytest.raises(TileReadError) as caught:
        image.read(1)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.level, error.tile, error.url) == (1, (1, 1), str(copy))
    assert error.range == (start, start + count)
    # Full resolution, and the rest of that level, are as they were.
    image.read(0)
    image.read(1, window=((0, 64), (0, 66)))


def test_a_file_that_has_changed(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "old.tif"
    shutil.copy(path, copy)
    image = open_tiff(str(copy))
    make(copy, pixels(seed=5), compress="lzw")
    os.utime(copy, (1, 1))
    with pytest.raises(StaleIndexError):
        image.read()
    np.testing.assert_array_equal(open_tiff(str(copy)).read(), pixels(seed=5))


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as missing:
        open_tiff(str(tmp_path / "none.tif"))
    assert missing.value.url == str(tmp_path / "none.tif")
    (tmp_path / "t.tif").write_text("<html>404</html>" * 10)
    with pytest.raises(HeaderError) as wrong:
        open_tiff(str(tmp_path / "t.tif"))
    assert isinstance(wrong.value, RasteretError)
    assert wrong.value.url == str(tmp_path / "t.tif")


@pytest.mark.parametrize("dtype", ["complex_int16", "complex64", "complex128"])
@pytest.mark.parametrize("order", ["LITTLE", "BIG"])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("predictor", [1, 2])
def test_complex_numbers_that_were_predicted(
    tmp_path: Path, dtype: str, order: str, interleave: str, predictor: int
) -> None:
    parts = np.random.default_rng(4).integers(-30_000, 30_000, (2, 2, HEIGHT, WIDTH)).astype(float)
    array = (parts[0] + 1j * parts[1]).astype(
        "complex128" if dtype == "complex128" else "complex64"
    )
    if dtype == "complex128":
        predictor = 1  # GDAL knows none over 128 bits
    how = {"dtype": dtype, "endianness": order, "interleave": interleave, "predictor": predictor}
    file = make(tmp_path / "c.tif", array, **how)
    with rasterio.open(file) as source:
        expected = source.read()
    assert np.array_equal(expected, array)
    found = open_tiff(str(file))
    assert np.array_equal(found.read(), expected)
    window = Window(33, 50, 40, 60)
    assert np.array_equal(found.read(window=window), expected[:, 50:110, 33:73])
