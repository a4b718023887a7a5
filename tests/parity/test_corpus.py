"""Every TIFF of the corpus against GDAL: equal, or in the one table of limits below with the reason."""

from __future__ import annotations

import csv
import os
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyproj
import pytest
import rasterio
import tifffile
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.windows import Window

from rasteret_dask.errors import (
    HeaderError,
    RasteretError,
    SourceError,
    TileReadError,
    UnsupportedTiffError,
)
from rasteret_dask.read.pixels import TiffImage, open_tiff

GDAL = "rouault+gdal/autotest/gcore/data/"
FUZZ = "image-rs+image-tiff/tests/fuzz_images/oor_panic/"
MAPCHETE = (
    "mapchete+mapchete-eo/tests/testdata/sentinel2/full_products/sentinel-2-l2a/"
    "S2A_33TWL_20230815_0_L2A/"
)


class Limit(NamedTuple):
    """Why a file is not byte for byte what GDAL gives."""

    kind: str
    reason: str
    tag: str | None = None


# The honest list of limits; docs/limits.md repeats it. Kinds:
#   refused    we name what it is and raise; GDAL reads it
#   damaged    neither reads it
#   beyond     GDAL (the wheel's) does not read it, tifffile is the oracle
#   chroma     JPEG with subsampled chroma: libjpeg-turbo and GDAL's libjpeg upsample differently
#   type       equal by value; the type differs, for the reason given
LIMITS: dict[str, Limit] = {
    # --- refused by name
    MAPCHETE + "B04.tif": Limit("refused", "JPEG 2000 under the name .tif", "magic"),
    MAPCHETE + "SCL.tif": Limit("refused", "JPEG 2000 under the name .tif", "magic"),
    GDAL + "rgbsmall_cmyk.tif": Limit(
        "refused", "CMYK: GDAL turns inks into RGBA", "PhotometricInterpretation"
    ),
    GDAL + "uint16_sgilog.tif": Limit("refused", "SGI LogLuv compression", "Compression"),
    GDAL + "zackthecat.tif": Limit("refused", "old-style JPEG (TIFF 6.0)", "Compression"),
    **{
        GDAL + f"ycbcr_{name}_lzw{more}.tif": Limit(
            "refused", "YCbCr outside of JPEG", "PhotometricInterpretation"
        )
        for name, more in (("12", ""), ("41", ""), ("44", ""), ("44", "_optimized"))
    },
    # --- damaged, for GDAL too
    FUZZ + "colormap-shl-overflow.tiff": Limit("damaged", "tags of nonsense types"),
    FUZZ + "graydepth-invert-overflow-5a0aad5024cc4ff3.tiff": Limit("damaged", "no such tags"),
    FUZZ + "sample-get-lzw-stuck.tiff": Limit("damaged", "LZW data too short"),
    GDAL + "bigtiff_header_extract.tif": Limit("damaged", "a header without its file"),
    GDAL + "byte_buggy_packbits.tif": Limit("damaged", "PackBits data too long"),
    GDAL + "byte_zstd_corrupted.tif": Limit("damaged", "corrupt ZSTD data"),
    GDAL + "corrupted_deflate_singlestrip.tif": Limit("damaged", "no compression 0"),
    GDAL + "corrupted_gtiff_tags.tif": Limit("damaged", "pixels past the end"),
    GDAL + "gtiff/huge_raster_with_ovr_huge_block.tif": Limit("damaged", "a strip of 140 TB"),
    GDAL + "gtiff/lzw_corrupted.tif": Limit("damaged", "corrupt LZW data"),
    GDAL + "gtiff/missing_tilebytecounts_and_offsets.tif": Limit("damaged", "no tile table"),
    GDAL + "gtiff/ossfuzz_470691578.tif": Limit("damaged", "strip table past the end"),
    GDAL + "gtiff/unsupported_codec_jp2000.tif": Limit("damaged", "JPEG 2000 in TIFF"),
    GDAL + "gtiff/unsupported_codec_unknown.tif": Limit("damaged", "codec 44510"),
    GDAL + "huge4GB.tif": Limit("damaged", "4 GB of pixels that are not there"),
    GDAL + "tiled_bad_offset.tif": Limit("damaged", "tile past the end"),
    GDAL + "unknown_compression.tif": Limit("damaged", "codec 65535"),
    GDAL + "ycbcr_24_lzw.tif": Limit("damaged", "YCbCr outside of JPEG"),
    GDAL + "zackthecat_corrupted.tif": Limit("damaged", "old-style JPEG"),
    # --- read, though GDAL's wheel does not
    GDAL + "gtiff/byte_JXL.tif": Limit("beyond", "JPEG XL"),
    GDAL + "gtiff/byte_JXL_tiled.tif": Limit("beyond", "JPEG XL"),
    GDAL + "gtiff/byte_jxl_dng_1_7_52546.tif": Limit("beyond", "JPEG XL"),
    GDAL + "gtiff/jxl-rgbi.tif": Limit("beyond", "JPEG XL"),
    GDAL + "gtiff/rgbsmall_JXL_separate.tif": Limit("beyond", "JPEG XL"),
    GDAL + "gtiff/rgbsmall_JXL_tiled_separate.tif": Limit("beyond", "JPEG XL"),
    "locationtech+geotrellis/raster/data/geotiff-test-files/jpeg-test-deflate-small.tif": Limit(
        "beyond", "checksums cut off by a byte, which libtiff does not forgive"
    ),
    # --- lossy, and decoded differently by other libraries
    **{
        path: Limit("chroma", "JPEG with chroma at half resolution")
        for path in (
            "cogeotiff+rio-tiler/tests/fixtures/cog_hirise_mars.tif",
            "cogeotiff+rio-tiler/tests/fixtures/cog_rgb.tif",
            "image-rs+image-tiff/tests/images/quad-tile.jpg.tiff",
            "image-rs+image-tiff/tests/images/tiled-jpeg-ycbcr.tif",
            "rasterio+rasterio/tests/data/cogeo.tif",
            GDAL + "ycbcr_with_mask.tif",
        )
    },
    # --- equal in value
    GDAL + "gtiff/cint32_big_endian.tif": Limit("type", "complex64 cannot hold all int32 pairs"),
    GDAL + "int24.tif": Limit("type", "the samples are signed, GDAL calls them uint32"),
}

CHROMA_MAX, CHROMA_MEAN, LUMA_MEAN = 100, 1.0, 0.3
"""What upsampling may change: one sample, the mean over all samples, the mean of the luma."""

WHOLE = 12_000_000
"""Images of more samples are compared window by window (and whole in the slow test)."""


def _folder() -> Path | None:
    named = os.environ.get("RASTERET_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"
    return folder / "corpus" if (folder / "corpus").is_dir() else None


def _tiffs() -> list[str]:
    folder = _folder()
    if folder is None:
        return []
    with (folder / "MANIFEST.tsv").open(encoding="utf-8") as handle:
        rows = csv.DictReader(handle, delimiter="\t")
        return [row["path"] for row in rows if row["kind"] == "tiff"]


TIFFS = _tiffs()
NONE = pytest.param("", marks=pytest.mark.skip("no corpus beside the checkout"))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def same(ours: Any, theirs: Any) -> None:
    """Equal in shape and value; in type too, but for float16, which older GDAL widens."""
    assert ours.shape == theirs.shape
    if ours.dtype != "float16":
        assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


def near(ours: Any, theirs: Any) -> None:
    """Within the stated bound for subsampled chroma."""
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    gap = ours.astype(float) - theirs
    assert np.abs(gap).max() <= CHROMA_MAX
    assert np.abs(gap).mean() <= CHROMA_MEAN
    luma = np.tensordot([0.299, 0.587, 0.114], gap, 1)
    assert np.abs(luma).mean() <= LUMA_MEAN


def by_value(ours: Any, theirs: Any) -> None:
    assert ours.shape == theirs.shape
    np.testing.assert_array_equal(ours, theirs.astype(ours.dtype))


COMPARE = {"chroma": near, "type": by_value}


def windows(height: int, width: int) -> list[Window | None]:
    """All of a small image; corners, middle and odd places of a large one."""
    step = 700
    tops, lefts = (sorted({0, 513, n // 2 - 100, max(0, n - step)}) for n in (height, width))
    places = [(r, c) for r in tops if r >= 0 for c in lefts if c >= 0]
    return [Window(c, r, min(step, width - c), min(step, height - r)) for r, c in places[::2]]


def compare_level(image: TiffImage, source: Any, level: int, check: Any) -> None:
    if source.count * source.width * source.height <= WHOLE:
        check(image.read(level), source.read())
        return
    for window in windows(source.height, source.width):
        check(image.read(level, window), source.read(window=window))


@pytest.mark.skipif(not TIFFS, reason="no corpus beside the checkout; set RASTERET_TEST_DATA")
def test_the_table_names_files_of_the_corpus() -> None:
    assert set(LIMITS) <= set(TIFFS)


def test_the_docs_repeat_the_table() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
    for name, limit in LIMITS.items():
        assert f"`{Path(name).name}`" in text, name
        assert limit.reason in text, limit.reason
    for bound in (CHROMA_MAX, CHROMA_MEAN, LUMA_MEAN):
        assert f"{bound:g}" in text


@pytest.mark.parametrize("name", TIFFS or [NONE], ids=str)
def test_pixels_and_overviews(name: str, corpus: Path) -> None:
    limit = LIMITS.get(name)
    path = str(corpus / name)
    if limit is not None and limit.kind in ("refused", "damaged"):
        damage = (HeaderError, TileReadError, SourceError)
        expected = UnsupportedTiffError if limit.kind == "refused" else damage
        with pytest.raises(expected) as caught:
            open_tiff(path).read()
        assert limit.tag is None or caught.value.tag == limit.tag
        assert isinstance(caught.value, RasteretError)
        assert caught.value.url == path
        return
    image = open_tiff(path)
    if limit is not None and limit.kind == "beyond":
        same(image.read(), _by_tifffile(path, image))
        return
    if limit is not None and limit.kind == "chroma":
        same(image.read(), _by_tifffile(path, image))  # libjpeg-turbo, as ours: to the last bit
    check = COMPARE[limit.kind] if limit is not None else same
    with rasterio.open(path) as source:
        compare_level(image, source, 0, check)
        overviews = len(source.overviews(1))
    assert len(image.layers) == overviews + 1
    widths = [layer.level.width for layer in image.layers]
    assert widths == sorted(widths, reverse=True)
    ours = {layer.level.width: number for number, layer in enumerate(image.layers)}
    for number in range(overviews):
        with rasterio.open(path, overview_level=number) as source:
            # GDAL keeps the order of the file, we go from fine to coarse.
            compare_level(image, source, ours[source.width], check)


def _by_tifffile(path: str, image: TiffImage) -> Any:
    if path.endswith("jpeg-test-deflate-small.tif"):
        return _by_zlib(path, image)
    with tifffile.TiffFile(path) as file:
        found = file.pages[0].asarray()
        planes = file.pages[0].planarconfig == 2
    found = found.reshape(image.shape) if planes or found.ndim == 2 else np.moveaxis(found, -1, 0)
    return found


def _by_zlib(path: str, image: TiffImage) -> Any:
    """Inflate strips of one row each; zlib, unlike libdeflate, does not need the end of a stream."""
    data, level = Path(path).read_bytes(), image.header.levels[0]
    rows = [
        zlib.decompressobj().decompress(data[start : start + count])
        for start, count in zip(level.offsets.tolist(), level.counts.tolist(), strict=True)
    ]
    return (
        np.frombuffer(b"".join(rows), "u1").reshape(level.height, level.width, 3).transpose(2, 0, 1)
    )


def _gdal_reads(name: str) -> bool:
    limit = LIMITS.get(name)
    return limit is None or limit.kind in ("chroma", "type")


READ = [name for name in TIFFS if _gdal_reads(name)]


@pytest.mark.parametrize("name", READ or [NONE], ids=str)
def test_place_and_nodata(name: str, corpus: Path) -> None:
    path = str(corpus / name)
    header = open_tiff(path).header
    with rasterio.open(path) as source:
        gcps, gcp_crs = source.gcps
        if header.transform is not None:
            assert header.transform == pytest.approx(
                tuple(source.transform)[:6], rel=1e-12, abs=1e-9
            )
        else:
            assert source.transform.is_identity
        assert len(header.gcps) == len(gcps)
        for ours, theirs in zip(header.gcps, gcps, strict=True):
            assert ours == pytest.approx((theirs.col, theirs.row, theirs.x, theirs.y, theirs.z))
        assert header.nodata == pytest.approx(source.nodata, nan_ok=True)
        _same_crs(header.crs, source.crs or gcp_crs, source)
        if any(value != 1 for value in source.scales) or any(source.offsets):
            assert [v if v is not None else 1.0 for v in header.scales] == list(source.scales)
            assert [v if v is not None else 0.0 for v in header.offsets] == list(source.offsets)


def _same_crs(ours: str | None, theirs: Any, source: Any) -> None:
    """The same code, or the same longitudes and latitudes (vertical parts are not read)."""
    if not theirs:
        assert ours is None
        return
    assert ours is not None
    mine, other = pyproj.CRS.from_user_input(ours), pyproj.CRS.from_wkt(theirs.to_wkt())
    if other.is_compound:
        other = other.sub_crs_list[0]
    if mine.equals(other, ignore_axis_order=True):
        return
    a, b, c, d, e, f = tuple(source.transform)[:6]
    places = np.array(
        [
            (a * x + b * y + c, d * x + e * y + f)
            for x in (0, source.width)
            for y in (0, source.height)
        ]
    )
    lonlat = [
        pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(*places.T)
        for crs in (mine, other)
    ]
    np.testing.assert_allclose(lonlat[0], lonlat[1], rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", READ or [NONE], ids=str)
def test_large_images_to_the_last_pixel(name: str, corpus: Path) -> None:
    path = str(corpus / name)
    with rasterio.open(path) as source:
        if source.count * source.width * source.height <= WHOLE:
            pytest.skip("compared whole already")
        image = open_tiff(path)
        for top in range(0, source.height, 512):
            window = Window(0, top, source.width, min(512, source.height - top))
            same(image.read(0, window), source.read(window=window))


@pytest.mark.parametrize("name", READ or [NONE], ids=str)
def test_masked_as_rasterio_masks(name: str, corpus: Path) -> None:
    path = str(corpus / name)
    image = open_tiff(path)
    if LIMITS.get(name) is not None:
        pytest.skip("values differ, and so may what equals nodata")
    if name.endswith("test_nodatavalues.tif"):
        pytest.skip("GDAL masks by NODATA_VALUES of all bands together, we by each band's nodata")
    with rasterio.open(path) as source:
        if source.count * source.width * source.height > WHOLE:
            pytest.skip("large")
        try:
            theirs = source.read(masked=True)
        except RasterioIOError:
            pytest.skip("GDAL cannot mask it")
    ours = image.read(masked=True)
    np.testing.assert_array_equal(np.ma.getmaskarray(ours), np.ma.getmaskarray(theirs))
