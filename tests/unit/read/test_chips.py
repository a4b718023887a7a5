"""Windows of items as arrays and as rows, against rasterio."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import rasterio
import rasterio.mask
import shapely
from affine import Affine
from handmade import Scene, austria_scenes, collect
from shapely.geometry import box

import rasteret_dask as rd
from rasteret_dask.errors import ArgumentError, EmptySelectionError, GridError, NodataError
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import RangeServer

RNG = np.random.default_rng(17)
UTM = "EPSG:32633"
CORNER = Affine(10, 0, 500_000, 0, -10, 5_200_000)
HOLED = shapely.Polygon(
    [
        (500_107.3, 5_199_701.9),
        (500_702.1, 5_199_203.7),
        (501_203.3, 5_199_903.1),
        (500_401.7, 5_199_951.3),
    ],
    [[(500_501.1, 5_199_702.9), (500_602.3, 5_199_603.1), (500_701.7, 5_199_752.3)]],
)
TWO = shapely.MultiPolygon([HOLED, box(500_001, 5_199_001, 500_102, 5_199_103)])


def scene(path: Path, name: str, array: Any, *, day: int = 1, **how: Any) -> Scene:
    how = {"blocksize": 64, "overviews": 0, "transform": CORNER, "crs": UTM, **how}
    file = make_cog(path / f"{name}.tif", np.asarray(array), **how)
    return Scene(name, {"v": file}, f"2023-07-{day:02d}T10:00:00", {}, {})


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Scene]:
    path = tmp_path_factory.mktemp("three")
    return [
        scene(path, f"s{k}", RNG.integers(1, 60_000, (150, 170)).astype("uint16"), day=k + 1, nodata=0)
        for k in range(3)
    ]  # fmt: skip


def by_rasterio(path: Any, geometry: Any, all_touched: bool = False) -> tuple[np.ndarray, Affine]:
    with rasterio.open(path) as file:
        data, transform = rasterio.mask.mask(file, [geometry], crop=True, all_touched=all_touched)
    return data[0], transform


@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize("shape", [HOLED, TWO, box(499_000, 5_199_903, 500_157, 5_201_000)])
def test_polygons_mask_as_rasterio_does(three: list[Scene], shape: Any, all_touched: bool) -> None:
    found = collect(*three).get_gdf(shape, ["v"], geometry_crs=UTM, all_touched=all_touched)
    assert found.record_id.tolist() == ["s0", "s1", "s2"]
    for row, one in zip(found.itertuples(), three):
        expected, transform = by_rasterio(one.files["v"], shape, all_touched)
        assert np.array_equal(row.v, expected)
        assert row.transform.almost_equals(transform)
        assert row.crs == UTM


def test_polygons_on_real_scenes_in_lonlat(austria: Path) -> None:
    scenes = austria_scenes(austria)
    plots = geopandas.GeoDataFrame(
        {"plot_id": ["a", "b", "c"], "crop": ["rice", None, "rye"]},
        geometry=[box(15.35, 46.95, 15.42, 47.0), box(15.9, 46.0, 16.0, 46.1).buffer(0.02), box(15.2, 46.9, 15.3, 47.05)],
        crs="OGC:CRS84",
    )  # fmt: skip
    found = collect(*scenes).get_gdf(plots, ["red", "nir"])
    native = plots.to_crs(UTM)
    pairs = []
    for k, geometry in enumerate(native.geometry):
        for one in sorted(scenes, key=lambda s: (s.time, s.id)):
            try:
                expected = [by_rasterio(one.files[b], geometry)[0] for b in ("red", "nir")]
            except ValueError:  # does not overlap
                continue
            pairs.append((k + 1, one.id, expected))
    assert len(pairs) == len(found) > 10
    for row, (number, name, expected) in zip(found.itertuples(), pairs):
        assert (row.geometry_id, row.record_id) == (number, name)
        assert np.array_equal(row.red, expected[0])
        assert np.array_equal(row.nir, expected[1])
        assert row.plot_id == plots.plot_id[number - 1]
    assert found.crop.isna().tolist() == plots.crop.isna()[found.geometry_id - 1].tolist()
    assert found.crs == plots.crs
    assert found.geometry.iloc[0].equals(plots.geometry[0])


CORPUS = {
    "naip": "stactools-packages+naip/tests/data-files",
    "dem": "cogeotiff+rio-tiler-pds/tests/fixtures/copernicus-dem-30m",
    "landsat": "appelmar+gdalcubes/inst/L8NY18",
}


@pytest.mark.parametrize("name", list(CORPUS))
def test_windows_and_masks_of_the_corpus_equal_rasterio(corpus: Path, name: str) -> None:
    tried = 0
    for path in sorted((corpus / CORPUS[name]).rglob("*.[tT][iI][fF]")):
        with rasterio.open(path) as file:
            if file.crs is None or file.width < 8:
                continue
            rows, cols = (
                np.sort(RNG.integers(0, file.height, 2)),
                np.sort(RNG.integers(0, file.width, 2)),
            )
            (r0, r1), (c0, c1) = rows + [0, 1], cols + [0, 1]  # noqa: RUF005 -- a sum of arrays
            expected = file.read(1, window=((r0, r1), (c0, c1)))
            left, top = file.transform * (c0 + 0.01, r0 + 0.01)
            right, bottom = file.transform * (c1 - 0.01, r1 - 0.01)
            crs, nodata = file.crs.to_wkt(), file.nodata
            middle = file.transform * (file.width * 0.47113, file.height * 0.51371)
        size = 0.30937 * min(file.width * file.transform.a, -file.height * file.transform.e)
        ring = shapely.Point(middle).buffer(size) - shapely.Point(middle).buffer(size / 3)
        one = collect(Scene("a", {"v": path}, "2023-07-01T10:00:00", {}, {}))
        window = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
        assert np.array_equal(one.get_numpy(window, ["v"], geometry_crs=crs)[0], expected), path
        for touched in (False, True):
            fill = None if nodata is not None else 0
            mine = one.get_gdf(ring, ["v"], geometry_crs=crs, all_touched=touched, fill_value=fill)
            masked, transform = by_rasterio(path, ring, touched)
            assert np.array_equal(mine.v[0], masked, equal_nan=masked.dtype.kind == "f"), path
            assert mine["transform"][0].almost_equals(transform)
        tried += 1
    if not tried:
        pytest.skip(f"the corpus holds no GeoTIFF of {name}")


def test_a_row_for_each_band(tmp_path: Path, three: list[Scene]) -> None:
    coarse = make_cog(
        tmp_path / "c.tif", np.arange(85 * 75, dtype="uint8").reshape(75, 85), overviews=0,
        transform=Affine(20, 0, 500_000, 0, -20, 5_200_000), crs=UTM, blocksize=64,
    )  # fmt: skip
    both = Scene("a", {"v": three[0].files["v"], "w": coarse}, three[0].time, {}, {})
    area = (500_095.0, 5_199_500.0, 500_200.0, 5_199_600.0)
    with pytest.raises(GridError, match="differ in resolution"):
        collect(both).get_gdf(area, geometry_crs=UTM)
    found = collect(both).get_gdf(area, geometry_crs=UTM, per="band")
    assert found.band.tolist() == ["v", "w"]
    assert [d.shape for d in found.data] == [(10, 11), (5, 6)]
    assert [t.a for t in found["transform"]] == [10, 20]
    with pytest.raises(ArgumentError, match="per must be"):
        collect(both).get_gdf(area, geometry_crs=UTM, per="pixel")


def test_bands_of_different_resolution_as_one_array(tmp_path: Path, three: list[Scene]) -> None:
    coarse = make_cog(
        tmp_path / "c.tif", np.arange(85 * 75, dtype="uint16").reshape(75, 85), overviews=0, nodata=9999,
        transform=Affine(20, 0, 500_000, 0, -20, 5_200_000), crs=UTM, blocksize=64,
    )  # fmt: skip
    both = [Scene(s.id, {"v": s.files["v"], "w": coarse}, s.time, {}, {}) for s in three[:2]]
    areas = [
        box(500_100, 5_199_500, 500_200, 5_199_600),
        box(500_300, 5_199_500, 500_400, 5_199_600),
    ]
    with pytest.raises(GridError, match="resolution="):
        collect(*both).get_numpy(areas, geometry_crs=UTM)
    found = collect(*both).get_numpy(areas, geometry_crs=UTM, resolution=20)
    assert found.shape == (4, 2, 5, 5)
    fine = collect(*both).get_numpy(areas, geometry_crs=UTM, resolution=10)
    assert fine.shape == (4, 2, 10, 10)
    with rasterio.open(coarse) as file:
        pixels = file.read(1)
    for k, area in enumerate(areas):
        column = int(area.bounds[0] - 500_000) // 20
        for item in range(2):
            assert np.array_equal(found[2 * k + item, 1], pixels[20:25, column : column + 5])
            expected, _ = by_rasterio(both[item].files["v"], area)
            assert np.array_equal(fine[2 * k + item, 0], expected)
            assert np.array_equal(fine[2 * k + item, 1, ::2, ::2], found[2 * k + item, 1])
    one = collect(*both).get_numpy(areas[0], ["v"], geometry_crs=UTM, resolution=20, resampling="average", scale=True)  # fmt: skip
    assert one.shape == (2, 5, 5)
    assert collect(*both).get_numpy(bbox=None, bands=["v", "w"], resolution=20).shape == (
        2,
        2,
        75,
        85,
    )
    with pytest.raises(ArgumentError, match="differ in shape"):
        collect(*both).get_numpy([areas[0], areas[1].buffer(20)], geometry_crs=UTM, resolution=20)


def test_each_tile_is_read_once_however_many_geometries_touch_it(tmp_path: Path) -> None:
    array = RNG.integers(1, 60_000, (256, 256)).astype("uint16")
    scene(tmp_path, "a", array)
    corners = RNG.integers(0, 50, (40, 2))
    areas = [
        box(500_640 + 10 * x, 5_199_990 - 10 * y, 500_650 + 10 * x, 5_200_000 - 10 * y)
        for x, y in corners
    ]
    with RangeServer(tmp_path) as server:
        remote = Scene("a", {"v": f"{server.url}/a.tif"}, "2023-07-01T10:00:00", {}, {})
        found = collect(remote)
        server.reset()
        rows = found.get_gdf(areas, ["v"], geometry_crs=UTM)
        assert server.counters().requests == 1
    assert [int(v[0, 0]) for v in rows.v] == [array[y, 64 + x] for x, y in corners.tolist()]


@pytest.mark.parametrize("clustered", [False, True])
def test_on_a_cluster_too_a_tile_is_read_once(tmp_path: Path, clustered: bool) -> None:
    """Areas in an order that tears the tiles of three files apart, of which there are more than one task reads."""
    distributed = pytest.importorskip("distributed")
    array = RNG.integers(1, 60_000, (512, 512)).astype("uint16")
    for name in "abc":
        scene(tmp_path, name, array)
    corners = [(8 * (k * 37 % 64), 8 * (k * 23 % 64)) for k in range(64)] * 2
    areas = [
        box(500_000 + 10 * x, 5_199_980 - 10 * y, 500_000 + 10 * x + 20, 5_200_000 - 10 * y)
        for x, y in corners
    ]
    with RangeServer(tmp_path) as server, ExitStack() as stack:
        if clustered:
            stack.enter_context(
                distributed.Client(processes=False, dashboard_address=None, n_workers=1)
            )
        scenes = [Scene(n, {"v": f"{server.url}/{n}.tif"}, f"2023-07-0{k}T10:00:00", {}, {}) for k, n in enumerate("abc", 1)]  # fmt: skip
        found = collect(*scenes)
        tiles = len({(x // 64, y // 64) for x, y in corners})
        server.reset()
        rows = found.get_gdf(areas, ["v"], geometry_crs=UTM)
        # Twice a tile would be more bytes than there are.
        assert server.counters().bytes <= 3 * (tmp_path / "a.tif").stat().st_size
    assert tiles > 32
    assert [int(v[0, 0]) for v in rows.v[::3]] == [array[y, x] for x, y in corners]


def test_points_and_lines(three: list[Scene]) -> None:
    with rasterio.open(three[0].files["v"]) as file:
        pixels = file.read(1)
    found = collect(three[0]).get_gdf(shapely.Point(500_205, 5_199_595), ["v"], geometry_crs=UTM)
    assert found.v[0].tolist() == [[pixels[40, 20]]]


def test_on_a_cluster(three: list[Scene]) -> None:
    distributed = pytest.importorskip("distributed")
    found = collect(*three)
    shapes = [HOLED, box(500_010, 5_199_010, 500_200, 5_199_110)]
    here = found.get_gdf(shapes, ["v"], geometry_crs=UTM)
    alone = found.get_numpy(HOLED, ["v"], geometry_crs=UTM)
    with distributed.Client(processes=False, dashboard_address=None, n_workers=1):
        there = found.get_gdf(shapes, ["v"], geometry_crs=UTM)
        assert np.array_equal(found.get_numpy(HOLED, ["v"], geometry_crs=UTM), alone)
    assert [v.tolist() for v in here.v] == [v.tolist() for v in there.v]


def test_arrays_of_one_shape(three: list[Scene]) -> None:
    found = collect(*three)
    got = found.get_numpy((500_095.0, 5_199_500.0, 500_200.0, 5_199_600.0), "v", geometry_crs=UTM)
    for one, window in zip(three, got):
        with rasterio.open(one.files["v"]) as file:
            assert np.array_equal(window, file.read(1)[40:50, 9:20])
    assert got.shape == (3, 10, 11)
    with pytest.raises(ArgumentError, match="differ in shape") as caught:
        found.get_numpy([HOLED, box(500_000, 5_199_990, 500_010, 5_200_000)], "v", geometry_crs=UTM)
    assert "get_gdf" in str(caught.value)


def _forms() -> dict[str, tuple[Any, dict[str, Any]]]:
    shapes = [box(15.001, 46.95, 15.003, 46.952), box(15.01, 46.96, 15.012, 46.963)]
    frame = geopandas.GeoDataFrame({"plot": ["p", "q"]}, geometry=shapes, crs=4326)
    wkb = pa.table({"plot": ["p", "q"], "area": shapely.to_wkb(shapes)})
    asked = {"geometry_column": "area", "geometry_crs": 4326}
    return {
        "shapely": (shapes, {}),
        "wkb": (shapely.to_wkb(shapes).tolist(), {}),
        "wkb array": (pa.array(shapely.to_wkb(shapes)), {}),
        "geojson": ([shapely.geometry.mapping(s) for s in shapes], {}),
        "features": (frame.__geo_interface__, {}),
        "geoseries": (frame.geometry, {}),
        "geodataframe": (frame, {}),
        "geoarrow": (pa.table(frame.to_arrow(geometry_encoding="geoarrow")), {}),
        "geoarrow wkb": (pa.table(frame.to_arrow()), {}),
        "geoarrow series": (frame.geometry.to_arrow(geometry_encoding="geoarrow"), {}),
        "table": (wkb, asked),
        "chunks": (pa.concat_tables([wkb.slice(0, 1), wkb.slice(1)]), asked),
        "pandas": (pd.DataFrame({"plot": ["p", "q"], "area": shapes}), asked),
    }


@pytest.mark.parametrize("form", list(_forms()))
def test_forms_of_areas(tmp_path: Path, form: str) -> None:
    array = RNG.integers(1, 60_000, (512, 512)).astype("uint16")
    corner = Affine(0.0001, 0, 15, 0, -0.0001, 47)
    one = collect(scene(tmp_path, "a", array, transform=corner, crs="EPSG:4326"))
    given, how = _forms()[form]
    found = one.get_gdf(given, ["v"], **how)
    assert [v.tolist() for v in found.v] == [
        array[480:500, 10:30].tolist(),
        array[370:400, 100:120].tolist(),
    ]
    if "plot" in found.columns:
        assert found["plot"].tolist() == ["p", "q"]
    assert len(one.subset(geometries=_forms()["shapely"][0])) == 1


@pytest.mark.parametrize(
    ("given", "how", "error", "what"),
    [
        (shapely.Polygon(), {}, ArgumentError, "geometry 0 is empty"),
        ([box(0, 0, 1, 1), None], {}, ArgumentError, "no geometry"),
        (pa.table({"geometry": pa.array([None], pa.binary())}), {"geometry_crs": 4326}, ArgumentError, "missing"),
        (pa.table({"g": shapely.to_wkb([box(0, 0, 1, 1)])}), {}, ArgumentError, "which column"),
        (pa.table({"geom": shapely.to_wkb([box(0, 0, 1, 1)])}), {}, ArgumentError, "in which CRS"),
        (pa.table({"geom": [1]}), {"geometry_crs": 4326}, ArgumentError, "holds no geometries"),
        (box(500_000, 5_199_000, 500_100, 5_199_100), {}, ArgumentError, "no degrees"),
        (box(0, 0, 1, 1), {"geometry_crs": "EPSG:999999"}, Exception, "coordinate reference"),
        (box(0, 0, 1, 1), {"geometry_column": "g"}, ArgumentError, "this is none"),
        (box(100, 0, 101, 1), {}, EmptySelectionError, "none of the collection"),
        (HOLED, {"geometry_crs": UTM, "missing": "raise", "date_range": "1999"}, EmptySelectionError, "none"),
        ("POLYGON((0 0, 1", {}, ArgumentError, "cannot be understood"),
        (7, {}, ArgumentError, "no geometry"),
    ],
)  # fmt: skip
def test_areas_that_mean_nothing(
    three: list[Scene], given: Any, how: dict[str, Any], error: Any, what: str
) -> None:
    with pytest.raises(error) as caught:
        collect(*three).get_gdf(given, ["v"], **how)
    assert isinstance(caught.value, rd.RasteretError)
    assert what in str(caught.value)


def test_pixels_outside_need_a_value(tmp_path: Path) -> None:
    silent = collect(scene(tmp_path, "a", np.ones((150, 150), "uint8")))
    with pytest.raises(NodataError, match="fill_value"):
        silent.get_gdf(HOLED, ["v"], geometry_crs=UTM)
    found = silent.get_gdf(HOLED, ["v"], geometry_crs=UTM, fill_value=9)
    assert set(np.unique(found.v[0])) == {1, 9}
    taken = pa.table({"v": [1], "geometry": shapely.to_wkb([HOLED])})
    with pytest.raises(ArgumentError, match="called as columns"):
        silent.get_gdf(taken, ["v"], geometry_crs=UTM)


@pytest.mark.parametrize("clustered", [False, True])
def test_one_array_of_several_types_takes_what_its_own_type_holds(
    tmp_path: Path, clustered: bool
) -> None:
    distributed = pytest.importorskip("distributed")
    pixels = {
        "u": RNG.integers(1, 255, (150, 170)).astype("uint8"),
        "w": RNG.random((150, 170)).astype("float32"),
    }
    files = {name: scene(tmp_path, name, array).files["v"] for name, array in pixels.items()}
    found = collect(Scene("a", files, "2023-07-01T10:00:00", {}, {}))
    with ExitStack() as stack:
        if clustered:
            stack.enter_context(
                distributed.Client(processes=False, dashboard_address=None, n_workers=1)
            )
        got = found.get_numpy(HOLED, geometry_crs=UTM, fill_value=-1.5)
        with pytest.raises(NodataError, match="uint8 cannot hold"):
            found.get_gdf(HOLED, geometry_crs=UTM, fill_value=-1.5)
    for band, path in enumerate(files.values()):
        with rasterio.open(path) as file:
            hidden, _, window = rasterio.mask.raster_geometry_mask(file, [HOLED], crop=True)
            expected = np.where(hidden, np.float32(-1.5), file.read(1, window=window))
        assert np.array_equal(got[0, band], expected)


def test_rows_for_each_band_where_one_band_is_not_there(tmp_path: Path) -> None:
    """The items of one band lie under the area, those of the other beside it, though their boxes meet it."""
    full = np.ones((64, 64), "uint8")
    beside = Affine(10, 0, 505_000, 0, -10, 5_200_000)
    here, there = scene(tmp_path, "a", full), scene(tmp_path, "b", full, transform=beside)
    columns = {"bbox": {"xmin": 14.9, "ymin": 46.0, "xmax": 15.5, "ymax": 47.5}}
    scenes = [
        Scene("a", {"v": here.files["v"]}, here.time, columns=columns),
        Scene("b", {"w": there.files["v"]}, there.time, columns=columns),
    ]
    area = box(500_100, 5_199_500, 500_200, 5_199_600)
    how: dict[str, Any] = {"geometry_crs": UTM, "missing": "nodata", "per": "band"}
    found = collect(*scenes).get_gdf(area, **how)
    assert (found.record_id.tolist(), found.band.tolist()) == (["a"], ["v"])
    nowhere = box(503_000, 5_199_500, 503_100, 5_199_600)
    with pytest.raises(EmptySelectionError, match="meet none"):
        collect(*scenes).get_gdf(nowhere, **how)
