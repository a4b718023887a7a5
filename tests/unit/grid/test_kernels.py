"""Resampling against GDAL's own kernels, on one CRS and between two."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject

from rasteret_dask.grid.kernels import AREA, METHODS, POINT, Samples, resample
from rasteret_dask.grid.warp import CrsMap, choose_step, measure_ratio

RATIOS = [(0.7, 0.33), (1.0, 0.5), (1.3, 0.0), (2.3, 0.17), (4.0, 0.0)]
EXACT = [m for m in METHODS if m not in ("nearest", "mode")]


def axes(ratio: float, shift: float, shape: tuple[int, int]) -> Samples:
    height, width = (int(n / ratio) - 2 for n in shape)
    x, y = np.arange(width), np.arange(height)
    return Samples(
        (x + 0.5) * ratio + shift,
        (y + 0.5) * ratio + shift,
        x * ratio + shift,
        (x + 1) * ratio + shift,
        y * ratio + shift,
        (y + 1) * ratio + shift,
    )


def gdal(
    image: np.ndarray,
    transform: Affine,
    crs: str,
    size: tuple[int, int],
    method: str,
    nodata: float | None,
    source: tuple[str, Affine] = ("EPSG:32633", Affine(10, 0, 0, 0, -10, 2000)),
) -> np.ndarray:
    """GDAL's warp with its approximation switched off (``reproject`` ignores a tolerance)."""
    with rasterio.MemoryFile() as memory:
        profile = {"height": image.shape[0], "width": image.shape[1], "count": 1}
        with memory.open(
            driver="GTiff",
            dtype=image.dtype,
            crs=source[0],
            transform=source[1],
            nodata=nodata,
            **profile,
        ) as out:
            out.write(image, 1)
        with (
            memory.open() as file,
            WarpedVRT(
                file,
                crs=crs,
                transform=transform,
                height=size[0],
                width=size[1],
                resampling=Resampling[method],
                tolerance=1e-6,
                nodata=-9999,
            ) as warped,
        ):
            return warped.read(1)


def gdal_whole(
    image: np.ndarray, transform: Affine, size: tuple[int, int], method: str, nodata: float | None
) -> np.ndarray:
    """GDAL's warp in one piece, within a CRS, where its approximation of a straight line is exact.

    In pieces, as a VRT warps, it takes the width of a kernel from the size of each piece.
    """
    out = np.full(size, -9999, np.float32)
    reproject(
        image,
        out,
        src_transform=Affine(10, 0, 0, 0, -10, 2000),
        src_crs="EPSG:32633",
        src_nodata=nodata,
        dst_transform=transform,
        dst_crs="EPSG:32633",
        dst_nodata=-9999,
        resampling=Resampling[method],
    )
    return out


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(3)
    out = (rng.integers(0, 900, (200, 220)) / 3).astype(np.float32)
    out[rng.random(out.shape) < 0.1] = -1
    return out


@pytest.mark.parametrize("nodata", [None, -1.0])
@pytest.mark.parametrize(("ratio", "shift"), RATIOS)
@pytest.mark.parametrize("method", EXACT)
def test_within_one_crs_every_kernel_is_gdals(
    image: np.ndarray, method: str, ratio: float, shift: float, nodata: float | None
) -> None:
    samples = axes(ratio, shift, image.shape)
    grid = Affine(10 * ratio, 0, 10 * shift, 0, -10 * ratio, 2000 - 10 * shift)
    expected = gdal_whole(image, grid, (len(samples.y), len(samples.x)), method, nodata)
    valid = None if nodata is None else image != nodata
    values, good = resample(image, valid, samples, method, (ratio, ratio))
    known = expected != -9999
    assert (good == known).mean() > 0.999
    both = good & known
    assert both.mean() > 0.85
    # GDAL adds in another order and in places in single precision.
    assert np.abs(values[both] - expected[both]).max() < 1e-3


@pytest.mark.parametrize(("ratio", "shift"), [(2.0, 0.0), (3.0, 0.0), (4.0, 0.0)])
def test_mode_is_gdals_where_no_tie_decides(ratio: float, shift: float) -> None:
    classes = np.random.default_rng(4).integers(1, 6, (200, 220)).astype(np.uint8)
    samples = axes(ratio, shift, classes.shape)
    grid = Affine(10 * ratio, 0, 0, 0, -10 * ratio, 2000)
    size = (len(samples.y), len(samples.x))
    expected = gdal_whole(classes.astype(np.float32), grid, size, "mode", None)
    values, _ = resample(classes, None, samples, "mode", (ratio, ratio))
    n = int(ratio)
    blocks = classes[: len(samples.y) * n, : len(samples.x) * n]
    blocks = (
        blocks.reshape(len(samples.y), n, len(samples.x), n)
        .swapaxes(1, 2)
        .reshape(*values.shape, -1)
    )
    counts = np.stack([(blocks == c).sum(axis=-1) for c in range(1, 6)])
    single = (counts == counts.max(axis=0)).sum(axis=0) == 1
    assert single.mean() > 0.5
    assert np.array_equal(values[single], expected[single])
    # Among equals ours is the smallest, whatever lies first.
    assert np.array_equal(values, counts.argmax(axis=0) + 1)


@pytest.mark.parametrize("method", [*POINT, *AREA])
def test_separable_axes_give_what_planes_give(image: np.ndarray, method: str) -> None:
    samples = axes(1.7, 0.4, image.shape)
    valid = image != -1
    a, good = resample(image, valid, samples, method, (1.7, 1.7))
    b, also = resample(image, valid, samples.plane(), method, (1.7, 1.7))
    assert np.array_equal(good, also)
    assert np.allclose(a[good], b[good], rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("method", [*POINT, *AREA])
def test_a_part_of_the_output_from_a_part_of_the_source_has_the_same_bits(
    image: np.ndarray, method: str
) -> None:
    samples = axes(1.7, 0.4, image.shape)
    valid = image != -1
    whole, good = resample(image, valid, samples, method, (1.7, 1.7))
    rows, cols = slice(30, 61), slice(7, 90)
    top, left = int(30 * 1.7) - 6, int(7 * 1.7) - 6
    bottom, right = int(61 * 1.7) + 8, int(90 * 1.7) + 8
    part = Samples(
        samples.x[cols],
        samples.y[rows],
        samples.x0[cols],
        samples.x1[cols],
        samples.y0[rows],
        samples.y1[rows],
        left=left,
        top=top,
    )
    window = (slice(top, bottom), slice(left, right))
    values, known = resample(image[window], valid[window], part, method, (1.7, 1.7))
    assert np.array_equal(known, good[rows, cols])
    assert np.array_equal(values[known], whole[rows, cols][known])


def test_nodata_bleeds_into_nothing() -> None:
    image = np.full((20, 20), 100.0)
    valid = np.ones(image.shape, dtype=bool)
    image[10, 10], valid[10, 10] = 1e6, False
    samples = axes(1.0, 0.4, image.shape)
    for method in (*POINT, *AREA):
        values, good = resample(image, valid, samples, method, (1.0, 1.0))
        assert np.allclose(values[good], 100.0), method


@pytest.mark.parametrize(("method", "bound"), [("bilinear", 2.0), ("cubic", 3.0)])
def test_between_two_crs_smooth_images_agree_with_gdals(method: str, bound: float) -> None:
    """The bound in percent of the image's range: GDAL widens kernels by a ratio of its own for each chunk it cuts."""
    y, x = np.mgrid[0:600, 0:600]
    image = (1000 + 500 * np.sin(x / 40) * np.cos(y / 55)).astype(np.float32)
    source = Affine(10, 0, 500_000, 0, -10, 5_000_000)
    grid = (10.0, 0.0, 26_000.0, 0.0, -10.0, 5_015_000.0)
    crs_map = CrsMap("EPSG:32634", "EPSG:32633", grid, tuple(source)[:6], 1)  # type: ignore[arg-type]
    u, v = crs_map.exact(np.array([250.0]), np.array([250.0]))
    # Put the middle of the source under the middle of the grid.
    source = source @ Affine.translation(float(u[0]) - 300, float(v[0]) - 300)
    six = tuple(source)[:6]
    crs_map = CrsMap("EPSG:32634", "EPSG:32633", grid, six, 1)  # type: ignore[arg-type]
    window = (0, 500, 0, 500)
    step, ratio = choose_step(crs_map, window), measure_ratio(crs_map, window)
    crs_map = CrsMap("EPSG:32634", "EPSG:32633", grid, six, step, None, ratio)  # type: ignore[arg-type]
    u, v = crs_map.coordinates(window)
    values, good = resample(image, None, Samples(u, v, u, u, v, v), method, ratio)
    expected = gdal(
        image, Affine(*grid), "EPSG:32634", (500, 500), method, None, ("EPSG:32633", source)
    )
    both = good & (expected != -9999)
    assert both.mean() > 0.9
    assert np.abs(values[both] - expected[both]).max() < 1000 * bound / 100
