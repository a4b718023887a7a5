"""What a point or an area gets does not hang on the others of the call, though items' boxes are smaller than their files."""

from __future__ import annotations

from pathlib import Path
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
from shapely.geometry import box

import rasteret_dask as rd
from rasteret_dask.errors import ArgumentError, EmptySelectionError
from rasteret_dask.grid.given import Points
from rasteret_dask.index import schema
from rasteret_dask.pipeline.forecast import of_samples
from rasteret_dask.read.near import near, places_of_areas, places_of_points
from rasteret_dask.testing.cog import make_cog

UTM = "EPSG:32633"
LEFT, TOP = 500_000.0, 5_200_000.0
TO_LONLAT = Transformer.from_crs(UTM, "OGC:CRS84", always_xy=True)


def lonlat(left: float, bottom: float, right: float, top: float) -> dict[str, float]:
    """The box in lon/lat of a part of the tile, in metres from its upper left corner."""
    found = TO_LONLAT.transform_bounds(LEFT + left, TOP + bottom, LEFT + right, TOP + top)
    return dict(zip(("xmin", "ymin", "xmax", "ymax"), found))


PARTS = {
    "whole": lonlat(-1, -1281, 1281, 1),
    "west": lonlat(0, -1280, 639, 0),
    "east": lonlat(641, -1280, 1280, 0),
    "north": lonlat(0, -600, 1280, 0),
}


@pytest.fixture(scope="module")
def swaths(tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    """One tile on four days, of which a satellite saw parts: the files are whole, the items' boxes are not."""
    folder, scenes = tmp_path_factory.mktemp("swaths"), []
    for day, (name, footprint) in enumerate(PARTS.items(), 1):
        pixels = np.full((128, 128), 10 * day, "uint16")
        how: dict[str, Any] = {"crs": UTM, "blocksize": 64, "overviews": 0, "nodata": 0}
        file = make_cog(
            folder / f"{name}.tif", pixels, transform=Affine(10, 0, LEFT, 0, -10, TOP), **how
        )
        time = f"2023-07-{day:02d}T10:00:00"
        scenes.append(Scene(name, {"v": file}, time, columns={"bbox": footprint}))
    return collect(*scenes)


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    inside = np.random.default_rng(3).uniform(20, 1260, (40, 2))
    return np.column_stack([LEFT + inside[:, 0], TOP - inside[:, 1]])


def seen_by(x: float, y: float) -> list[str]:
    """Which of the items' boxes hold a point, by plain comparison."""
    lon, lat = TO_LONLAT.transform(x, y)
    return [
        name
        for name, b in PARTS.items()
        if b["xmin"] <= lon <= b["xmax"] and b["ymin"] <= lat <= b["ymax"]
    ]


def test_the_latest_under_a_point_is_the_same_beside_another(swaths: rd.Collection) -> None:
    west, east = (LEFT + 105, TOP - 905), (LEFT + 1105, TOP - 905)
    how: dict[str, Any] = {"geometry_crs": UTM, "match": "latest"}
    two = swaths.subset(id_in=["whole", "west"])
    assert two.sample_points(np.array([east]), **how)["value"].to_pylist() == [10]
    both = two.sample_points(np.array([west, east]), **how).to_pylist()
    assert {row["point_index"]: row["value"] for row in both} == {0: 20, 1: 10}


@pytest.mark.parametrize("match", ["all", "latest"])
def test_many_points_get_what_each_gets_alone(
    swaths: rd.Collection, points: np.ndarray, match: str
) -> None:
    how: dict[str, Any] = {"geometry_crs": UTM, "match": match}
    found = swaths.sample_points(points, **how).to_pylist()
    got = [[r["record_id"] for r in found if r["point_index"] == k] for k in range(len(points))]
    expected = [seen_by(x, y) for x, y in points]
    assert len({tuple(names) for names in expected}) == 4
    assert got == (expected if match == "all" else [names[-1:] for names in expected])
    for k in range(0, len(points), 7):
        alone = swaths.sample_points(points[k : k + 1], **how).to_pylist()
        assert [r["record_id"] for r in alone] == got[k]
    values = {name: 10 * day for day, name in enumerate(PARTS, 1)}
    assert all(row["value"] == values[row["record_id"]] for row in found)


def test_partitions_of_a_dask_frame_change_nothing(
    swaths: rd.Collection, points: np.ndarray
) -> None:
    frames = pytest.importorskip("dask.dataframe")
    order = np.argsort(points[:, 1])
    table = pd.DataFrame({"x": points[order, 0], "y": points[order, 1], "name": np.arange(40)})
    how: dict[str, Any] = {"geometry_crs": UTM, "match": "latest"}
    days = {name: 10 * day for day, name in enumerate(PARTS, 1)}
    expected = {k: days[seen_by(x, y)[-1]] for k, (x, y) in enumerate(points[order])}
    for count in (1, 3):
        lazy = swaths.sample_points(frames.from_pandas(table, npartitions=count), **how)
        assert dict(lazy.compute()[["name", "value"]].values) == expected


def test_a_forecast_counts_the_rows_that_there_will_be(
    swaths: rd.Collection, points: np.ndarray
) -> None:
    spots = geopandas.GeoDataFrame(geometry=shapely.points(points), crs=UTM).to_crs(4326)
    assert of_samples(swaths, spots)["rows"] == len(swaths.sample_points(spots))


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_many_areas_get_what_each_gets_alone(swaths: rd.Collection, crs: str) -> None:
    corners = np.random.default_rng(4).uniform(0, 1100, (25, 2))
    shapes = [box(LEFT + x, TOP - y - 60, LEFT + x + 60, TOP - y) for x, y in corners]
    areas = geopandas.GeoSeries(shapes, crs=UTM).to_crs(crs)
    met = [
        [
            name
            for name, b in PARTS.items()
            if shapely.box(*one).intersects(shapely.box(*b.values()))
        ]
        for one in areas.to_crs("OGC:CRS84").bounds.to_numpy()
    ]
    assert len({tuple(names) for names in met}) == 4
    for per, names in (("item", met), ("band", met)):
        rows = swaths.get_gdf(areas, per=per)
        assert [rows.record_id[rows.geometry_id == k].tolist() for k in range(1, 26)] == names
    for k in range(0, 25, 6):
        assert swaths.get_gdf(areas.iloc[k : k + 1]).record_id.tolist() == met[k]
    boxes = [box(LEFT + x, TOP - y - 20, LEFT + x + 20, TOP - y) for x, y in ((100, 900), (900, 900))]  # fmt: skip
    arrays = swaths.get_numpy(boxes, geometry_crs=UTM)
    assert arrays[:, 0, 0].tolist() == [10, 20, 10, 30]


def test_areas_that_meet_boxes_but_no_file_are_no_selection(swaths: rd.Collection) -> None:
    beside = box(LEFT + 1280.2, TOP - 100, LEFT + 1280.8, TOP - 90)
    for per in ("item", "band"):
        with pytest.raises(EmptySelectionError, match="meet none of the items"):
            swaths.get_gdf(beside, geometry_crs=UTM, per=per)
    with pytest.raises(EmptySelectionError, match="meet none of the items"):
        swaths.get_numpy(beside, geometry_crs=UTM)


# --- round the world -----------------------------------------------------------------------------
OVER = {
    "crossing": (170.0, -175.0),
    "beyond 180": (170.0, 185.0),
    "beyond -180": (-190.0, -175.0),
}


@pytest.mark.parametrize("kind", list(OVER))
def test_boxes_over_the_antimeridian(tmp_path: Path, kind: str) -> None:
    pixels = np.arange(40 * 80, dtype="uint16").reshape(40, 80)
    corner = Affine(0.5, 0, 165, 0, -0.5, 10)  # 165 … 205 degrees
    file = make_cog(tmp_path / "a.tif", pixels, transform=corner, crs="EPSG:4326", overviews=0)
    west, east = OVER[kind]
    footprint = {"xmin": west, "ymin": -10.0, "xmax": east, "ymax": 10.0}
    found = collect(Scene("a", {"v": file}, columns={"bbox": footprint}))
    spots = {
        166.0: False,
        172.2: True,
        179.7: True,
        -178.3: True,
        181.7: True,
        -174.2: False,
        -160.2: False,
    }
    at = np.array([(lon, 3.1) for lon in spots])
    rows = found.sample_points(at).to_pylist()
    column = {k: int(((lon - 165) % 360) * 2) for k, (lon, on) in enumerate(spots.items()) if on}
    assert {r["point_index"]: r["value"] for r in rows} == {
        k: pixels[13, c] for k, c in column.items()
    }
    areas = [shapely.Point(*xy).buffer(0.1) for xy in at]
    got = found.get_gdf(areas, fill_value=0)
    assert (got.geometry_id - 1).tolist() == list(column)
    for k, xy in enumerate(at):
        assert len(found.sample_points(xy[None])) == (k in column)


def test_items_without_a_box_may_lie_anywhere() -> None:
    places = places_of_points(Points(np.array([15.0, -20.0]), np.array([47.0, 0.0]), "OGC:CRS84"))
    boxes = [PARTS["whole"], None, {**PARTS["whole"], "xmin": None}]
    table = pa.table({schema.BBOX: pa.array(boxes, schema.BBOX_TYPE)})
    found = near(table, places)
    assert found is not None
    assert [found.meets(k).tolist() for k in range(3)] == [[False, False], [True] * 2, [True] * 2]
    ((chosen, met),) = found.alike([1, 2], np.array([0, 1]))
    assert (chosen.tolist(), met) == ([0, 1], None)
    assert near(table.drop_columns([schema.BBOX]), places) is None
    assert near(table, places_of_areas(None, None, "OGC:CRS84")) is None


def test_points_where_their_crs_is_not_defined_are_named(swaths: rd.Collection) -> None:
    with pytest.raises(ArgumentError, match=r"point 1 .* lies outside"):
        swaths.sample_points(np.array([[LEFT, TOP], [1e30, TOP]]), geometry_crs=UTM)


def test_a_point_on_the_antimeridian_is_the_files_that_begin_there(tmp_path: Path) -> None:
    def file(name: str, left: float, value: int) -> Path:
        image = np.full((10, 10), value, np.uint8)
        at = Affine(1, 0, left, 0, -1, 5)
        return make_cog(
            tmp_path / f"{name}.tif",
            image,
            transform=at,
            crs="EPSG:4326",
            blocksize=64,
            overviews=0,
        )

    both = collect(Scene("a", {"v": file("a", 170, 1)}), Scene("b", {"v": file("b", -180, 2)}))
    points = np.array([(180.0, 0.0), (-179.5, 0.0), (179.5, 0.0), (-180.0, 0.0)])
    found = both.sample_points(points).sort_by("point_index")
    assert found["value"].to_pylist() == [2, 2, 1, 2]
    assert [both.sample_points(one[None])["value"].to_pylist() for one in points] == [
        [2],
        [2],
        [1],
        [2],
    ]
