"""GeoJSON features bring their properties along; GeoJSON and PostGIS' WKB their CRS, where they name one."""

from __future__ import annotations

import json
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
from affine import Affine
from handmade import Scene, collect
from pyproj import Transformer

import rasteret_dask as rd
from rasteret_dask.errors import ArgumentError
from rasteret_dask.testing.cog import make_cog

AT = Affine(0.001, 0, 15, 0, -0.001, 47)
PLOTS = [shapely.box(15.0105, 46.9, 15.0195, 46.91), shapely.box(15.03, 46.9, 15.04, 46.91)]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    array = np.arange(1, 256 * 256 + 1, dtype="uint16").reshape(256, 256) % 60_000
    file = make_cog(tmp_path_factory.mktemp("one") / "a.tif", array, transform=AT, crs=4326, blocksize=128)  # fmt: skip
    return collect(Scene("a", {"v": file}), Scene("b", {"v": file}, time="2023-08-01T00:00:00"))


def collection_of(*features: tuple[Any, dict[str, Any] | None]) -> dict[str, Any]:
    made = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(geometry), "properties": said}
        for geometry, said in features
    ]
    return {"type": "FeatureCollection", "features": made}


class Wrapped:
    def __init__(self, inner: Any) -> None:
        self.__geo_interface__ = inner


FORMS = {
    "a collection": lambda fc: fc,
    "its features": lambda fc: fc["features"],
    "a geo interface": Wrapped,
    "collections": lambda fc: [collection_of(), fc],
}


@pytest.mark.parametrize("form", FORMS)
def test_properties_are_columns_of_areas(one: rd.Collection, form: str) -> None:
    first = {"plot_id": 7, "crop": "wheat", "area": 1.5, "mixed": 1}
    given = collection_of((PLOTS[0], first), (PLOTS[1], {"plot_id": 8, "area": 2, "mixed": "x"}))
    frame = one.get_gdf(FORMS[form](given), "v", fill_value=0)
    assert frame["record_id"].tolist() == ["a", "b", "a", "b"]
    assert frame["plot_id"].tolist() == [7, 7, 8, 8]
    assert frame["crop"].tolist() == ["wheat", "wheat", None, None]
    assert frame["area"].tolist() == [1.5, 1.5, 2.0, 2.0]
    assert frame["mixed"].tolist() == ["1", "1", "x", "x"]
    alone = one.get_gdf(given["features"][0], "v", fill_value=0)
    assert alone["plot_id"].tolist() == [7, 7]


def test_properties_are_columns_of_points(one: rd.Collection) -> None:
    points = [shapely.Point(15.01 + k / 100, 46.9) for k in range(3)]
    found = one.sample_points(collection_of(*((p, {"name": f"p{k}"}) for k, p in enumerate(points))), "v")  # fmt: skip
    assert found["name"].to_pylist() == ["p0", "p1", "p2"] * 2
    bare = one.sample_points(points, "v")
    assert found.drop_columns(["name"]).equals(bare)
    with pytest.raises(ArgumentError, match="columns value are called as columns of the result"):
        one.sample_points(collection_of((points[0], {"value": 3})), "v")


def test_what_has_no_properties_has_no_columns(one: rd.Collection) -> None:
    named = one.get_gdf(collection_of((PLOTS[0], None)), "v", fill_value=0)
    assert list(named.columns) == list(one.get_gdf(PLOTS[0], "v", fill_value=0).columns)


def test_a_crs_that_geojson_names_is_believed(one: rd.Collection) -> None:
    frame = geopandas.GeoDataFrame({"plot_id": [7]}, geometry=PLOTS[:1], crs=4326).to_crs(32633)
    said = json.loads(frame.to_json())
    assert "32633" in said["crs"]["properties"]["name"]
    mine = one.get_gdf(said, "v", fill_value=0)
    theirs = one.get_gdf(frame, "v", fill_value=0)
    assert mine["plot_id"].tolist() == [7, 7]
    assert np.array_equal(mine["v"][0], theirs["v"][0])
    assert len(one.subset(geometries=said)) == 2
    x, y = Transformer.from_crs(4326, 32633, always_xy=True).transform(15.5, 46.9)
    beside = {**said, "features": collection_of((shapely.Point(x, y), {}))["features"]}
    assert len(one.subset(geometries=beside)) == 0
    with pytest.raises(ArgumentError, match="geometry_crs says"):
        one.get_gdf(said, "v", geometry_crs=3035)
    said["crs"]["properties"]["name"] = "nonsense"
    with pytest.raises(ArgumentError, match="nonsense"):
        one.get_gdf(said, "v")


@pytest.mark.parametrize(
    "given",
    [
        {"type": "FeatureCollection"},
        {"type": "FeatureCollection", "features": [3]},
        {"type": "FeatureCollection", "features": []},
        {"type": "Feature", "properties": {}},
        {"type": "Feature", "geometry": {"type": "Polygon"}, "properties": {}},
        {},
    ],
)
def test_torn_geojson_is_refused(one: rd.Collection, given: Any) -> None:
    with pytest.raises(ArgumentError):
        one.get_gdf(given, "v", fill_value=0)


def test_the_srid_of_postgis_is_believed(one: rd.Collection) -> None:
    frame = geopandas.GeoSeries(PLOTS, crs=4326).to_crs(32633)
    wkb = [shapely.to_wkb(shapely.set_srid(g, 32633), include_srid=True) for g in frame]
    expected = one.get_gdf(frame, "v", fill_value=0)
    for given in (wkb, pa.table({"geometry": wkb, "plot": [1, 2]}), pa.array(wkb)):
        found = one.get_gdf(given, "v", fill_value=0)
        assert all(np.array_equal(a, b) for a, b in zip(found["v"], expected["v"], strict=True))
    assert len(one.subset(geometries=wkb)) == 2
    with pytest.raises(ArgumentError, match="geometry_crs says"):
        one.get_gdf(wkb, "v", geometry_crs=4326)
    other = shapely.to_wkb(shapely.set_srid(PLOTS[0], 4326), include_srid=True)
    with pytest.raises(ArgumentError, match="several SRIDs"):
        one.get_gdf([wkb[0], other], "v")


def test_columns_of_several_types_are_refused(one: rd.Collection) -> None:
    frame = pd.DataFrame({"lon": [15.01, 15.02], "lat": [46.9, 46.9], "k": ["a", 1]})
    with pytest.raises(ArgumentError, match="Arrow cannot take"):
        one.sample_points(frame, "v")
