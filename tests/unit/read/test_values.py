"""What stored numbers mean in reads that are no cubes: scaled and decoded values, against rasterio and the formulas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from affine import Affine
from handmade import Scene, austria_scenes, collect, make_table
from pyproj import Transformer

import rasteret_dask as rd
from rasteret_dask import catalog as catalogs
from rasteret_dask.errors import ArgumentError
from rasteret_dask.testing.cog import make_cog

RNG = np.random.default_rng(23)
UTM = "EPSG:32633"
CORNER = Affine(10, 0, 500_000, 0, -10, 5_200_000)
NAMES = [f"A{i:02d}" for i in range(64)]

RASTERETS = [
    "image_width", "image_height", "tile_width", "tile_height", "dtype", "transform",
    "predictor", "compression", "tile_offsets", "tile_byte_counts", "pixel_scale", "tiepoint",
    "nodata", "samples_per_pixel", "planar_configuration", "photometric", "extra_samples",
]  # fmt: skip


def as_rasteret(table: pa.Table) -> pa.Table:
    """The columns and fields that rasteret writes, and no word of ours."""
    kept = {
        name: table[name] for name in ("id", "datetime", "geometry", "bbox", "proj:epsg", "year")
    }
    rows = table.select(["assets"]).to_pylist()
    assets = [
        {b: {"href": a["href"], "band_index": a["band_index"]} for b, a in row["assets"].items()}
        for row in rows
    ]
    kept["assets"] = pa.array(assets)
    for name in table.column_names:
        if name.endswith("_metadata"):
            column = table[name].combine_chunks()
            kept[name] = pa.StructArray.from_arrays(
                [column.field(f) for f in RASTERETS], names=RASTERETS
            )
    return pa.table(kept)


def decoded(stored: Any) -> np.ndarray:
    """AlphaEarth's formula, in double precision."""
    values = np.asarray(stored, dtype=np.float64)
    return np.where(values == -128, np.nan, np.sign(values) * (values / 127.5) ** 2)


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, np.ndarray]:
    """A published collection of two years of embeddings as rasteret writes them: planes of one file, south-up, silent on nodata."""
    folder = tmp_path_factory.mktemp("aef")
    south_up = Affine(10, 0, 500_000, 0, 10, 5_198_000)
    scenes, pixels = [], RNG.integers(-127, 128, (64, 200, 150)).astype("int8")
    pixels[:, 50:60, 70:90] = -128
    for year, array in ((2022, pixels[::-1]), (2023, pixels)):
        file = make_cog(
            folder / f"{year}.tif", array, transform=south_up, crs=UTM, blocksize=64, driver="GTiff",
            interleave="band", overviews=0,
        )  # fmt: skip
        files = {name: (file, index) for index, name in enumerate(NAMES)}
        whole = {
            "proj:epsg": 32633,
            "year": year,
            "geometry": shapely.to_wkb(shapely.box(14.9, 46.8, 15.1, 47.0)),
        }
        scenes.append(Scene(f"aef-{year}", files, f"{year}-01-01T00:00:00", {}, whole))
    published = folder / "published"
    published.mkdir()
    pq.write_table(as_rasteret(make_table(scenes)), published / "part-0.parquet")
    return folder, published, pixels


def test_embeddings_under_labels(embeddings: tuple[Path, Path, np.ndarray]) -> None:
    folder, published, _ = embeddings
    told = catalogs.built_in()["aef/v1-annual"]
    here = catalogs.built_in().register(replace(told, parquet=str(published), storage={}))
    x, y = RNG.uniform(500_000, 501_500, 300), RNG.uniform(5_198_000, 5_200_000, 300)
    lon, lat = Transformer.from_crs(UTM, "OGC:CRS84", always_xy=True).transform(x, y)
    labels = pa.table({"lon": lon, "lat": lat, "label": [f"crop-{k}" for k in range(300)]})

    aef = rd.load("aef/v1-annual", catalog=here, storage=rd.StorageOptions())
    aef = aef.subset(date_range=("2023-01-01", "2023-12-31"))
    t = aef.sample_points(labels, NAMES, decode=True, geometry_crs=4326).to_pandas()

    with rasterio.open(folder / "2023.tif") as file:
        expected = np.array([v.astype(float) for v in file.sample(zip(x, y))])
    assert len(t) == 64 * 300
    table = t.pivot(index="point_index", columns="band", values="value")[NAMES].to_numpy()
    assert np.isnan(table).any()
    np.testing.assert_allclose(table, decoded(expected), rtol=1e-6, equal_nan=True)
    assert t.label.tolist() == [f"crop-{k}" for k in t.point_index]
    assert set(t.record_id) == {"aef-2023"}
    stored = aef.sample_points(labels, NAMES[:2], geometry_crs=4326).to_pandas()
    assert stored.value.tolist() == expected[:, :2].T.ravel().tolist()


def test_a_dask_frame_of_labels(embeddings: tuple[Path, Path, np.ndarray]) -> None:
    frames = pytest.importorskip("dask.dataframe")
    _, published, _ = embeddings
    aef = rd.as_collection(
        pq.read_table(published), descriptor=catalogs.built_in()["aef/v1-annual"]
    )
    xy = np.column_stack([RNG.uniform(500_000, 501_500, 20), RNG.uniform(5_198_000, 5_200_000, 20)])
    labels = pd.DataFrame(xy, columns=["x", "y"])
    how = {"bands": ["A07"], "decode": True, "geometry_crs": UTM, "match": "latest"}
    found = aef.sample_points(frames.from_pandas(labels, npartitions=3), **how).compute()
    assert found.value.tolist() == pytest.approx(
        aef.sample_points(xy, **how)["value"].to_pylist(), nan_ok=True
    )


def test_embeddings_as_windows_equal_the_cube(
    embeddings: tuple[Path, Path, np.ndarray],
) -> None:
    _, published, pixels = embeddings
    aef = rd.as_collection(
        pq.read_table(published), descriptor=catalogs.built_in()["aef/v1-annual"]
    )
    found = aef.get_numpy(bands=["A01", "A05"], decode=True, date_range="2023")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], decoded(pixels[[1, 5]]), rtol=1e-6, equal_nan=True)
    cube = aef.subset(date_range="2023").get_xarray(bands=["A01"], decode=True)
    assert np.array_equal(cube.A01.values[0], found[0, 0, ::-1], equal_nan=True)  # y descends there
    polygon = shapely.Point(500_700, 5_198_700).buffer(333)
    rows = aef.get_gdf(polygon, ["A01"], decode=True, geometry_crs=UTM, date_range="2023")
    stored = aef.get_gdf(polygon, ["A01"], geometry_crs=UTM, date_range="2023")
    np.testing.assert_allclose(rows.A01[0], decoded(stored.A01[0]), rtol=1e-6, equal_nan=True)
    filled = aef.get_gdf(
        polygon, ["A01"], decode=True, fill_value=9.0, geometry_crs=UTM, date_range="2023"
    )
    assert (filled.A01[0][0, 0], filled.A01[0].dtype) == (9.0, np.float32)


def test_decode_without_a_decoder_is_refused(tmp_path: Path) -> None:
    file = make_cog(tmp_path / "a.tif", np.ones((64, 64), "uint8"), blocksize=64)
    plain = collect(Scene("a", {"v": file}))
    for call in (plain.get_numpy, plain.sample_points, plain.get_gdf):
        with pytest.raises(ArgumentError, match="decode=True"):
            call([shapely.Point(15, 46.9)], bands=["v"], decode=True)


# --- scale and offset ----------------------------------------------------------------------------
def test_scaled_values_of_real_scenes_equal_the_cube(austria: Path) -> None:
    scenes = austria_scenes(austria)
    c = collect(*scenes)
    lon, lat = RNG.uniform(15.0, 16.4, 200), RNG.uniform(46.1, 47.8, 200)
    points = np.column_stack([lon, lat])
    stored = c.sample_points(points, ["red", "scl"]).to_pandas()
    scaled = c.sample_points(points, ["red", "scl"], scale=True).to_pandas()
    red = (stored.band == "red").to_numpy()
    # The offset of baseline 04.00 was taken out already, as the items say.
    expected = stored.value[red].to_numpy().astype("float32") * np.float32(1e-4)
    expected[expected == 0] = np.nan
    assert np.array_equal(scaled.value[red], expected.astype(float), equal_nan=True)
    # Classes have no scale.
    assert scaled.value[~red].tolist() == stored.value[~red].tolist()
    box = (15.35, 46.5, 15.42, 46.55)
    name = next(s.id for s in scenes if "33TWM" in s.id)
    one = c.subset(id=name)
    cube = one.get_xarray(bbox=box, bands=["red", "scl"], scale=True)
    windows = one.get_gdf(box, ["red", "scl"], scale=True)
    assert np.array_equal(windows.red[0], cube.red.values[0], equal_nan=True)
    assert np.array_equal(windows.scl[0], cube.scl.values[0])
    assert windows.scl[0].dtype == np.uint8
    array = one.get_numpy(bbox=box, bands="red", scale=True)
    assert np.array_equal(array[0], windows.red[0], equal_nan=True)
    told = one.get_numpy(bbox=box, bands="red", scale=True, offsets={name: -1000})
    np.testing.assert_allclose(told, array - 0.1, atol=1e-6)


def test_nothing_is_nan_and_neighbours_are_looked_for_before_scaling(tmp_path: Path) -> None:
    stored = np.full((64, 64), 7, "uint16")
    stored[10, 10] = 0
    stored[20:31, 20:31] = 0
    file = make_cog(
        tmp_path / "a.tif", stored, blocksize=64, overviews=0, transform=CORNER, crs=UTM
    )
    declared = {"v": {"nodata": 0, "scale": 0.5, "offset": -3.5}}
    c = collect(Scene("a", {"v": file}, declared=declared))
    points = np.array([(500_105, 5_199_895), (500_255, 5_199_745), (500_005, 5_199_995)])
    how: dict[str, Any] = {"geometry_crs": UTM, "scale": True}
    assert np.array_equal(
        c.sample_points(points, **how)["value"], [np.nan, np.nan, 0], equal_nan=True
    )
    near = c.sample_points(points, **how, max_distance_pixels=1, return_neighbourhood="always")
    assert np.array_equal(near["value"], [0, np.nan, 0], equal_nan=True)
    first, second, corner = near["neighbourhood_values"].to_pylist()
    assert np.array_equal(first, [0, 0, 0, 0, np.nan, 0, 0, 0, 0], equal_nan=True)
    assert np.isnan(second).all()
    off = [0, 1, 2, 3, 6]  # above and to the left of the file
    assert np.isnan(np.array(corner)[off]).all()
    assert np.array(corner)[[4, 5, 7, 8]].tolist() == [0] * 4


def test_what_the_descriptor_calls_nodata_holds_for_points_and_windows(tmp_path: Path) -> None:
    stored = RNG.integers(1, 9, (64, 64)).astype("uint8")
    stored[30, 30] = 5
    stored[30, 31] = 6
    file = make_cog(
        tmp_path / "a.tif", stored, blocksize=64, overviews=0, transform=CORNER, crs=UTM
    )
    told = replace(collect(Scene("a", {"v": file})), infos=(rd.BandInfo("v", "v", nodata=5),))
    hole = shapely.Point(500_305, 5_199_695)
    rows = told.sample_points(hole, geometry_crs=UTM, max_distance_pixels=1)
    assert rows["value"].to_pylist() != [5]
    triangle = shapely.Polygon([(500_100, 5_199_900), (500_300, 5_199_900), (500_100, 5_199_700)])
    assert told.get_gdf(triangle, geometry_crs=UTM).v[0][-1, -1] == 5
    assert told.get_numpy(triangle, geometry_crs=UTM)[0, -1, -1] == 5
    assert told.get_numpy(triangle, geometry_crs=UTM, nodata=4)[0, -1, -1] == 4


@pytest.mark.parametrize("nodata", [-99.9, 1e20, -3.40282347e38, -9999])
@pytest.mark.parametrize("who", ["caller", "descriptor", "STAC"])
def test_nodata_is_what_float32_makes_of_the_number_that_was_told(
    tmp_path: Path, nodata: float, who: str
) -> None:
    """-99.9 is -99.90000153 there, and samples are compared in double precision."""
    stored = np.full((64, 64), 5, "float32")
    stored[10, 10] = nodata
    how: dict[str, Any] = {"blocksize": 64, "overviews": 0, "transform": CORNER, "crs": UTM}
    file = make_cog(tmp_path / "a.tif", stored, **how)
    declared = {"v": {"scale": 2.0, **({"nodata": nodata} if who == "STAC" else {})}}
    c = collect(Scene("a", {"v": file}, declared=declared))
    if who == "descriptor":
        c = replace(c, infos=(rd.BandInfo("v", "v", nodata=nodata),))
    told = {"nodata": nodata} if who == "caller" else {}
    spots: dict[str, Any] = {"points": np.array([(500_105, 5_199_895)]), "geometry_crs": UTM, **told}  # fmt: skip
    assert c.sample_points(**spots)["value"].to_pylist() == [float(np.float32(nodata))]
    assert c.sample_points(**spots, max_distance_pixels=1)["value"].to_pylist() == [5]
    assert np.isnan(c.sample_points(**spots, scale=True)["value"][0].as_py())
    near = c.sample_points(**spots, scale=True, max_distance_pixels=1)
    assert near["value"].to_pylist() == [10]
