"""Zones and points against rasterio's masks and NumPy."""

from __future__ import annotations

import geopandas
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401
import shapely
import xarray as xr
from affine import Affine
from rasterio.features import geometry_mask

from rasteret_dask.documents import validate
from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline.tables import make
from rasteret_dask.pipeline.work import SampleStep, ZonalStep

AFFINE = Affine(10, 0, 500_000, 0, -10, 5_200_000)
ROWS, COLUMNS, TIMES = 90, 120, 4
CHUNKS = [(1, 30, 40), (4, 90, 120), (3, 17, 120), (-1, 64, 7)]


def cube(chunks: tuple[int, int, int] | None) -> xr.Dataset:
    rng = np.random.default_rng(5)
    values = rng.uniform(-1, 1, (2, TIMES, ROWS, COLUMNS)).astype("float32")
    values[rng.random(values.shape) < 0.25] = np.nan
    times = np.datetime64("2023-08-01", "ns") + np.arange(TIMES) * np.timedelta64(5, "D")
    dataset = xr.Dataset(
        {name: (("time", "y", "x"), values[n]) for n, name in enumerate(("ndvi", "ndwi"))},
        coords={
            "time": times,
            "y": 5_200_000 - 10 * (np.arange(ROWS) + 0.5),
            "x": 500_000 + 10 * (np.arange(COLUMNS) + 0.5),
        },
    ).rio.write_crs("EPSG:32633")
    return dataset if chunks is None else dataset.chunk(dict(zip(("time", "y", "x"), chunks)))


@pytest.fixture(scope="module")
def fields() -> geopandas.GeoDataFrame:
    """Small and large ones, one with a hole, one over the edge, one outside, one of no pixel."""
    rng = np.random.default_rng(11)
    shapes = []
    for size in (3, 12, 47, 180, 400):
        x = 500_000 + rng.uniform(50, 10 * COLUMNS - 50)
        y = 5_200_000 - rng.uniform(50, 10 * ROWS - 50)
        shapes.append(shapely.Point(x, y).buffer(size))
    shapes.append(shapes[3].difference(shapely.Point(shapes[3].centroid).buffer(55)))
    shapes.append(shapely.box(499_912.3, 5_199_811.1, 500_203.7, 5_200_307.9))
    shapes.append(shapely.box(0, 0, 1, 1))
    frame = geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32633")
    return frame.assign(code=[f"f{n}" for n in range(len(frame))], crop="wheat")


def zonal(**options) -> ZonalStep:
    return validate(ZonalStep, {"zonal": {"polygons": "p", "id": "code", **options}})


FUNCTIONS = {
    "mean": np.mean,
    "median": np.median,
    "std": np.std,
    "min": np.min,
    "max": np.max,
    "sum": np.sum,
    "p90": lambda v: np.percentile(v, 90),
}


@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize("chunks", CHUNKS)
def test_zones_equal_rasterio_and_numpy(fields, chunks, all_touched):
    source = cube(chunks)
    step = zonal(stats=[*FUNCTIONS, "count"], all_touched=all_touched, keep=["crop"])
    found = make(step, source, fields)
    assert found.geometry is None  # a field has a row a date
    rows = found.rows.to_pandas()
    assert list(rows.columns[:3]) == ["code", "crop", "time"]
    assert len(rows) == len(fields) * TIMES
    rows = rows.set_index(["code", "time"])
    for code, shape in zip(fields.code, fields.geometry, strict=True):
        inside = geometry_mask(
            [shape], (ROWS, COLUMNS), AFFINE, invert=True, all_touched=all_touched
        )
        for name in ("ndvi", "ndwi"):
            for time in source.time.values:
                values = source[name].sel(time=time).values[inside].astype("float64")
                values = values[~np.isnan(values)]
                row = rows.loc[(code, time)]
                assert row[f"{name}_count"] == len(values), (code, name)
                for stat, function in FUNCTIONS.items():
                    expected = function(values) if len(values) else np.nan
                    np.testing.assert_allclose(row[f"{name}_{stat}"], expected, rtol=1e-9)
    assert (rows.loc["f7"].ndvi_count == 0).all()
    assert (rows.loc["f4"].ndvi_count > 1000).all()


def test_no_chunking_changes_a_bit(fields):
    step = zonal(stats=["mean", "std", "sum", "p33"])
    first, *others = [make(step, cube(chunks), fields).rows for chunks in [*CHUNKS, None]]
    assert all(first.equals(other) for other in others)


def test_an_image_gives_rows_with_geometries(fields):
    image = cube((1, 30, 40)).isel(time=0, drop=True)
    found = make(zonal(), image, fields.to_crs("EPSG:4326"))
    assert found.rows.column_names == ["code", "ndvi_mean", "ndvi_count", "ndwi_mean", "ndwi_count"]
    assert found.rows.num_rows == len(fields) == len(found.geometry)
    here = make(zonal(), image, fields).rows.to_pandas()
    there = found.rows.to_pandas()
    # Corners go to degrees and back; only a pixel on the very edge could change sides.
    assert (here.ndvi_count - there.ndvi_count).abs().max() <= 1


def test_blocks_without_zones_are_not_computed():
    visited = []

    def note(block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        visited.append(block_id)
        return block

    source = cube((4, 30, 40))
    like = {"dtype": np.float32, "meta": np.empty((0, 0, 0), np.float32)}
    source["ndvi"] = source.ndvi.copy(data=source.ndvi.data.map_blocks(note, **like))
    shape = shapely.box(500_410, 5_199_390, 500_450, 5_199_420)  # block (1, 1) and (2, 1)
    frame = geopandas.GeoDataFrame({"code": [1]}, geometry=[shape], crs="EPSG:32633")
    make(zonal(), source[["ndvi"]], frame)
    assert sorted(visited) == [(0, 1, 1), (0, 2, 1)]


def test_points(fields):
    source = cube((1, 30, 40))
    xy = [(500_000, 5_200_000), (500_010, 5_199_990), (501_195, 5_199_105), (501_200, 5_199_100)]
    frame = geopandas.GeoDataFrame(
        {"n": range(4)}, geometry=[shapely.Point(p) for p in xy], crs="EPSG:32633"
    )
    step = validate(SampleStep, {"sample": {"points": "p", "id": "n"}})
    rows = make(step, source, frame).rows.to_pandas()
    assert list(rows.columns) == ["n", "time", "ndvi", "ndwi"]
    expected = source.ndvi.values
    # A point on an edge belongs to the pixel on the right and below.
    for n, (row, column) in enumerate([(0, 0), (1, 1), (89, 119)]):
        np.testing.assert_array_equal(rows[rows.n == n].ndvi, expected[:, row, column])
    assert rows[rows.n == 3].ndvi.isna().all()  # one pixel beyond the corner
    assert pd.api.types.is_datetime64_any_dtype(rows.time)


def test_refusals(fields):
    source = cube((1, 30, 40))
    with pytest.raises(ConfigError, match=r"no column 'kode'.*\n.*code"):
        make(zonal(id="kode"), source, fields)
    with pytest.raises(ConfigError, match="more than once"):
        make(zonal(id="crop"), source, fields)
    step = validate(SampleStep, {"sample": {"points": "p"}})
    with pytest.raises(ConfigError, match="not every geometry"):
        make(step, source, fields)
