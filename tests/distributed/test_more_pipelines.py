"""Shipped pipelines over other data than Sentinel-2 alone: heights, Landsat, embeddings, chips. The
oracles are rasterio and NumPy on the same files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import dask
import fsspec
import geopandas
import geopandas.testing
import numpy as np
import pandas
import pyarrow.feather
import pyarrow.parquet
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from pyproj import Transformer
from rasterio.windows import Window

import rasteret_dask as rd
from rasteret_dask import catalog, resources
from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline import chips, config, foreach
from rasteret_dask.pipeline.run import explain, run
from rasteret_dask.testing import others
from rasteret_dask.testing.catalog import write_demo_catalog

DATES = ("2023-07-03", "2023-07-08", "2023-07-13")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    return write_demo_catalog(root, size=128, dates=DATES, blocksize=128)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RASTERET_DASK_WORKSPACE", str(tmp_path / "workspace"))
    return tmp_path


def searched_in(source: Path) -> list[str]:
    return [
        f"collection.build.static_catalog={source}",
        "collection.build.bbox=null",
        "collection.build.date_range=null",
        "collection.subset=null",
        "cube.bbox=null",
    ]


def opened(name: str, *sets: str) -> config.Pipeline:
    return config.from_file(resources.find(name, "pipelines"), sets)


# --- a stack with heights ------------------------------------------------------------------------
def with_heights(scenes: Path, here: Path) -> list[str]:
    dem = others.write_dem_catalog(here / "dem")
    build = f"steps[2].stack.collection.build.static_catalog={dem}"
    return [*searched_in(scenes), build, "steps[2].stack.collection.build.bbox=null"]


def heights(root: Path, transform, shape, crs) -> tuple[np.ndarray, np.ndarray]:
    """Both tiles side by side, bilinear at the centres of pixels; and where a tile ends."""
    with rasterio.open(root / "W" / "data.tif") as west, rasterio.open(root / "E/data.tif") as east:
        ground = np.hstack([west.read(1), east.read(1)]).astype("float64")
        left, top, step, middle = west.bounds.left, west.bounds.top, west.res[0], west.width
    columns, rows = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    to_lonlat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    x, y = to_lonlat.transform(transform.c + 10 * columns, transform.f - 10 * rows)
    across, down = (x - left) / step - 0.5, (top - y) / step - 0.5
    c, r = np.floor(across).astype(int), np.floor(down).astype(int)
    assert c.min() >= 0
    assert r.min() >= 0
    u, v = across - c, down - r
    upper = ground[r, c] * (1 - u) + ground[r, c + 1] * u
    lower = ground[r + 1, c] * (1 - u) + ground[r + 1, c + 1] * u
    return upper * (1 - v) + lower * v, np.abs(across + 0.5 - middle) < 1


def test_sentinel2_dem(scenes, here):
    pipeline = opened("sentinel2_dem", *with_heights(scenes, here))
    plan = explain(pipeline)
    assert [row["band"] for row in plan["bands"]] == ["B02", "B03", "B04", "B08", "DEM"]
    account = run(pipeline)
    assert account.requests == plan["requests"]
    with rasterio.open("output/sentinel2_dem.tif") as image:
        assert image.descriptions == ("B02", "B03", "B04", "B08", "ndvi", "DEM")
        found, transform, crs = image.read(6), image.transform, image.crs
    expected, seam = heights(here / "dem", transform, found.shape, crs)
    assert (np.isnan(expected) == np.isnan(found)).mean() > 0.99
    error = np.abs(found - expected)
    # A thousandth of a pixel, at up to 36 m of height a pixel; at the seam each tile ends.
    assert np.nanmax(error[~seam]) < 0.06
    assert np.nanmax(error) < 20
    assert seam.any()
    assert (~seam & ~np.isnan(error)).sum() > 10_000
    stored = xr.open_zarr("output/sentinel2_dem.zarr")
    np.testing.assert_array_equal(stored.DEM.values, found)
    assert list(stored.data_vars) == ["B02", "B03", "B04", "B08", "DEM", "ndvi"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("steps[1]={expression: {B02: B02}}", r"still has dates.*steps\[2\]"),
        ("steps[2].stack.bands=[DEM, B04]", r"steps\[2\]\.stack\.bands\[1\]"),
    ],
)
def test_stacks_that_mean_nothing(scenes, here, change, words):
    with pytest.raises(ConfigError, match=words):
        run(opened("sentinel2_dem", *with_heights(scenes, here), change))


# --- Landsat -------------------------------------------------------------------------------------
def temperatures(root: Path) -> tuple[np.ndarray, tuple[float, float]]:
    """Celsius by date, of clear pixels, the first valid row first; and the grid's corner."""
    folders = sorted(p for p in root.iterdir() if p.is_dir())
    placed = []
    for folder in folders:
        with rasterio.open(folder / "ST.TIF") as image:
            stored, bounds = image.read(1), image.bounds
        with rasterio.open(folder / "QA_PIXEL.TIF") as image:
            qa = image.read(1)
        clear = (stored != 0) & (qa != 1)
        for bit in (1, 3, 4):
            clear &= (qa >> bit) & 1 == 0
        kelvin = stored.astype("float64") * 0.00341802 + 149.0
        placed.append((folder.name, bounds, np.where(clear, kelvin - 273.15, np.nan)))
    left, top = min(b.left for _, b, _ in placed), max(b.top for _, b, _ in placed)
    right, bottom = max(b.right for _, b, _ in placed), min(b.bottom for _, b, _ in placed)
    days = sorted({name.split("_")[3] for name, _, _ in placed})
    cube = np.full((len(days), round((top - bottom) / 30), round((right - left) / 30)), np.nan)
    for name, bounds, values in sorted(placed, key=lambda one: one[0].split("_")[2:]):
        row, column = round((top - bounds.top) / 30), round((bounds.left - left) / 30)
        part = cube[days.index(name.split("_")[3])]
        window = part[row : row + values.shape[0], column : column + values.shape[1]]
        window[np.isnan(window)] = values[np.isnan(window)]
    return cube, (left, top)


def test_landsat_temperature(here):
    source = others.write_landsat_catalog(here / "landsat")
    account = run(opened("landsat_temperature", *searched_in(source)))
    assert account.items == 6
    cube, corner = temperatures(here / "landsat")
    with rasterio.open("output/temperature.tif") as image:
        assert (image.transform.c, image.transform.f) == corner
        celsius = image.read(1)
    looks = xr.open_zarr("output/temperature.zarr").looks.values
    np.testing.assert_array_equal(looks, (~np.isnan(cube)).sum(axis=0))
    assert set(np.unique(looks)) == {0, 1, 2, 3}
    seen = looks > 0
    np.testing.assert_array_equal(np.isnan(celsius), ~seen)
    expected = np.nanmedian(cube[:, seen], axis=0)
    np.testing.assert_allclose(celsius[seen], expected, atol=1e-3)
    assert Path("output/temperature.png").stat().st_size > 1000


LST = """
version: 1
foreach: {table: districts.parquet, id: code, shard: "${SLURM_ARRAY_TASK_ID}/2"}
collection: {load: landsat, subset: {date_range: [1990-01-01, 2024-12-31], cloud_cover_lt: 60}}
cube: {bands: [surface_temperature], groupby: solar_day, scale: true, mask: {band: qa_pixel, bits: {1: 0, 3: 0, 4: 0}}}
steps: [{resample: 1YS, how: median}, {zonal: {stats: [mean, p90, count]}}]
output: {parquet: "lst/{code}.parquet"}
"""


def test_the_job_array_of_the_design(here, monkeypatch):
    """Word for word, but for the places: units of a table on a job array, zones that are its rows."""
    source = others.write_landsat_catalog(here / "scenes")
    rd.build("pc/landsat-c2-l2", name="landsat", static_catalog=source)
    shapes = [
        shapely.box(301_000 + 2500 * k, 5_243_000, 302_500 + 2500 * k, 5_246_000) for k in range(3)
    ]
    frame = geopandas.GeoDataFrame({"code": ["a", "b", "c"]}, geometry=shapes, crs="EPSG:32633")
    frame.to_parquet(here / "districts.parquet")
    (here / "lst.yaml").write_text(LST)
    for task, expected in (("0", ["a", "c"]), ("1", ["b"])):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        told = foreach.run_each(config.from_file(here / "lst.yaml"))
        assert [(u.id, u.state) for u in told.units] == [(code, "done") for code in expected]
    cube, (left, top) = temperatures(here / "scenes")
    with pytest.warns(RuntimeWarning, match="All-NaN"):
        median = np.nanmedian(cube, axis=0) + 273.15
    for number, code in enumerate("abc"):
        (row,) = pandas.read_parquet(f"lst/{code}.parquet").to_dict("records")
        west, south, east, north = shapes[number].bounds
        # Pixels whose centre lies inside.
        rows = slice(round((top - north) / 30), round((top - south) / 30))
        columns = slice(round((west - left) / 30), round((east - left) / 30))
        values = median[rows, columns]
        values = values[~np.isnan(values)]
        assert row["code"] == code
        assert str(row["time"])[:10] == "2023-01-01"
        assert row["surface_temperature_count"] == values.size > 100
        np.testing.assert_allclose(row["surface_temperature_mean"], values.mean(), atol=1e-3)
        np.testing.assert_allclose(
            row["surface_temperature_p90"], np.percentile(values, 90), atol=2e-3
        )


def test_zones_need_polygons_or_a_row(here, scenes):
    steps = "steps=[{zonal: {stats: [mean]}}]"
    with pytest.raises(ConfigError, match=r"steps\[0\]\.zonal\.polygons"):
        run(opened("ndvi_median", *searched_in(scenes), steps, "outputs=[{csv: x.csv}]"))
    assert not (here / "workspace").exists(), "refused before anything was read"


# --- AlphaEarth ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def embeddings(tmp_path_factory) -> tuple[Path, list[str]]:
    """A file of embeddings, and what points the shipped pipeline at a collection of it."""
    root = tmp_path_factory.mktemp("aef")
    source = others.write_embedding_catalog(root, size=96)
    known = catalog.default()["aef/v1-annual"]
    bands = tuple(replace(band, asset="data") for band in known.bands)
    described = replace(
        known, parquet=None, storage={}, bands=bands, stac_collection="aef-v1-annual"
    )
    rd.build(described, name="aef", static_catalog=source, workspace_dir=root / "workspace")
    sets = [f"collection.load={root}/workspace/aef", "collection.subset=null", "cube.bbox=null"]
    return root / "aef_2023" / "data.tif", sets


PIXEL = (40, 77)


def place_of(transform) -> list[float]:
    """Longitude and latitude of the reference pixel."""
    row, column = PIXEL
    return list(
        Transformer.from_crs("EPSG:32633", "OGC:CRS84", always_xy=True).transform(
            transform.c + 10 * (column + 0.5), transform.f - 10 * (row + 0.5)
        )
    )


def similarity(file: Path) -> tuple[np.ndarray, np.ndarray, Affine]:
    """NumPy's own, the reference vector, and the file's place."""
    with rasterio.open(file) as image:
        stored, transform = image.read().astype("float64"), image.transform
    vectors = np.sign(stored) * (stored / 127.5) ** 2
    own = vectors[:, *PIXEL]
    lengths = np.linalg.norm(own) * np.linalg.norm(vectors, axis=0)
    value = np.where((stored == -128).any(axis=0), np.nan, np.tensordot(own, vectors, 1) / lengths)
    return value, own, transform


def similar(sets: list[str], *more: str) -> tuple[np.ndarray, Affine]:
    run(opened("alphaearth_similarity", *sets, *more, "outputs=[{cog: s.tif}]"))
    with rasterio.open("s.tif") as image:
        return image.read(1), image.transform


def test_alphaearth_similarity(embeddings, here):
    file, sets = embeddings
    expected, _, transform = similarity(file)
    point = f"steps[0].similarity.point={place_of(transform)}"
    found, at = similar(sets, "cube.chunks={y: 64, x: 64}", point)
    assert at == transform
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[PIXEL] == pytest.approx(1)
    assert np.nanmin(found) < 0.5


@pytest.mark.slow
def test_similarities_are_equal_in_every_chunking_and_by_vector(embeddings, here):
    file, sets = embeddings
    _, own, transform = similarity(file)
    point = f"steps[0].similarity.point={place_of(transform)}"
    first, _ = similar(sets, "cube.chunks={y: 64, x: 64}", point)
    second, _ = similar(sets, "cube.chunks={y: 48, x: 96}", point)
    np.testing.assert_array_equal(second, first)
    third, _ = similar(sets, f"steps[0].similarity={{vector: {own.tolist()}}}")
    np.testing.assert_allclose(third, first, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("{point: [80, 20]}", "does not lie in the cube"),
        ("{vector: [1, 2]}", "2 numbers for 64 bands"),
        ("{name: s}", "exactly one of point, vector"),
        ("{vector: [1], bands: [A64]}", r"bands\[0\]"),
    ],
)
def test_similarities_that_mean_nothing(embeddings, here, change, words):
    with pytest.raises(ConfigError, match=words):
        run(opened("alphaearth_similarity", *embeddings[1], f"steps[0].similarity={change}"))


# --- chips ---------------------------------------------------------------------------------------
def test_training_chips(scenes, here):
    """Every file equals the same window of the cube that a COG would have."""
    sets = [*searched_in(scenes), "cube.crs=EPSG:32633"]
    cut = "steps[0].chips={size: 48, stride: 32, min_valid: 0.5}"
    account = run(opened("training_chips", *sets, cut))
    assert account.outputs == ("output/chips",)
    listed = geopandas.read_parquet("output/chips/chips.parquet")
    assert listed.crs == "EPSG:32633"
    assert sorted(listed.file) == sorted(p.name for p in Path("output/chips").glob("*.tif"))
    assert listed.valid.between(0.5, 1).all()
    assert listed.time.dt.strftime("%Y-%m-%d").nunique() > 1
    whole = rd.load("training-chips").get_xarray(
        bands=["B02", "B03", "B04", "B08"],
        groupby="solar_day",
        crs="EPSG:32633",
        harmonize="sentinel-2",
        mask={"band": "SCL", "keep": [4, 5, 6, 7]},
    )
    whole["B04"].isel(time=0).rio.to_raster("b04.tif")
    shares, first = {}, str(whole.time.values[0])[:10].replace("-", "")
    with rasterio.open("b04.tif") as image:
        for one in listed.itertuples():
            if f"_{first}." not in one.file:
                continue
            with rasterio.open(f"output/chips/{one.file}") as chip:
                assert chip.nodata == image.nodata == -32768
                assert chip.descriptions == ("B02", "B03", "B04", "B08")
                assert tuple(chip.bounds) == one.geometry.bounds
                values = chip.read()
                window = Window(one.col, one.row, 48, 48)
                np.testing.assert_array_equal(values[2], image.read(1, window=window))
                assert chip.transform == image.window_transform(window)
            shares[one.file] = 1 - (values == -32768).any(axis=0).mean()
            assert one.valid == pytest.approx(shares[one.file])
        height, width = image.shape
    places = len(range(0, height - 47, 32)) * len(range(0, width - 47, 32))
    said = json.loads(Path("output/chips.run.json").read_text())["outputs"][0]
    assert (said["files"], said["files"] + said["left_out"]) == (len(listed), 3 * places)
    assert 0 < len(shares) < places


def test_chips_around_places(scenes, here):
    points = [shapely.Point(12.0, 47.2), shapely.Point(12.002, 47.201), shapely.Point(0, 0)]
    frame = geopandas.GeoDataFrame(
        {"site": ["north", "south", "far"], "label": [3, 4, 5]}, geometry=points, crs="EPSG:4326"
    )
    frame.to_file("places.geojson", driver="GeoJSON")
    cut = "{size: 16, around: places.geojson, id: site, keep: [label]}"
    steps = f"steps=[{{indices: [ndvi]}}, {{reduce: {{how: median}}}}, {{chips: {cut}}}]"
    outputs = "outputs=[{chips: sites}, {stac: sites/item.json}]"
    sets = [*searched_in(scenes), "cube.crs=EPSG:32633", "cube.harmonize=null", steps, outputs]
    run(opened("training_chips", *sets))
    listed = geopandas.read_parquet("sites/chips.parquet").set_index("id")
    assert dict(listed.label) == {"north": 3, "south": 4}
    assert dict(listed.file) == {"north": "north.tif", "south": "south.tif"}
    to_utm = Transformer.from_crs("EPSG:4326", "EPSG:32633", always_xy=True)
    with rasterio.open("sites/north.tif") as chip:
        assert chip.dtypes == ("float32",)
        assert np.isnan(chip.nodata)
        assert chip.index(*to_utm.transform(12.0, 47.2)) == (8, 8)
    item = json.loads(Path("sites/item.json").read_text())
    assert item["assets"]["chips"]["href"] == "chips.parquet"


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["steps[0].chips.size=4000"], "no chip of 4000 pixels"),
        (["outputs=[{cog: x.tif}]"], "a COG holds a cube"),
        (["steps=[]"], "no step has cut any"),
        (["steps[1]={reduce: {how: median}}"], "nothing can follow"),
        (["steps[0].chips.id=x"], "columns of `around`"),
    ],
)
def test_chips_that_mean_nothing(scenes, here, sets, words):
    with pytest.raises(ConfigError, match=words):
        run(opened("training_chips", *searched_in(scenes), *sets))


def test_chips_go_on(scenes, here, monkeypatch):
    """Broken off after some portions: those are not cut again, and the end is that of a calm run."""
    monkeypatch.setattr(chips, "_AT_ONCE", 2)
    sets = [
        *searched_in(scenes),
        "cube.crs=EPSG:32633",
        "steps[0].chips={size: 48, min_valid: 0.2}",
    ]
    run(opened("training_chips", *sets, "outputs=[{chips: first}]"))
    once = run(opened("training_chips", *sets, "outputs=[{chips: calm}]"))
    assert once.headers == 0
    expected = {p.name: p.read_bytes() for p in Path("calm").iterdir()}
    compute, portions = dask.compute, []

    def broken_off(*tasks):
        if len(portions) == 2:
            raise KeyboardInterrupt
        portions.append(len(tasks))
        return compute(*tasks)

    monkeypatch.setattr(chips.dask, "compute", broken_off)
    pipeline = opened("training_chips", *sets, "outputs=[{chips: chips}]")
    with pytest.raises(KeyboardInterrupt):
        run(pipeline)
    monkeypatch.setattr(chips.dask, "compute", compute)
    assert not Path("chips/chips.parquet").exists()
    before = {p.name: p.stat().st_mtime_ns for p in Path("chips").glob("*.tif")}
    assert 0 < len(before) < len(expected) - 1
    again = run(pipeline, resume=True)
    assert 0 < again.requests < once.requests
    assert {p.name: p.read_bytes() for p in Path("chips").iterdir()} == expected
    assert all(Path("chips", name).stat().st_mtime_ns == when for name, when in before.items())
    assert run(pipeline, resume=True).reused


def test_no_chip_of_a_run_before_is_left(scenes, here):
    """TorchGeo takes every file of a folder: one that the list does not name would be read too."""
    sets = [*searched_in(scenes), "cube.crs=EPSG:32633"]
    run(opened("training_chips", *sets, "steps[0].chips={size: 32}"))
    many = {p.name for p in Path("output/chips").glob("*.tif")}
    run(opened("training_chips", *sets, "steps[0].chips={size: 48, min_valid: 0.5}"))
    listed = set(geopandas.read_parquet("output/chips/chips.parquet").file)
    assert {p.name for p in Path("output/chips").glob("*.tif")} == listed
    assert many - listed
    Path("output/chips/mine.tif").write_bytes(b"mine")
    with pytest.raises(rd.errors.RasteretError, match=r"1 images .* mine\.tif"):
        run(opened("training_chips", *sets, "steps[0].chips={size: 32}"))
    assert set(geopandas.read_parquet("output/chips/chips.parquet").file) == listed


def test_tables_as_arrow_files(scenes, here):
    points = geopandas.GeoSeries([shapely.Point(12.0, 47.2)], crs="EPSG:4326")
    points.to_file("p.geojson", driver="GeoJSON")
    outputs = "outputs=[{arrow: p.arrow}, {parquet: p.parquet}]"
    for steps in (
        "[{indices: [ndvi]}, {reduce: {how: median}}, {sample: {points: p.geojson}}]",
        "[{indices: [ndvi]}, {sample: {points: p.geojson}}]",
    ):
        sets = [*searched_in(scenes), "cube.crs=EPSG:32633", f"steps={steps}", outputs]
        run(opened("ndvi_median", *sets))
        if "reduce" in steps:
            frame = geopandas.read_feather("p.arrow")
            written = geopandas.read_parquet("p.parquet")
            geopandas.testing.assert_geodataframe_equal(frame, written[list(frame.columns)])
        else:
            table = pyarrow.feather.read_table("p.arrow")
            assert table.equals(pyarrow.parquet.read_table("p.parquet"))
            assert table.num_rows == 3


def test_a_list_is_gone_while_its_chips_are_made_anew(scenes, here):
    sets = [
        *searched_in(scenes),
        "cube.crs=EPSG:32633",
        "steps[0].chips={size: 48, min_valid: 0.2}",
    ]
    run(opened("training_chips", *sets))
    with pytest.raises(rd.errors.RasteretError, match="of valid pixels"):
        run(
            opened(
                "training_chips",
                *sets[:-1],
                "steps[0].chips={size: 48, min_valid: 1.0}",
                "cube.mask.keep=[2]",
            )
        )
    assert not Path("output/chips/chips.parquet").exists()


# --- anywhere ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("steps", "kinds"),
    [
        ("[{indices: [ndvi]}, {reduce: {how: median}}]", ["zarr", "cog", "png", "stac"]),
        ("[{indices: [ndvi]}, {sample: {points: p.geojson}}]", ["parquet", "arrow", "csv", "stac"]),
        ("[{chips: {size: 64}}]", ["chips", "stac"]),
    ],
)
def test_outputs_go_to_any_url(scenes, here, steps, kinds):
    """The same bytes as on disk, but for the ids of Zarr and the relative links of STAC."""
    points = geopandas.GeoSeries([shapely.Point(12.0, 47.2)], crs="EPSG:4326")
    points.to_file("p.geojson", driver="GeoJSON")
    sets = [*searched_in(scenes), "cube.crs=EPSG:32633", f"steps={steps}"]
    memory = fsspec.filesystem("memory")
    for root in ("memory://anywhere", "disk"):
        outputs = [f"{{{kind}: '{root}/{kind}'}}" for kind in kinds]
        run(opened("ndvi_median", *sets, f"outputs=[{', '.join(outputs)}]"))
    on_disk = {str(p.relative_to("disk")): p for p in Path("disk").rglob("*") if p.is_file()}
    there = {name.removeprefix("/anywhere/") for name in memory.find("/anywhere")}
    assert there == set(on_disk)
    for name, path in on_disk.items():
        if not name.startswith("stac") and not name.endswith((".run.json", "zarr.json", ".done")):
            assert memory.cat_file(f"/anywhere/{name}") == path.read_bytes(), name
    memory.rm("/anywhere", recursive=True)


# --- on real scenes ------------------------------------------------------------------------------
def test_chips_of_real_scenes_equal_rasterio(austria, here):
    sets = [*searched_in(austria / "catalog.json"), "cube.crs=EPSG:32633", "cube.mask=null"]
    sets += ["cube.bands=[B08]", "cube.groupby=id", "cube.harmonize=null"]
    sets += [
        "collection.subset={cloud_cover_lt: 40, bbox: [15.1, 45.2, 15.3, 45.3]}",
        "steps[0].chips={size: 256, min_valid: 1.0}",
    ]
    run(opened("training_chips", *sets))
    listed = geopandas.read_parquet("output/chips/chips.parquet")
    assert len(listed) > 3
    sources = [rasterio.open(path) for path in sorted(austria.glob("*_33TWL_*/B08.tif"))]
    for one in listed.itertuples():
        with rasterio.open(f"output/chips/{one.file}") as chip:
            values, corner = chip.read(1), (chip.transform.c, chip.transform.f)
        day = one.file.split("_")[1][:8]
        same = []
        for image in sources:
            if f"_{day}_" not in image.name:
                continue
            column = (corner[0] - image.transform.c) / 120
            row = (image.transform.f - corner[1]) / 120
            if 0 <= row <= image.height - 256 and 0 <= column <= image.width - 256:
                window = Window(round(column), round(row), 256, 256)
                same.append(np.array_equal(values, image.read(1, window=window)))
        assert any(same), one.file
    for image in sources:
        image.close()
