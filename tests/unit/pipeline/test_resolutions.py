"""Pipelines over bands of several resolutions, which are not chunked alike, and over radar of several orbits."""

from __future__ import annotations

import dask
import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from handmade import Scene, collect, make_table

import rasteret_dask as rd
from rasteret_dask.pipeline import config
from rasteret_dask.pipeline.run import run
from rasteret_dask.testing.cog import make_cog

RNG = np.random.default_rng(8)
LEFT, TOP, SIDE = 500_000, 5_200_000, 1024


@pytest.fixture
def folder(tmp_path):
    """Two dates of a band of 10 m and of one of 20 m, in tiles of equal size, as a collection of others."""
    scenes = []
    for day in (3, 8):
        files = {}
        for band, size in (("B04", 10), ("B11", 20)):
            side = SIDE * 10 // size
            image = RNG.integers(1, 1000, (side, side)).astype(np.uint16)
            at = Affine(size, 0, LEFT, 0, -size, TOP)
            files[band] = make_cog(
                tmp_path / f"{band}-{day}.tif", image, transform=at, nodata=0, blocksize=128
            )
        scenes.append(Scene(f"i{day}", files, f"2023-07-0{day}T10:00:00"))
    collect(*scenes).export(tmp_path / "c")
    return tmp_path


@pytest.fixture(params=["auto", "tile"])
def chunks(request):
    """Alike, and each band's own."""
    return request.param


def pipeline(folder, chunks, *steps, **more):
    said = {
        "version": 1,
        "collection": {"load": f"{folder}/c"},
        "cube": {"bands": ["B04", "B11"], "chunks": chunks},
        "steps": list(steps),
    }
    return config.from_mapping({**said, **more})


@pytest.fixture(autouse=True)
def small():
    """Chunks so small that tiles decide, as in large cubes."""
    with dask.config.set({"array.chunk-size": "256KiB"}):
        yield


def test_chunks_of_bands_are_the_same_unless_each_bands_tiles_are_asked_for(folder):
    found = rd.load(folder / "c")
    for chunks in ("auto", {"time": -1}, {"time": 1, "x": 300}):
        cube = found.get_xarray(bands=["B04", "B11"], masked=True, chunks=chunks)
        assert cube.chunks["y"] == (256, 256, 256, 256)
    cube = found.get_xarray(bands=["B04", "B11"], masked=True, chunks="tile")
    assert (cube.B04.chunks[1][0], cube.B11.chunks[1][0]) == (128, 256)


def truth(folder, band, day):
    with rasterio.open(folder / f"{band}-{day}.tif") as image:
        values = image.read(1)
    return values if band == "B04" else values.repeat(2, 0).repeat(2, 1)


def test_a_composite_of_bands_of_two_resolutions(folder, chunks):
    step = {"composite": {"by": "B04", "how": "max"}}
    outputs = [{"cog": f"{folder}/out.tif"}]
    run(pipeline(folder, chunks, step, outputs=outputs))
    first, second = (truth(folder, "B04", day) for day in (3, 8))
    expected = np.where(second > first, truth(folder, "B11", 8), truth(folder, "B11", 3))
    with rasterio.open(folder / "out.tif") as image:
        assert np.array_equal(image.read(2), expected)


@pytest.mark.parametrize("how", ["max", "median", "sum"])
def test_an_expression_over_bands_of_two_resolutions(folder, chunks, how):
    steps = [{"expression": {"d": "B04 - B11"}}, {"reduce": {"how": how}}]
    run(pipeline(folder, chunks, *steps, outputs=[{"cog": f"{folder}/out.tif"}]))
    each = [truth(folder, "B04", day) - truth(folder, "B11", day).astype(float) for day in (3, 8)]
    expected = {"max": np.max, "median": np.median, "sum": np.sum}[how](each, axis=0)
    with rasterio.open(folder / "out.tif") as image:
        assert np.array_equal(image.read(1), expected)


def test_an_expression_where_dates_are_cut_differently(folder):
    """Without small chunks one band has two dates in a chunk, and the other one."""
    step = [{"expression": {"d": "B04 - B11"}}, {"reduce": {"how": "max"}}]
    with dask.config.set({"array.chunk-size": "128MiB"}):
        run(pipeline(folder, "auto", *step, outputs=[{"cog": f"{folder}/out.tif"}]))
    each = [truth(folder, "B04", day) - truth(folder, "B11", day).astype(float) for day in (3, 8)]
    with rasterio.open(folder / "out.tif") as image:
        assert np.array_equal(image.read(1), np.max(each, axis=0))


def test_zones_of_bands_of_two_resolutions(folder, chunks):
    field = shapely.box(LEFT + 1000, TOP - 6000, LEFT + 7000, TOP - 1000)
    frame = geopandas.GeoDataFrame({"id": ["a"]}, geometry=[field], crs=32633)
    frame.to_parquet(folder / "zones.parquet")
    zonal = {"polygons": f"{folder}/zones.parquet", "id": "id", "stats": ["mean"]}
    run(pipeline(folder, chunks, {"zonal": zonal}, outputs=[{"parquet": f"{folder}/o.parquet"}]))
    table = pd.read_parquet(folder / "o.parquet").sort_values("time")
    for band in ("B04", "B11"):
        expected = [truth(folder, band, day)[100:600, 100:700].mean() for day in (3, 8)]
        np.testing.assert_allclose(table[f"{band}_mean"], expected, rtol=1e-6)


def test_a_stack_onto_bands_of_two_resolutions_takes_all_orbits(folder, chunks):
    scenes = []
    for k, (state, number) in enumerate([("descending", 51), ("ascending", 44)]):
        image = np.full((SIDE, SIDE), 2 * k + 1, np.float32)
        at = Affine(10, 0, LEFT, 0, -10, TOP)
        file = make_cog(folder / f"vv-{k}.tif", image, transform=at, nodata=0, overviews=0)
        orbit = {"sat:orbit_state": state, "sat:relative_orbit": number}
        scenes.append(Scene(f"r{k}", {"vv": file}, f"2023-07-0{k + 4}T05:00:00", {}, orbit))
    rd.as_collection(make_table(scenes)).export(folder / "radar")
    stack = {"collection": {"load": f"{folder}/radar"}, "bands": ["vv"], "mosaic": "mean"}
    steps = [{"reduce": {"how": "max"}}, {"stack": stack}]
    run(pipeline(folder, chunks, *steps, outputs=[{"cog": f"{folder}/out.tif", "bands": ["vv"]}]))
    with rasterio.open(folder / "out.tif") as image:
        assert np.unique(image.read(1)).tolist() == [2]
