"""Where files lie, against rasterio's reading of what GDAL wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import tifffile
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from rasteret_dask.errors import HeaderError
from rasteret_dask.tiff.geokeys import crs_from_keys, parse_geokeys
from rasteret_dask.tiff.header import Segments, parse
from rasteret_dask.tiff.model import TiffHeader

NORTH_UP = rasterio.Affine(10, 0, 5e5, 0, -10, 5.2e6)


def header_of(path: Path) -> TiffHeader:
    header = parse(Segments.whole(path.read_bytes()))
    assert isinstance(header, TiffHeader)
    return header


def make(path: Path, **options: Any) -> TiffHeader:
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "height": 20,
        "width": 30,
        **options,
    }
    with rasterio.open(path, "w", **profile) as sink:
        sink.write(np.zeros((1, 20, 30), "uint8"))
    return header_of(path)


@pytest.mark.parametrize(
    "affine",
    [
        NORTH_UP,
        rasterio.Affine(10, 0, 5e5, 0, 10, 5.2e6),
        rasterio.Affine(9.6, 2.8, 5e5, 2.8, -9.6, 5.2e6),
        rasterio.Affine(10, 3, 5e5, 0.5, -7, 5.2e6),
        rasterio.Affine(1 / 3, 0, -180.25, 0, -1 / 7, 89.125),
    ],
    ids=["north up", "south up", "rotated", "sheared", "degrees"],
)
@pytest.mark.parametrize("point", [False, True])
def test_affine(affine: rasterio.Affine, point: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tags = {"AREA_OR_POINT": "Point"} if point else {}
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=1, height=20, width=30, crs="EPSG:32633",
        transform=affine,
    ) as sink:  # fmt: skip
        sink.update_tags(**tags)
        sink.write(np.zeros((1, 20, 30), "uint8"))
    header = header_of(path)
    with rasterio.open(path) as source:
        assert (source.tags().get("AREA_OR_POINT") == "Point") == point
        assert header.transform == pytest.approx(tuple(source.transform)[:6], rel=1e-14)
    assert header.transform == pytest.approx(tuple(affine)[:6], rel=1e-12)
    assert header.crs == "EPSG:32633"


def test_the_tags_of_a_point_file_do_differ(tmp_path: Path) -> None:
    """PixelIsPoint stores the centre: without the half pixel the test above would pass for nothing."""
    path = tmp_path / "p.tif"
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=1, height=2, width=2, crs="EPSG:32633",
        transform=NORTH_UP,
    ) as sink:  # fmt: skip
        sink.update_tags(AREA_OR_POINT="Point")
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].tags[33922].value[3:5] == (5e5 + 5, 5.2e6 - 5)


@pytest.mark.parametrize("point", [False, True])
def test_a_negative_scale_along_y_is_north_up_as_in_gdal(point: bool, tmp_path: Path) -> None:
    path = tmp_path / "n.tif"
    tags: list[Any] = [
        (33550, 12, 3, (10.0, -10.0, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 5e5, 5.2e6, 0.0), True),
    ]
    if point:
        tags.append((34735, 3, 8, (1, 1, 0, 1, 1025, 0, 1, 2), True))
    tifffile.imwrite(path, np.zeros((20, 30), "uint8"), extratags=tags, metadata=None)
    header = header_of(path)
    with rasterio.open(path) as source:
        assert source.transform.e == -10
        assert header.transform == tuple(source.transform)[:6]
    assert any("negative scale" in text for text in header.warnings)


def test_ground_control_points(tmp_path: Path) -> None:
    points = [
        GroundControlPoint(row=0, col=0, x=10.0, y=50.0, z=1.0),
        GroundControlPoint(row=19.5, col=0, x=10.1, y=49.0, z=2.0),
        GroundControlPoint(row=0, col=29.5, x=11.0, y=50.2, z=3.0),
    ]
    header = make(tmp_path / "g.tif", gcps=points, crs="EPSG:4326")
    assert header.transform is None
    assert header.crs == "EPSG:4326"
    assert header.gcps == tuple((p.col, p.row, p.x, p.y, p.z) for p in points)


def test_no_place_at_all(tmp_path: Path) -> None:
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        header = make(tmp_path / "n.tif")
    assert (header.crs, header.transform, header.gcps) == (None, None, ())


PROJECTIONS = [
    "+proj=tmerc +lat_0=1 +lon_0=12 +k=0.9999 +x_0=123456 +y_0=-5000 +ellps=GRS80",
    "+proj=merc +lon_0=5 +k=0.99 +x_0=1 +y_0=2 +ellps=WGS84",
    "+proj=merc +lon_0=5 +lat_ts=42 +x_0=1 +y_0=2 +ellps=WGS84",
    "+proj=lcc +lat_1=33 +lat_2=45 +lat_0=39 +lon_0=-96 +x_0=10 +y_0=20 +ellps=clrk66",
    "+proj=lcc +lat_1=46.5 +lat_0=46.5 +lon_0=0 +k_0=0.99987742 +x_0=600000 +y_0=2200000 +a=6378249.2 +b=6356515",
    "+proj=laea +lat_0=52 +lon_0=10 +x_0=4321000 +y_0=3210000 +ellps=GRS80",
    "+proj=aea +lat_1=29.5 +lat_2=45.5 +lat_0=23 +lon_0=-96 +ellps=GRS80",
    "+proj=aeqd +lat_0=49 +lon_0=2 +ellps=WGS84",
    "+proj=eqdc +lat_1=20 +lat_2=60 +lat_0=40 +lon_0=-96 +ellps=WGS84",
    "+proj=stere +lat_0=90 +lat_ts=70 +lon_0=-45 +ellps=WGS84",
    "+proj=sterea +lat_0=52 +lon_0=5 +k=0.9999 +x_0=155000 +y_0=463000 +ellps=bessel",
    "+proj=eqc +lat_ts=30 +lon_0=10 +ellps=sphere",
    "+proj=cass +lat_0=10 +lon_0=-61 +x_0=86501 +y_0=65379 +ellps=clrk66",
    "+proj=gnom +lat_0=40 +lon_0=10 +ellps=sphere",
    "+proj=mill +lon_0=10 +ellps=sphere",
    "+proj=ortho +lat_0=40 +lon_0=10 +ellps=sphere",
    "+proj=poly +lat_0=0 +lon_0=-54 +x_0=500 +y_0=1000 +ellps=aust_SA",
    "+proj=robin +lon_0=11 +ellps=WGS84",
    "+proj=sinu +lon_0=0 +R=6371007.181",
    "+proj=vandg +lon_0=3 +ellps=sphere",
    "+proj=cea +lat_ts=30 +lon_0=0 +ellps=WGS84",
    "+proj=tmerc +lat_0=0 +lon_0=12 +k=1 +x_0=0 +y_0=0 +ellps=GRS80 +units=us-ft",
    "+proj=longlat +ellps=bessel",
    "+proj=longlat +R=6371229",
]


@pytest.mark.parametrize("text", PROJECTIONS)
def test_crs_spelled_out_in_geokeys(text: str, tmp_path: Path) -> None:
    """The longitudes and latitudes that rasterio's reading of the same file gives."""
    step = 0.1 if "longlat" in text else 1000.0
    affine = rasterio.Affine(step, 0, 3 * step, 0, -step, 4 * step)
    header = make(tmp_path / "u.tif", crs=CRS.from_string(text), transform=affine)
    assert header.crs is not None
    assert not header.crs.startswith("EPSG"), header.crs
    with rasterio.open(tmp_path / "u.tif") as source:
        theirs = pyproj.CRS.from_wkt(source.crs.to_wkt())
    ours = pyproj.CRS.from_user_input(header.crs)
    assert ours.ellipsoid is not None
    assert theirs.ellipsoid is not None
    assert ours.ellipsoid.semi_major_metre == pytest.approx(theirs.ellipsoid.semi_major_metre)
    x, y = np.array([3.0, 20, 50]) * step, np.array([4.0, -20, 60]) * step
    places = [
        pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(x, y)
        for crs in (ours, theirs)
    ]
    assert np.isfinite(places[1]).all()
    np.testing.assert_allclose(places[0], places[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("code", [4326, 3857, 32633, 32755, 3035, 2056, 3413, 27700, 5070, 4269])
def test_codes(code: int, tmp_path: Path) -> None:
    header = make(tmp_path / "c.tif", crs=f"EPSG:{code}", transform=NORTH_UP)
    assert header.crs == f"EPSG:{code}"


def test_keys_that_make_no_sense_are_warned_about() -> None:
    for keys in (
        {1024: 1, 3072: 1},
        {1024: 1, 3072: 32767, 3074: 32767, 3075: 4711},
        {1024: 1, 3072: 32767, 3074: 32767, 3075: 1, 2048: 32767, 2057: (-1.0,)},
        {1024: 1, 3072: 32767, 3073: "ESRI PE String = PROJCS[nonsense"},
        {1024: 2, 2048: 1},
    ):
        warnings: list[str] = []
        assert crs_from_keys(keys, warnings) is None
        assert warnings


def test_a_directory_of_keys_that_is_too_short() -> None:
    for directory in ((1, 1), (1.5, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0)):
        with pytest.raises(HeaderError):
            parse_geokeys(directory, (), "")  # type: ignore[arg-type]
    assert parse_geokeys((1, 1, 0, 9, 1024, 0, 1, 2), (), "") == {1024: 2}
