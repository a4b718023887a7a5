"""Areas and footprints over the antimeridian: the right items, and the right pixels, whichever way people write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import rasterio
import rasterio.mask
import shapely
from affine import Affine
from handmade import Scene, collect
from shapely.affinity import translate
from shapely.geometry import box, mapping

import rasteret_dask as rd
from rasteret_dask.testing.cog import make_cog

RNG = np.random.default_rng(5)
WKT = {"world": "EPSG:4326", "pacific": "EPSG:4326", "fiji": "EPSG:32701"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The world in pixels of a degree, the Pacific in half degrees beyond 180, and a UTM scene across the antimeridian."""
    folder = tmp_path_factory.mktemp("antimeridian")

    def cog(name: str, shape: tuple[int, int], transform: Affine) -> Path:
        array = RNG.integers(1, 60_000, shape).astype("uint16")
        how: dict[str, Any] = {"blocksize": 128, "nodata": 0, "overviews": 0}
        return make_cog(folder / f"{name}.tif", array, transform=transform, crs=WKT[name], **how)

    return {
        "world": cog("world", (180, 360), Affine(1, 0, -180, 0, -1, 90)),
        "pacific": cog("pacific", (120, 100), Affine(0.5, 0, 160, 0, -0.5, 30)),
        "fiji": cog("fiji", (200, 300), Affine(1000, 0, 0, 0, -1000, 8_200_000)),
    }


def scene(files: dict[str, Path], name: str, **columns: Any) -> rd.Collection:
    return collect(Scene(name, {"v": files[name]}, columns=columns))


def forms(area: shapely.Geometry) -> dict[str, Any]:
    """An area of 170 to 190 degrees, as people may write it."""
    west = area.intersection(box(0, -90, 180, 90))
    east = translate(area.intersection(box(180, -90, 360, 90)), -360)
    cut = shapely.MultiPolygon([west, east])
    return {
        "beyond 180": area,
        "beyond -180": translate(area, -360),
        "GeoJSON": mapping(cut),
        "WKB": shapely.to_wkb(cut),
        "GeoPandas": geopandas.GeoDataFrame({"name": ["x"]}, geometry=[cut], crs=4326),
        "Arrow": pa.table(geopandas.GeoSeries([area], crs=4326).to_frame("geometry").to_arrow()),
    }


AREA = shapely.Polygon([(175.3, -22.2), (184.7, -20.1), (186.2, -14.3), (174.2, -12.9)])
FORMS = list(forms(AREA))


@pytest.mark.parametrize("form", FORMS)
def test_polygons_on_a_map_of_the_world_have_a_row_for_each_side(
    files: dict[str, Path], form: str
) -> None:
    rows = scene(files, "world").get_gdf(forms(AREA)[form], ["v"])
    assert len(rows) == 2
    with rasterio.open(files["world"]) as file:
        for turn, row in (
            (0, rows[rows["transform"].map(lambda t: t.c) > 0]),
            (-360, rows[rows["transform"].map(lambda t: t.c) < 0]),
        ):
            expected, transform = rasterio.mask.mask(file, [translate(AREA, turn)], crop=True)
            assert np.array_equal(row.v.iloc[0], expected[0])
            assert row["transform"].iloc[0].almost_equals(transform)


@pytest.mark.parametrize("name", ["pacific", "fiji"])
@pytest.mark.parametrize("form", FORMS)
def test_polygons_on_files_across_it_are_in_one_piece(
    files: dict[str, Path], name: str, form: str
) -> None:
    (row,) = scene(files, name).get_gdf(forms(AREA)[form], ["v"]).itertuples()
    with rasterio.open(files[name]) as file:
        # PROJ itself knows no turns in UTM.
        shape = (
            geopandas.GeoSeries([AREA], crs=4326).to_crs(file.crs)[0] if name == "fiji" else AREA
        )
        expected, transform = rasterio.mask.mask(file, [shape], crop=True)
    if form in ("GeoJSON", "WKB", "GeoPandas"):
        # Cut at 180 degrees, the edges have vertices there, and bend in UTM.
        assert (row.v != expected[0]).mean() < 0.002
        assert row.v.shape == expected[0].shape
    else:
        assert np.array_equal(row.v, expected[0])
    assert row.transform.almost_equals(transform)


def test_projected_polygons_on_files_in_lonlat(files: dict[str, Path]) -> None:
    native = geopandas.GeoSeries([AREA], crs=4326).to_crs(32701)
    rows = scene(files, "pacific").get_gdf(native, ["v"])
    with rasterio.open(files["pacific"]) as file:
        back = native.to_crs(4326)[0]
        whole = shapely.transform(
            back, lambda xy: np.where(xy < -90, xy + np.array([360.0, 0.0]), xy)
        )
        expected, _ = rasterio.mask.mask(file, [whole], crop=True)
    assert np.array_equal(rows.v[0], expected[0])
    assert len(scene(files, "world").get_gdf(native, ["v"])) == 2


def test_boxes(files: dict[str, Path]) -> None:
    with rasterio.open(files["pacific"]) as file:
        pixels = file.read(1)
    expected = pixels[80:100, 20:60]  # 170 to 190 degrees, -10 to -20
    for area in ((170.0, -20.0, -170.0, -10.0), (170.0, -20.0, 190.0, -10.0)):
        found = scene(files, "pacific")
        assert np.array_equal(found.get_numpy(area, ["v"])[0], expected)
        assert np.array_equal(found.get_numpy(bbox=area, bands=["v"])[0], expected)
        assert np.array_equal(found.get_gdf(area, ["v"]).v[0], expected)
    with rasterio.open(files["world"]) as file:
        world = file.read(1)
    rows = scene(files, "world").get_gdf((170.0, -20.0, -170.0, -10.0), ["v"])
    found = {t.c: v for t, v in zip(rows["transform"], rows.v)}
    assert np.array_equal(found[170.0], world[100:110, 350:])
    assert np.array_equal(found[-180.0], world[100:110, :10])
    # A box around the world is no box over the antimeridian.
    (whole,) = scene(files, "world").get_gdf((-180, -20, 180, -10), ["v"]).v
    assert np.array_equal(whole, world[100:110])
    wide = box(-170, -20, 170, -10)
    (inner,) = scene(files, "world").get_gdf(wide, ["v"]).v
    assert np.array_equal(inner, world[100:110, 10:350])


# --- which items ---------------------------------------------------------------------------------
OVER = {"xmin": 178.0, "ymin": -20.0, "xmax": -178.0, "ymax": -15.0}
FOOTPRINTS = {
    "two parts": shapely.MultiPolygon([box(178, -20, 180, -15), box(-180, -20, -178, -15)]),
    "beyond 180": box(178, -20, 182, -15),
    "beyond -180": box(-182, -20, -178, -15),
    "the wrong way round": box(-178, -20, 178, -15),
    "none": None,
}


@pytest.mark.parametrize("kind", list(FOOTPRINTS))
def test_footprints_that_cross_are_found_from_both_sides(files: dict[str, Path], kind: str) -> None:
    shape = FOOTPRINTS[kind]
    wkb = None if shape is None else shapely.to_wkb(shape)
    found = scene(files, "pacific", bbox=OVER, geometry=wkb)
    for x, inside in (
        (179, True),
        (-179, True),
        (181, True),
        (185, False),
        (-175, False),
        (175, False),
        (0, False),
    ):
        at = box(x - 0.1, -17, x + 0.1, -16)
        assert len(found.subset(geometries=at)) == inside, (kind, x)
        if abs(x) <= 180:
            assert len(found.subset(bbox=(x - 0.1, -17, x + 0.1, -16))) == inside, (kind, x)
    assert len(found.subset(geometries=(177, -17, -177, -16))) == 1
    assert len(found.subset(geometries=forms(AREA)["GeoJSON"])) == 1
