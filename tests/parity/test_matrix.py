"""A generated matrix of encodings: what GDAL (or tifffile) wrote, we read to the last bit."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.errors import NotGeoreferencedWarning

from rasteret_dask.read.pixels import open_tiff

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
FLOATS = ("float32", "float64")
COMPLEX = ("complex64", "complex128")
CODECS = ("none", "lzw", "deflate", "packbits", "lzma", "zstd")
PREDICTED = ("lzw", "deflate", "zstd")
ORDERS = ("LITTLE", "BIG")
HEIGHT, WIDTH = 53, 71  # primes: no tile divides them


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def noise(dtype: str, bands: int, *, bits: int | None = None, seed: int = 0) -> Any:
    """Values over the whole range of a type, smooth in places so that predictors matter."""
    rng = np.random.default_rng(seed)
    shape = (bands, HEIGHT, WIDTH)
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        info = np.iinfo(kind)
        low, high = (0, 2**bits - 1) if bits else (info.min, info.max)
        return rng.integers(low, high, shape, dtype=dtype, endpoint=True)
    smooth = np.cumsum(rng.normal(size=shape), axis=2) * 1e3
    if kind.kind == "c":
        return (smooth + 1j * smooth[:, ::-1]).astype(dtype)
    smooth[:, 3, 5] = np.nan
    smooth[:, 4, 6] = np.inf
    return smooth.astype(dtype)


def write(path: Path, array: Any, **options: Any) -> Path:
    profile = {"driver": "GTiff", "dtype": array.dtype, "count": array.shape[0], **options}
    with rasterio.open(path, "w", height=HEIGHT, width=WIDTH, **profile) as sink:
        sink.write(array)
    return path


def check(path: Path, expected: Any) -> None:
    """Compare the whole, and one window that starts and ends inside tiles."""
    image = open_tiff(str(path))
    found = image.read()
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    part = image.read(window=((17, 31), (9, 66)), bands=[expected.shape[0]])
    np.testing.assert_array_equal(part, expected[-1:, 17:31, 9:66])


def types_of(codec: str, predictor: int) -> tuple[str, ...]:
    if predictor == 1:
        return INTEGERS + FLOATS + COMPLEX
    return (*INTEGERS, *FLOATS) if predictor == 2 else FLOATS


CASES = [(codec, 1) for codec in CODECS] + list(itertools.product(PREDICTED, (2, 3)))


@pytest.mark.parametrize(("codec", "predictor"), CASES)
@pytest.mark.parametrize("order", ORDERS)
def test_lossless(codec: str, predictor: int, order: str, tmp_path: Path) -> None:
    dtypes = types_of(codec, predictor)
    for number, (dtype, interleave) in enumerate(itertools.product(dtypes, ("pixel", "band"))):
        array = noise(dtype, 3, seed=number)
        options = {"compress": codec, "interleave": interleave, "endianness": order}
        if predictor > 1:
            options["predictor"] = str(predictor)
        # Tiles of two shapes and strips, classic and big files, in turn.
        if number % 3 < 2:
            tile = (16, 32) if number % 3 else (64, 16)
            options |= {"tiled": True, "blockysize": tile[0], "blockxsize": tile[1]}
        else:
            options |= {"blockysize": 7}
        options["BIGTIFF"] = "YES" if number % 2 else "NO"
        path = write(tmp_path / f"{number}.tif", array, **options)
        with rasterio.open(path) as source:
            np.testing.assert_array_equal(source.read(), array)
        check(path, array)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 17, 20, 24, 31])
@pytest.mark.parametrize("order", ORDERS)
def test_odd_depths(bits: int, order: str, tmp_path: Path) -> None:
    dtype = "uint8" if bits < 8 else "uint16" if bits < 16 else "uint32"
    for number, (interleave, codec) in enumerate(
        itertools.product(("pixel", "band"), ("none", "deflate", "zstd"))
    ):
        array = noise(dtype, 3, bits=bits, seed=number)
        path = write(
            tmp_path / f"{number}.tif",
            array,
            nbits=bits,
            compress=codec,
            interleave=interleave,
            endianness=order,
            tiled=True,
            blockxsize=32,
            blockysize=16,
        )
        check(path, array)


@pytest.mark.parametrize("predictor", [1, 2, 3])
@pytest.mark.parametrize("order", ORDERS)
def test_half_floats(predictor: int, order: str, tmp_path: Path) -> None:
    array = noise("float32", 2).astype("float16").astype("float32")
    path = write(
        tmp_path / "half.tif",
        array,
        nbits=16,
        compress="deflate",
        predictor=predictor,
        endianness=order,
        tiled=True,
        blockxsize=32,
        blockysize=16,
    )
    check(path, array.astype("float16"))


@pytest.mark.parametrize("order", ORDERS)
def test_complex_integers(order: str, tmp_path: Path) -> None:
    """Pairs of int16; rasterio cannot write pairs of int32, of which the corpus has one."""
    part = noise("int16", 2).astype("float64")
    array = (part + 1j * part[:, ::-1]).astype("complex64")
    path = tmp_path / "c.tif"
    profile = {"driver": "GTiff", "dtype": "complex_int16", "count": 2, "endianness": order}
    with rasterio.open(path, "w", height=HEIGHT, width=WIDTH, **profile) as sink:
        sink.write(array)
    check(path, array)


@pytest.mark.parametrize("codec", ["lerc", "lerc_deflate", "lerc_zstd"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_lerc(codec: str, dtype: str, tmp_path: Path) -> None:
    for interleave in ("pixel", "band"):
        array = noise(dtype, 3)
        if np.dtype(dtype).kind == "f":
            array = np.nan_to_num(array, posinf=1.0)
            array[:, 10:12, 20:30] = np.nan
        path = write(
            tmp_path / f"{interleave}.tif",
            array,
            compress=codec,
            interleave=interleave,
            tiled=True,
            blockxsize=32,
            blockysize=16,
        )
        with rasterio.open(path) as source:
            check(path, source.read())


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("bands", [3, 4])
def test_webp(lossless: bool, bands: int, tmp_path: Path) -> None:
    path = write(
        tmp_path / "w.tif",
        noise("uint8", bands),
        compress="webp",
        webp_lossless=lossless,
        interleave="pixel",
        tiled=True,
        blockxsize=32,
        blockysize=16,
    )
    with rasterio.open(path) as source:
        check(path, source.read())


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("bands", "interleave"), [(1, "pixel"), (3, "pixel"), (3, "band"), (4, "pixel")]
)
def test_jpeg_without_chroma_subsampling(
    bands: int, interleave: str, order: str, tmp_path: Path
) -> None:
    """Grey, RGB and four bands: every decoder agrees to the last bit."""
    options = {} if bands != 3 else {"photometric": "RGB"}
    path = write(
        tmp_path / "j.tif",
        noise("uint8", bands),
        compress="jpeg",
        interleave=interleave,
        endianness=order,
        tiled=True,
        blockxsize=32,
        blockysize=16,
        **options,
    )
    with rasterio.open(path) as source:
        check(path, source.read())


@pytest.mark.parametrize("bands", [1, 3])
def test_jpeg_of_twelve_bits(bands: int, tmp_path: Path) -> None:
    options = {"photometric": "RGB"} if bands == 3 else {}
    path = write(
        tmp_path / "j.tif",
        noise("uint16", bands, bits=12),
        compress="jpeg",
        nbits=12,
        interleave="pixel",
        tiled=True,
        blockxsize=32,
        blockysize=16,
        **options,
    )
    with rasterio.open(path) as source:
        check(path, source.read())


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_jpeg_tables(mode: int, tmp_path: Path) -> None:
    path = write(
        tmp_path / "j.tif",
        noise("uint8", 1),
        compress="jpeg",
        jpegtablesmode=mode,
        tiled=True,
        blockxsize=32,
        blockysize=16,
    )
    with rasterio.open(path) as source:
        check(path, source.read())


def test_jpeg_with_subsampled_chroma_as_tifffile_reads_it(tmp_path: Path) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    array = np.stack([x * 3, y * 4, (x + y) * 2]).astype("uint8")
    path = write(
        tmp_path / "j.tif",
        array,
        compress="jpeg",
        photometric="YCBCR",
        interleave="pixel",
        tiled=True,
        blockxsize=32,
        blockysize=16,
    )
    check(path, np.moveaxis(tifffile.imread(path), -1, 0))
    with rasterio.open(path) as source:
        gap = np.abs(open_tiff(str(path)).read().astype(int) - source.read())
    assert gap.mean() <= 2.0  # the bound of docs/limits.md, which upsampling alone causes


@pytest.mark.parametrize("codec", ["ccittrle", "ccittfax3", "ccittfax4"])
@pytest.mark.parametrize("photometric", ["MINISWHITE", "MINISBLACK"])
def test_fax(codec: str, photometric: str, tmp_path: Path) -> None:
    array = noise("uint8", 1, bits=1)
    path = write(
        tmp_path / "f.tif",
        array,
        nbits=1,
        compress=codec,
        photometric=photometric,
        blockysize=10,
    )
    check(path, array)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("bands", [1, 3])
def test_jpeg_xl_against_tifffile(dtype: str, bands: int, tmp_path: Path) -> None:
    array = np.nan_to_num(noise(dtype, bands), posinf=1.0)
    if dtype == "float32":
        array = array / np.abs(array).max()
    path = tmp_path / "x.tif"
    try:
        tifffile.imwrite(
            path,
            np.moveaxis(array, 0, -1) if bands > 1 else array[0],
            compression="jpegxl",
            photometric="rgb" if bands == 3 else "minisblack",
            tile=(16, 32),
        )
    except imagecodecs.JpegxlError as error:
        # Some builds of the encoder refuse floats of several bands; there is no file to read then.
        pytest.skip(f"the encoder does not write {bands} bands of {dtype}: {error}")
    found = tifffile.imread(path)
    check(path, np.moveaxis(found, -1, 0) if bands > 1 else found[None])


@pytest.mark.parametrize("codec", [None, "deflate", "lzw", "packbits", "lzma", "zstd"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_float16_and_fill_order_written_by_tifffile(
    codec: str | None, order: str, tmp_path: Path
) -> None:
    array = noise("float32", 1).astype("float16")
    path = tmp_path / "t.tif"
    tifffile.imwrite(path, array[0], compression=codec, byteorder=order, tile=(16, 32))
    check(path, array)


@pytest.mark.parametrize("codec", ["none", "lzw", "deflate", "zstd"])
def test_last_strip_and_single_column(codec: str, tmp_path: Path) -> None:
    array = noise("uint16", 1)
    path = write(tmp_path / "s.tif", array, compress=codec, blockysize=50)
    check(path, array)
