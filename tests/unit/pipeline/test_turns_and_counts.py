"""Steps over cubes that go on beyond 180 degrees, over counts and classes, and over weeks."""

from __future__ import annotations

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from handmade import Scene, collect, make_table

import rasteret_dask as rd
from rasteret_dask.pipeline import config
from rasteret_dask.pipeline.run import run
from rasteret_dask.testing.cog import make_cog

RNG = np.random.default_rng(12)
WORLD = RNG.integers(1, 200, (180, 360)).astype(np.uint8)
FIJI = shapely.MultiPolygon([shapely.box(177, -18, 180, -15), shapely.box(-180, -18, -178, -15)])
WEST = shapely.box(-180, -17, -179, -16)


def pipeline(folder, cube, *steps, output):
    said = {
        "version": 1,
        "collection": {"load": f"{folder}/c"},
        "cube": {"bands": ["v"], **cube},
        "steps": list(steps),
        "outputs": [output],
    }
    return config.from_mapping(said)


# --- around the world ------------------------------------------------------------------------------
@pytest.fixture(params=[-180, 0])
def world(request, tmp_path):
    """A map of the world that begins at 180 degrees west, or at Greenwich."""
    first = request.param
    image = WORLD if first == -180 else np.roll(WORLD, 180, axis=1)
    at = Affine(1, 0, first, 0, -1, 90)
    file = make_cog(tmp_path / "w.tif", image, transform=at, crs="EPSG:4326", nodata=0, overviews=0)
    collect(Scene("a", {"v": file})).export(tmp_path / "c")
    frame = geopandas.GeoDataFrame({"id": ["fiji", "west"]}, geometry=[FIJI, WEST], crs=4326)
    frame.to_parquet(tmp_path / "zones.parquet")
    return tmp_path


def pixels(west, east, south, north):
    """Values of the map, between whole degrees."""
    return WORLD[90 - north : 90 - south, west + 180 : east + 180]


BOTH = np.concatenate([pixels(177, 180, -18, -15).ravel(), pixels(-180, -178, -18, -15).ravel()])


def zonal(folder, cube):
    step = {
        "zonal": {"polygons": f"{folder}/zones.parquet", "id": "id", "stats": ["mean", "count"]}
    }
    run(pipeline(folder, cube, step, output={"parquet": f"{folder}/o.parquet"}))
    return pd.read_parquet(folder / "o.parquet").set_index("id")


@pytest.mark.parametrize("how", ["geometries", "bbox", "all"])
def test_zones_on_both_sides_of_the_antimeridian(world, how):
    cube = {
        "geometries": {"geometries": f"{world}/zones.parquet"},
        "bbox": {"bbox": [177, -18, -178, -15]},
        "all": {},
    }[how]
    found = zonal(world, cube)
    assert found.v_count.tolist() == [len(BOTH), 1]
    assert found.v_mean["fiji"] == BOTH.mean()
    assert found.v_mean["west"] == pixels(-180, -179, -17, -16).item()


def test_points_and_chips_on_the_other_side(world):
    places = [(-178.5, -16.5), (179.5, -15.5), (-60.5, 10.5), (-180.0, -16.5)]
    points = geopandas.GeoSeries(shapely.points(places), crs=4326)
    frame = geopandas.GeoDataFrame({"id": list("abcd")}, geometry=points)
    frame.to_parquet(world / "points.parquet")
    step = {"sample": {"points": f"{world}/points.parquet", "id": "id"}}
    run(pipeline(world, {"bbox": [177, -18, -178, -15]}, step, output={"csv": f"{world}/o.csv"}))
    found = pd.read_csv(world / "o.csv").set_index("id").v
    expected = {
        "a": pixels(-179, -178, -17, -16).item(),
        "b": pixels(179, 180, -16, -15).item(),
        "d": pixels(-180, -179, -17, -16).item(),
    }
    assert {k: found[k] for k in expected} == expected
    assert np.isnan(found["c"])
    run(pipeline(world, {}, step, output={"csv": f"{world}/o.csv"}))
    found = pd.read_csv(world / "o.csv").set_index("id").v
    assert found["c"] == pixels(-61, -60, 10, 11).item()
    frame[frame.id == "a"].to_parquet(world / "points.parquet")
    step = {"chips": {"around": f"{world}/points.parquet", "id": "id", "size": 1}}
    run(
        pipeline(
            world,
            {"bbox": [177, -18, -178, -15]},
            step,
            output={"chips": f"{world}/chips"},
        )
    )
    (file,) = (world / "chips").rglob("*.tif")
    with rasterio.open(file) as image:
        assert image.read().item() == expected["a"]


def test_a_pixel_on_the_other_side_to_compare_with(world):
    similarity = {"point": [-178.5, -16.5]}
    cube = {"bbox": [177, -18, -178, -15]}
    output = {"zarr": f"{world}/o.zarr"}
    run(pipeline(world, cube, {"similarity": similarity}, output=output))
    found = xr.open_zarr(world / "o.zarr")
    assert found[next(iter(found.data_vars))].shape[-2:] == (3, 5)


def test_zones_without_a_place_on_the_plane_are_empty_rows(tmp_path):
    at = Affine(1000, 0, 500_000, 0, -1000, 5_200_000)
    image = np.full((64, 64), 7, np.uint8)
    file = make_cog(tmp_path / "a.tif", image, transform=at, nodata=0, overviews=0)
    collect(Scene("a", {"v": file})).export(tmp_path / "c")
    here = shapely.box(15.1, 46.6, 15.5, 46.9)
    far = shapely.box(104.0, -1.0, 106.0, 1.0)  # 90 degrees from the middle of zone 33
    shapes = [far, shapely.MultiPolygon([far, here]), here]
    frame = geopandas.GeoDataFrame({"id": ["far", "both", "here"]}, geometry=shapes, crs=4326)
    assert not np.isfinite(frame.to_crs(32633).geometry.iloc[0].bounds).all()
    frame.to_parquet(tmp_path / "zones.parquet")
    found = zonal(tmp_path, {})
    assert found.v_count["far"] == 0
    assert np.isnan(found.v_mean["far"])
    assert found.v_count["both"] == found.v_count["here"] > 100


# --- counts ------------------------------------------------------------------------------------------
@pytest.fixture
def looks(tmp_path):
    """Eleven days, some of them cloudy."""
    at = Affine(10, 0, 500_000, 0, -10, 5_200_000)
    scenes = []
    for day in range(2, 13):
        image = RNG.integers(0, 3, (64, 64)).astype(np.uint8)
        file = make_cog(tmp_path / f"{day}.tif", image, transform=at, nodata=0, overviews=0)
        scenes.append(Scene(f"i{day:02d}", {"v": file}, f"2023-01-{day:02d}T10:00:00"))
    rd.as_collection(make_table(scenes)).export(tmp_path / "c")
    return tmp_path


def seen(folder):
    images = []
    for day in range(2, 13):
        with rasterio.open(folder / f"{day}.tif") as image:
            images.append(image.read(1))
    return np.array(images)


@pytest.mark.parametrize("how", ["sum", "mean", "max", "min", "median", "std"])
def test_statistics_of_counts(looks, how):
    """Two weeks of looks; no statistic of whole numbers is a whole number."""
    cube = {"groupby": "1W", "mosaic": "count"}
    run(pipeline(looks, cube, {"reduce": {"how": how}}, output={"cog": f"{looks}/o.tif"}))
    counts = (seen(looks) > 0).reshape(11, 64, 64)
    weeks = np.stack([counts[:7].sum(axis=0), counts[7:].sum(axis=0)])
    expected = getattr(np, how)(weeks, axis=0)
    with rasterio.open(looks / "o.tif") as image:
        np.testing.assert_allclose(image.read(1), expected, rtol=1e-6)


def test_a_composite_by_a_count(looks):
    cube = {"groupby": "1W", "mosaic": "count"}
    step = {"composite": {"by": "v", "how": "max"}}
    run(pipeline(looks, cube, step, output={"cog": f"{looks}/o.tif"}))
    counts = seen(looks) > 0
    weeks = np.stack([counts[:7].sum(axis=0), counts[7:].sum(axis=0)])
    with rasterio.open(looks / "o.tif") as image:
        assert np.array_equal(image.read(1), weeks.max(axis=0))


# --- weeks -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("period", "first"),
    [
        ("1W", ["2023-01-02", "2023-01-09"]),
        ("2W", ["2022-12-26", "2023-01-09"]),
        ("10D", ["2023-01-02", "2023-01-12"]),
        ("1MS", ["2023-01-01"]),
        ("1YS", ["2023-01-01"]),
    ],
)
def test_periods_are_called_by_their_first_day(looks, period, first):
    step = {"resample": {"period": period, "how": "max"}}
    run(pipeline(looks, {}, step, output={"zarr": f"{looks}/o.zarr"}))
    found = xr.open_zarr(looks / "o.zarr")
    labels = [str(day)[:10] for day in found.time.values]
    assert found.time.attrs["long_name"] == "start of period"
    days = np.array([f"2023-01-{day:02d}" for day in range(2, 13)], "datetime64[D]")
    assert labels == first
    starts = np.array(labels, "datetime64[D]")
    # Every look lies in the last period that has begun.
    at = np.searchsorted(starts, days, side="right") - 1
    for k, label in enumerate(labels):
        expected = seen(looks)[at == k].max(axis=0).astype(float)
        expected[expected == 0] = np.nan
        got = found.v.sel(time=label).values.reshape(64, 64)
        assert np.array_equal(got, expected, equal_nan=True)
