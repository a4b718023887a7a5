"""Nodata texts, scales, names and colour maps, against what rasterio wrote."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio

from rasteret_dask.tiff.header import Segments, parse
from rasteret_dask.tiff.metadata import parse_nodata
from rasteret_dask.tiff.model import TiffHeader


@pytest.mark.parametrize(
    ("text", "dtype", "value"),
    [
        ("0", "uint8", 0),
        ("255.0", "uint8", 255),
        ("-9999", "int16", -9999),
        ("18446744073709551615", "uint64", 2**64 - 1),
        ("-9223372036854775808", "int64", -(2**63)),
        (" 7\0", "uint16", 7),
        ("-9999", "float32", -9999.0),
        ("1e+20", "float64", 1e20),
        ("-3.4028234663852886e+38", "float32", float(np.finfo("float32").min)),
        ("-3.402823e+38", "float32", float(np.float32(-3.402823e38))),
        ("inf", "float32", math.inf),
        ("-inf", "float64", -math.inf),
    ],
)
def test_nodata(text: str, dtype: str, value: float) -> None:
    warnings: list[str] = []
    found = parse_nodata(text, dtype, warnings)
    assert found == value
    assert type(found) is type(value)
    assert warnings == []


def test_nan_is_a_value() -> None:
    found = parse_nodata("nan", "float32", [])
    assert isinstance(found, float)
    assert math.isnan(found)


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("-9999", "uint8"),
        ("256", "uint8"),
        ("32767.5", "int16"),
        ("nan", "uint16"),
        ("inf", "int32"),
        ("none", "float32"),
        ("1e300", "float32"),
        ("70000", "float16"),
    ],
)
def test_nodata_that_the_type_cannot_hold_is_warned_about(text: str, dtype: str) -> None:
    warnings: list[str] = []
    assert parse_nodata(text, dtype, warnings) is None
    assert len(warnings) == 1


def test_an_empty_text_says_nothing() -> None:
    warnings: list[str] = []
    assert parse_nodata("  \0", "uint8", warnings) is None
    assert warnings == []


def test_scales_offsets_units_and_names(tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    with rasterio.open(
        path, "w", driver="GTiff", dtype="int16", count=3, height=4, width=4, nodata=-1,
        crs="EPSG:32633", transform=rasterio.Affine(2, 0, 10, 0, -2, 10),
    ) as sink:  # fmt: skip
        sink.scales = (0.1, 1.0, 2.5)
        sink.offsets = (0.0, -5.0, 3.25)
        sink.units = ("K", "", "m/s")
        sink.set_band_description(1, "température")
        sink.set_band_description(3, "wind <east>")
    with rasterio.open(path) as source:
        assert source.descriptions == ("température", None, "wind <east>")
    header = parse(Segments.whole(path.read_bytes()))
    assert isinstance(header, TiffHeader)
    assert [v if v is not None else 1.0 for v in header.scales] == [0.1, 1.0, 2.5]
    assert [v if v is not None else 0.0 for v in header.offsets] == [0.0, -5.0, 3.25]
    assert [v or "" for v in header.units] == ["K", "", "m/s"]
    assert header.descriptions == ("température", None, "wind <east>")
    assert header.nodata == -1


def test_colour_map(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=1, height=4, width=4, photometric="palette",
        crs="EPSG:32633", transform=rasterio.Affine(2, 0, 10, 0, -2, 10),
    ) as sink:  # fmt: skip
        sink.write_colormap(1, {0: (0, 0, 0), 1: (255, 128, 1), 255: (9, 8, 7)})
        sink.write(np.zeros((1, 4, 4), "uint8"))
    header = parse(Segments.whole(path.read_bytes()))
    assert isinstance(header, TiffHeader)
    assert header.colormap is not None
    assert header.colormap.shape == (3, 256)
    assert (header.colormap[:, 1] // 257).tolist() == [255, 128, 1]


@pytest.mark.parametrize(
    "xml",
    [
        "<GDALMetadata><Item name='x'",
        "<!DOCTYPE x [<!ENTITY a 'b'>]><GDALMetadata>&a;</GDALMetadata>",
        "\x00\x01\x02",
    ],
)
def test_bad_xml_is_passed_over(xml: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=1, height=4, width=4,
        crs="EPSG:32633", transform=rasterio.Affine(2, 0, 10, 0, -2, 10),
    ) as sink:  # fmt: skip
        sink.update_tags(note="n" * 200)
    data = path.read_bytes()
    start = data.index(b"<GDALMetadata>")
    stop = data.index(b"</GDALMetadata>") + len(b"</GDALMetadata>")
    changed = data[:start] + xml.encode().ljust(stop - start) + data[stop:]
    header = parse(Segments.whole(changed))
    assert isinstance(header, TiffHeader)
    assert any("GDAL_METADATA" in warning for warning in header.warnings)
