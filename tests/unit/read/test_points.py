"""Values under points against rasterio, and the forms in which points come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dask
import dask.dataframe
import duckdb
import geopandas
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest
import rasterio
import rasterio.transform
import shapely
from affine import Affine
from handmade import Scene, austria_scenes, collect
from pyproj import Transformer

import rasteret_dask as rd
from rasteret_dask.errors import ArgumentError, MissingBandError
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import RangeServer

RNG = np.random.default_rng(11)
UTM = "EPSG:32633"
CORNER = Affine(10, 0, 500_000, 0, -10, 5_200_000)


def scene(path: Path, name: str, array: Any, *, day: int = 1, **how: Any) -> Scene:
    how = {"blocksize": 64, "overviews": 0, "transform": CORNER, "crs": UTM, **how}
    file = make_cog(path / f"{name}.tif", np.asarray(array), **how)
    return Scene(name, {"v": file}, f"2023-07-{day:02d}T10:00:00", {}, {})


def at(*pixels: tuple[float, float]) -> np.ndarray:
    """Row and column (with fractions) → coordinates in UTM."""
    return np.array([(500_000 + 10 * c, 5_200_000 - 10 * r) for r, c in pixels])


def sample(found: rd.Collection, points: Any, **how: Any) -> list[dict[str, Any]]:
    how.setdefault("geometry_crs", UTM)
    return found.sample_points(points, ["v"], **how).to_pylist()


def test_equals_rasterio_on_real_scenes(austria: Path) -> None:
    scenes = austria_scenes(austria)
    lon, lat = RNG.uniform(14.9, 16.5, 800), RNG.uniform(45.9, 47.9, 800)
    x, y = Transformer.from_crs("OGC:CRS84", UTM, always_xy=True).transform(lon, lat)
    found = collect(*scenes).sample_points(np.column_stack([lon, lat])).to_pandas()
    count = 0
    for one in scenes:
        for band, path in one.files.items():
            with rasterio.open(path) as file:
                west, south, east, north = file.bounds
                box = one.columns["bbox"]
                near = (lon >= box["xmin"]) & (lon <= box["xmax"]) & (lat >= box["ymin"]) & (lat <= box["ymax"])  # fmt: skip
                inside = np.flatnonzero(near & (x >= west) & (x < east) & (y <= north) & (y > south))  # fmt: skip
                expected = [v[0] for v in file.sample(zip(x[inside], y[inside]))]
            mine = found[(found.record_id == one.id) & (found.band == band)]
            assert np.array_equal(mine.point_index, inside)
            assert np.array_equal(mine.value, expected)
            count += len(inside)
    assert count == len(found) > 5_000
    assert set(found.point_crs) == {4326}
    assert set(found.raster_crs) == {32633}


@pytest.mark.parametrize("name", ["naip", "dem", "landsat"])
def test_equals_rasterio_on_the_corpus(corpus: Path, tmp_path: Path, name: str) -> None:
    paths = {
        "naip": "stactools-packages+naip/tests/data-files",
        "dem": "cogeotiff+rio-tiler-pds/tests/fixtures/copernicus-dem-30m",
        "landsat": "appelmar+gdalcubes/inst/L8NY18",
    }
    tried = 0
    for path in sorted((corpus / paths[name]).rglob("*.[tT][iI][fF]")):
        with rasterio.open(path) as file:
            if file.crs is None or file.width < 8:
                continue
            u, v = RNG.uniform(0, file.width, 50), RNG.uniform(0, file.height, 50)
            x, y = rasterio.transform.xy(file.transform, v, u, offset="ul")
            expected = [p[0] for p in file.sample(zip(x, y))]
            crs = file.crs.to_wkt()
        one = collect(Scene("a", {"v": str(path)}, "2023-07-01T10:00:00", {}, {}))
        found = one.sample_points(np.column_stack([x, y]), ["v"], geometry_crs=crs)
        assert np.array_equal(found["value"].to_numpy(), np.asarray(expected, float)), path
        tried += 1
    if not tried:
        pytest.skip(f"the corpus holds no GeoTIFF of {name}")


# --- which pixel ---------------------------------------------------------------------------------
def test_pixels_are_half_open(tmp_path: Path) -> None:
    array = np.arange(100 * 130, dtype="uint16").reshape(100, 130)
    found = collect(scene(tmp_path, "a", array))
    pixels = [(0, 0), (0.5, 0.5), (63.99, 64), (64, 63.99), (99.99, 129.99), (5 - 1e-8, 7 - 1e-8)]
    rows = sample(found, at(*pixels))
    expected = [array[0, 0], array[0, 0], array[63, 64], array[64, 63], array[99, 129], array[5, 7]]
    assert [r["value"] for r in rows] == expected
    assert sample(found, at((100, 5), (5, 130), (-0.01, 5), (5, -0.01))) == []


@pytest.mark.parametrize("across", [1, -1])
@pytest.mark.parametrize("down", [1, -1])
def test_an_edge_belongs_to_the_right_and_below_however_the_file_lies(
    tmp_path: Path, down: int, across: int
) -> None:
    """South-up files (AlphaEarth's are) and mirrored ones: the same picture has the same values."""
    array = np.arange(256, dtype="uint16").reshape(16, 16)
    stored = np.ascontiguousarray(array[::down, ::across])
    left, top = 500_000 + 80 * (1 - across), 5_200_000 - 80 * (1 - down)
    how: dict[str, Any] = {"driver": "GTiff", "blocksize": 16}
    corner = Affine(10 * across, 0, left, 0, -10 * down, top)
    found = collect(scene(tmp_path, "a", stored, transform=corner, **how))
    spots = [(r + y, c + x) for r in (0, 2, 15) for c in (0, 7, 15) for y in (0, 0.4) for x in (0, 0.4)]  # fmt: skip
    rows = sample(found, at(*spots))
    assert [r["point_index"] for r in rows] == list(range(len(spots)))
    assert [r["value"] for r in rows] == [array[int(r), int(c)] for r, c in spots]
    assert sample(found, at((16, 3), (3, 16), (-0.01, 3), (3, -0.01))) == []


def test_a_rotated_file(tmp_path: Path) -> None:
    array = np.arange(90 * 80, dtype="uint16").reshape(90, 80)
    turned = Affine(8.66, 5, 500_000, 5, -8.66, 5_200_000)
    path = make_cog(tmp_path / "a.tif", array, transform=turned, crs=UTM, blocksize=32, overviews=0)
    found = collect(Scene("a", {"v": path}, "2023-07-01T10:00:00", {}, {}))
    u, v = RNG.uniform(0, 80, 200), RNG.uniform(0, 90, 200)
    x, y = rasterio.transform.xy(turned, v, u, offset="ul")
    rows = sample(found, np.column_stack([x, y]))
    assert [r["value"] for r in rows] == array[v.astype(int), u.astype(int)].tolist()


def test_the_antimeridian(tmp_path: Path) -> None:
    array = np.arange(64 * 64, dtype="uint16").reshape(64, 64)
    west = scene(tmp_path, "a", array, transform=Affine(1, 0, 160, 0, -1, 30), crs="EPSG:4326")
    found = collect(west).sample_points(np.array([[-170.5, 0.5], [189.5, 0.5]]), ["v"])
    assert found["value"].to_pylist() == [array[29, 29], array[29, 29]]


def test_several_bands_of_a_file_and_sparse_tiles(tmp_path: Path) -> None:
    cube = RNG.integers(1, 200, (3, 150, 150)).astype("uint8")
    cube[:, 64:128, :64] = 0
    path = make_cog(
        tmp_path / "a.tif", cube, transform=CORNER, crs=UTM, blocksize=64, overviews=0, nodata=0,
        sparse_ok=True,
    )  # fmt: skip
    items = [
        {
            "id": "a",
            "properties": {"datetime": "2023-07-01T00:00:00Z"},
            "bbox": [15, 46, 15.1, 47],
            "assets": {"image": {"href": str(path), "type": "image/tiff"}},
        }
    ]
    found = rd.build_from_items(
        items,
        name="multi",
        band_map={"R": "image", "G": "image", "B": "image"},
        band_index_map={"R": 0, "G": 1, "B": 2},
        workspace_dir=tmp_path,
    )
    r, c = RNG.integers(0, 150, (2, 300))
    table = found.sample_points(at(*zip(r + 0.5, c + 0.5)), ["G", "B"], geometry_crs=UTM)
    assert table["band"].to_pylist() == ["G"] * 300 + ["B"] * 300
    assert table["value"].to_pylist() == [*cube[1, r, c], *cube[2, r, c]]


# --- which items ---------------------------------------------------------------------------------
def test_every_item_or_the_latest(tmp_path: Path) -> None:
    full = np.full((64, 64), 1, "uint8")
    half = Affine(10, 0, 500_000 + 320, 0, -10, 5_200_000)
    scenes = [
        scene(tmp_path, "b", full, day=1),
        scene(tmp_path, "a", full + 1, day=2),
        scene(tmp_path, "c", full + 2, day=3, transform=half),
    ]
    found = collect(*scenes)
    points = at((5, 5), (5, 50), (5, 80))
    rows = sample(found, points)
    got = [(r["record_id"], r["point_index"], r["value"]) for r in rows]
    assert got == [
        ("b", 0, 1), ("b", 1, 1), ("a", 0, 2), ("a", 1, 2), ("c", 1, 3), ("c", 2, 3),
    ]  # fmt: skip
    rows = sample(found, points, match="latest")
    assert [(r["record_id"], r["point_index"]) for r in rows] == [("a", 0), ("c", 1), ("c", 2)]
    rows = sample(found, points, date_range=("2023-07-02", "2023-07-02"))
    assert [r["record_id"] for r in rows] == ["a", "a"]
    assert sample(found, points, date_range="2024-01-01") == []


def test_items_without_the_band(tmp_path: Path) -> None:
    full = np.full((64, 64), 1, "uint8")
    scenes = [scene(tmp_path, "a", full), scene(tmp_path, "b", full, day=2)]
    bare = Scene("b", {"w": scenes[1].files["v"]}, "2023-07-02T10:00:00", {}, {})
    found = collect(scenes[0], bare)
    with pytest.raises(MissingBandError):
        sample(found, at((5, 5)))
    assert [r["record_id"] for r in sample(found, at((5, 5)), missing="nodata")] == ["a"]
    assert [r["record_id"] for r in sample(found, at((5, 5)), match="latest")] == ["a"]


# --- around a point ------------------------------------------------------------------------------
def nearest_by_hand(array: np.ndarray, v: float, u: float, radius: int, nodata: float) -> float:
    """PostGIS' rule, spelled out: ring by ring, the nearest pixel of the first ring that has one."""
    row, col = int(v), int(u)
    if array[row, col] != nodata:
        return float(array[row, col])
    for ring in range(1, radius + 1):
        best = []
        for r in range(row - ring, row + ring + 1):
            for c in range(col - ring, col + ring + 1):
                on_ring = max(abs(r - row), abs(c - col)) == ring
                on_file = 0 <= r < array.shape[0] and 0 <= c < array.shape[1]
                if on_ring and on_file and array[r, c] != nodata:
                    dy, dx = max(r - v, v - r - 1, 0), max(c - u, u - c - 1, 0)
                    best.append((dx * dx + dy * dy, float(array[r, c])))
        if best:
            return min(best)[1]
    return nodata


def test_the_nearest_valid_pixel(tmp_path: Path) -> None:
    array = np.where(RNG.random((130, 130)) < 0.05, RNG.integers(1, 60_000, (130, 130)), 0)
    array = array.astype("uint16")
    found = collect(scene(tmp_path, "a", array, nodata=0))
    pixels = RNG.uniform(0, 130, (400, 2))
    rows = sample(found, at(*pixels), max_distance_pixels=3)
    assert [r["value"] for r in rows] == [nearest_by_hand(array, v, u, 3, 0) for v, u in pixels]
    assert 0 < sum(r["value"] == 0 for r in rows) < 100


@pytest.mark.parametrize("when", ["always", "if_center_nodata"])
def test_neighbourhoods(tmp_path: Path, when: str) -> None:
    array = RNG.integers(0, 3, (70, 70)).astype("uint8")
    found = collect(scene(tmp_path, "a", array, nodata=0))
    rows = [0, 69, 63, 30]
    cols = [0, 69, 64, 12]
    got = sample(
        found,
        at(*[(r + 0.4, c + 0.6) for r, c in zip(rows, cols)]),
        max_distance_pixels=2,
        return_neighbourhood=when,
    )
    padded = np.pad(array.astype(float), 2, constant_values=np.nan)
    for one, r, c in zip(got, rows, cols):
        expected = padded[r : r + 5, c : c + 5].ravel()
        if when == "if_center_nodata" and array[r, c] != 0:
            assert one["neighbourhood_values"] is None
        else:
            assert np.array_equal(one["neighbourhood_values"], expected, equal_nan=True)


# --- what is fetched -----------------------------------------------------------------------------
def test_each_tile_is_fetched_once(tmp_path: Path) -> None:
    array = RNG.integers(0, 60_000, (256, 256)).astype("uint16")
    scene(tmp_path, "a", array)
    with RangeServer(tmp_path) as server:
        one = Scene("a", {"v": f"{server.url}/a.tif"}, "2023-07-01T10:00:00", {}, {})
        found = collect(one)
        server.reset()
        r, c = RNG.integers(0, 64, (2, 500))
        rows = sample(found, at(*zip(r + 0.5, c + 64.5)))
        assert [x["value"] for x in rows] == array[r, c + 64].tolist()
        assert server.counters().requests == 1
        assert server.counters().bytes < 64 * 64 * 2 * 1.1


def test_on_a_cluster(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    found = collect(
        *[scene(tmp_path, f"s{k}", np.full((64, 64), k, "uint8"), day=k + 1) for k in range(9)]
    )
    here = found.sample_points(at((5, 5), (60, 7)), ["v"], geometry_crs=UTM)
    with distributed.Client(processes=False, dashboard_address=None, n_workers=1):
        there = found.sample_points(at((5, 5), (60, 7)), ["v"], geometry_crs=UTM)
    assert here.equals(there)
    assert here["value"].to_pylist() == [float(k) for k in range(9) for _ in range(2)]


def test_on_a_cluster_whose_workers_are_still_to_come(tmp_path: Path) -> None:
    """Profiles of batch systems begin with none."""
    distributed = pytest.importorskip("distributed")
    found = collect(scene(tmp_path, "s", np.full((64, 64), 7, "uint8")))
    how = {"n_workers": 0, "processes": False, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(**how) as cluster, distributed.Client(cluster):
        cluster.adapt(minimum=0, maximum=1, interval="50ms")
        assert [row["value"] for row in sample(found, at((5, 5)))] == [7.0]


# --- the forms of points -------------------------------------------------------------------------
LONLAT = np.array([[15.001, 46.95], [15.002, 46.951]])


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    array = RNG.integers(1, 60_000, (512, 512)).astype("uint16")
    corner = Affine(0.0001, 0, 15, 0, -0.0001, 47)
    path = tmp_path_factory.mktemp("one")
    return collect(scene(path, "a", array, transform=corner, crs="EPSG:4326"))


def _forms() -> dict[str, tuple[Any, dict[str, Any]]]:
    points = shapely.points(LONLAT)
    frame = geopandas.GeoDataFrame({"plot": ["p", "q"]}, geometry=points, crs=4326)
    plain = pd.DataFrame({"plot": ["p", "q"], "x": LONLAT[:, 0], "y": LONLAT[:, 1]})
    wkb = pa.table({"plot": ["p", "q"], "spot": shapely.to_wkb(points)})
    return {
        "shapely": (list(points), {}),
        "array of shapely": (points, {}),
        "wkb": (list(shapely.to_wkb(points)), {}),
        "wkt": (list(shapely.to_wkt(points, rounding_precision=-1)), {}),
        "geojson": (shapely.geometry.mapping(points[0]), {"count": 1}),
        "features": (frame.__geo_interface__, {}),
        "geojson text": (json.dumps(shapely.geometry.mapping(points[0])), {"count": 1}),
        "hex wkb": ([one.hex() for one in shapely.to_wkb(points)], {}),
        "series of shapely": (pd.Series(list(points)), {}),
        "pairs": ([tuple(pair) for pair in LONLAT], {}),
        "geoseries": (frame.geometry, {}),
        "geodataframe": (frame, {}),
        "another crs": (frame.to_crs(UTM), {}),
        "geoarrow": (pa.table(frame.to_arrow(geometry_encoding="geoarrow")), {}),
        "geoarrow wkb": (pa.table(frame.to_arrow()), {}),
        "geoarrow array": (frame.geometry.to_arrow(geometry_encoding="geoarrow"), {}),
        "pandas": (plain, {"geometry_crs": 4326}),
        "named columns": (
            pa.table({"e": LONLAT[:, 0], "n": LONLAT[:, 1]}),
            {"x_column": "e", "y_column": "n", "geometry_crs": "OGC:CRS84"},
        ),
        "lon and lat": (pa.table({"lon": LONLAT[:, 0], "lat": LONLAT[:, 1]}), {}),
        "wkb column": (wkb, {"geometry_column": "spot", "geometry_crs": 4326}),
        "reader": (wkb.to_reader(), {"geometry_column": "spot", "geometry_crs": 4326}),
        "pandas of shapely": (
            pd.DataFrame({"plot": ["p", "q"], "geometry": list(points)}),
            {"geometry_crs": 4326},
        ),
    }


@pytest.mark.parametrize("form", list(_forms()))
def test_forms_of_points(one: rd.Collection, form: str) -> None:
    points, how = _forms()[form]
    count = how.pop("count", 2)
    expected = one.sample_points(LONLAT, ["v"])["value"].to_pylist()[:count]
    found = one.sample_points(points, ["v"], **how)
    assert found["value"].to_pylist() == expected
    if "plot" in found.column_names:
        assert found["plot"].to_pylist() == ["p", "q"]


def test_tables_of_polars_and_duckdb(one: rd.Collection) -> None:
    expected = one.sample_points(LONLAT, ["v"])["value"].to_pylist()
    frame = polars.DataFrame({"plot": ["a", "b"], "lon": LONLAT[:, 0], "lat": LONLAT[:, 1]})
    found = one.sample_points(frame, ["v"])
    assert (found["value"].to_pylist(), found["plot"].to_pylist()) == (expected, ["a", "b"])
    relation = duckdb.sql("select 7 as plot, 15.001::double as lon, 46.95::double as lat")
    assert one.sample_points(relation, ["v"])["value"].to_pylist() == expected[:1]


def test_a_dask_frame_stays_one(one: rd.Collection) -> None:
    frames = pytest.importorskip("dask.dataframe")
    distributed = pytest.importorskip("distributed")
    lon, lat = RNG.uniform(15.0, 15.05, 40), RNG.uniform(46.95, 47.0, 40)
    plain = pd.DataFrame({"plot": np.arange(40), "lon": lon, "lat": lat})
    expected = one.sample_points(plain, ["v"]).to_pandas()
    lazy = one.sample_points(frames.from_pandas(plain, npartitions=4), ["v"])
    assert lazy.npartitions == 4
    assert list(lazy.columns) == list(expected.columns)
    for _ in range(5):
        assert lazy.compute().value.tolist() == expected.value.tolist()
        # Tasks that ran at once have left nothing behind that would keep others from a cluster.
        assert dask.config.get("scheduler", None) is None
    with distributed.Client(processes=False, dashboard_address=None, n_workers=1):
        assert lazy.compute()["plot"].tolist() == list(range(40))


def test_a_frame_of_dask_geopandas(one: rd.Collection) -> None:
    frames = pytest.importorskip("dask_geopandas")
    at = shapely.points(RNG.uniform(15.0, 15.05, 40), RNG.uniform(46.95, 47.0, 40))
    plain = geopandas.GeoDataFrame({"label": [f"l{k}" for k in range(40)]}, geometry=at, crs=4326)
    expected = one.sample_points(plain, ["v"]).to_pandas()
    lazy = one.sample_points(frames.from_geopandas(plain.to_crs(UTM), npartitions=4), ["v"])
    found = lazy.compute()
    assert dict(zip(found.label, found.value)) == dict(zip(expected.label, expected.value))
    assert found.dtypes.to_dict() == lazy.dtypes.to_dict()
    # Partitions without a point have the same columns.
    few = frames.from_geopandas(plain, npartitions=4)
    few = few[few.label == "l7"]
    assert one.sample_points(few, ["v"]).compute().label.tolist() == ["l7"]


@pytest.mark.parametrize(
    ("points", "how", "what"),
    [
        (pa.table({"x": [1.0], "y": [2.0]}), {}, "does not say in which CRS"),
        (pa.table({"a": [1.0]}), {}, "which column holds"),
        (pa.table({"a": [1.0]}), {"geometry_column": "b"}, "no column 'b'"),
        (pa.table({"a": [1.0]}), {"x_column": "a"}, "go together"),
        (pa.table({"a": [1.0], "b": ["x"]}), {"x_column": "a", "y_column": "b"}, "no numbers"),
        (pa.table({"lon": [None, 1.0], "lat": [1.0, 1.0]}), {}, "point 0 has no finite"),
        (np.array([[500_000.0, 5_200_000.0]]), {}, "no degrees"),
        (shapely.Point(), {}, "geometry 0 is empty"),
        (shapely.box(0, 0, 1, 1), {}, "geometry 0 is a Polygon"),
        ([], {}, "no geometry"),
        (LONLAT, {"match": "best"}, "match must be"),
        (LONLAT, {"max_distance_pixels": -1}, "a whole number"),
        (LONLAT, {"return_neighbourhood": "always"}, "needs max_distance_pixels"),
        (LONLAT, {"return_neighbourhood": "never"}, "is unknown"),
        (pa.table({"lon": [15.0], "lat": [46.0], "value": [1]}), {}, "called as columns"),
        (
            geopandas.GeoSeries([shapely.Point(0, 0)], crs=3857),
            {"geometry_crs": 4326},
            "leave geometry_crs out",
        ),
    ],
)
def test_points_that_mean_nothing(
    one: rd.Collection, points: Any, how: dict[str, Any], what: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        one.sample_points(points, ["v"], **how)
    assert what in str(caught.value) or what in caught.value.message


@pytest.mark.parametrize(
    ("frame", "how", "what"),
    [
        (pd.DataFrame({"a": [1.0]}), {}, "which column holds"),
        (pd.DataFrame({"x": [1.0], "y": [2.0]}), {}, "does not say in which CRS"),
        (pd.DataFrame({"a": [1.0]}), {"x_column": "a", "y_column": "b"}, "no column 'b'"),
        (pd.DataFrame({"lon": [15.0], "lat": [46.0], "value": [1]}), {}, "called as columns"),
    ],
)
def test_dask_frames_that_mean_nothing_are_refused_before_they_are_read(
    one: rd.Collection, frame: Any, how: dict[str, Any], what: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        one.sample_points(dask.dataframe.from_pandas(frame, npartitions=1), ["v"], **how)
    assert what in str(caught.value)
