"""Steps on real Dask cubes, against NumPy."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

from rasteret_dask.documents import validate
from rasteret_dask.pipeline.config import ExpressionStep, ReduceStep, Reduction
from rasteret_dask.pipeline.reductions import REDUCTIONS
from rasteret_dask.pipeline.steps import apply, needs_whole_time

SHAPE = (7, 40, 50)


def cube(chunks=(1, 16, 32), dtype=np.float32) -> xr.Dataset:
    rng = np.random.default_rng(3)
    times = np.datetime64("2023-08-01", "ns") + np.arange(SHAPE[0]) * np.timedelta64(1, "D")
    bands = {}
    for name in ("B04", "B08", "B02"):
        values = rng.uniform(0.01, 0.6, SHAPE).astype(dtype)
        values[rng.random(SHAPE) < 0.3] = np.nan
        values[:, :2, :3] = np.nan  # never seen
        values[1:, 3, 3] = np.nan  # seen once
        bands[name] = (("time", "y", "x"), values)
    coords = {
        "time": times,
        "y": np.arange(SHAPE[1]) * -10.0,
        "x": np.arange(SHAPE[2]) * 10.0,
        "spatial_ref": 0,
        "item": ("time", np.arange(SHAPE[0])),
    }
    dataset = xr.Dataset(bands, coords=coords)
    for name in bands:
        dataset[name].encoding["grid_mapping"] = "spatial_ref"
    return dataset.chunk(dict(zip(("time", "y", "x"), chunks, strict=True)))


def reduce_step(**values) -> ReduceStep:
    return ReduceStep(reduce=validate(Reduction, values))


NDVI = ExpressionStep(expression={"ndvi": "(B08 - B04) / (B08 + B04)"})
WITH_NUMPY = {
    "median": np.nanmedian,
    "mean": np.nanmean,
    "min": np.nanmin,
    "max": np.nanmax,
    "std": np.nanstd,
}


@pytest.mark.parametrize("chunks", [(1, 16, 32), (-1, 40, 50), (3, 7, 50)])
def test_ndvi_median_equals_numpy_bit_by_bit(chunks):
    source = cube(chunks)
    lazy = apply(source, (NDVI, reduce_step(how="median")))
    assert list(lazy.data_vars) == ["ndvi"]
    assert lazy.ndvi.chunks is not None
    assert set(lazy.coords) == {"x", "y", "spatial_ref"}
    red, nir = source.B04.values, source.B08.values
    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning):
        expected = np.nanmedian((nir - red) / (nir + red), axis=0)
    assert lazy.ndvi.dtype == np.float32
    np.testing.assert_array_equal(lazy.ndvi.values, expected)
    assert np.isnan(lazy.ndvi.encoding["_FillValue"])
    assert lazy.ndvi.encoding["grid_mapping"] == "spatial_ref"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("how", sorted(WITH_NUMPY))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_reductions_equal_numpy(how, dtype):
    source = cube(dtype=dtype)
    result = apply(source, (reduce_step(how=how),))
    assert list(result.data_vars) == ["B04", "B08", "B02"]
    expected = WITH_NUMPY[how](source.B04.values.astype(np.float64), axis=0)
    np.testing.assert_allclose(result.B04.values, expected, rtol=1e-6)
    assert result.B04.dtype == dtype


@pytest.mark.parametrize("q", [0, 10, 33.3, 50, 99, 100])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_percentile_equals_numpy(q):
    source = cube(dtype=np.float64)
    result = apply(source, (reduce_step(how="percentile", q=q),)).B04
    np.testing.assert_allclose(result, np.nanpercentile(source.B04, q, axis=0), rtol=1e-14)


def test_count_and_sum_of_nothing():
    source = cube()
    count = apply(source, (reduce_step(how="count"),)).B04.values
    np.testing.assert_array_equal(count, np.sum(~np.isnan(source.B04.values), axis=0))
    total = apply(source, (reduce_step(how="sum"),)).B04.values
    assert np.isnan(total[0, 0])
    np.testing.assert_allclose(
        total[count > 0], np.nansum(source.B04, axis=0)[count > 0], rtol=1e-6
    )


@pytest.mark.parametrize("n", range(1, 8))
def test_median_and_percentile_of_few(n):
    values = np.arange(n, dtype=np.float32)[::-1][None]
    padded = np.concatenate([values, np.full((1, 3), np.nan, np.float32)], axis=1)
    assert REDUCTIONS["median"](padded)[0] == np.median(values)
    assert REDUCTIONS["percentile"](padded, q=25)[0] == np.percentile(values, 25)


def test_keep_and_several_expressions():
    step = ExpressionStep(
        expression={"ndvi": "(B08 - B04) / (B08 + B04)", "green": "where(ndvi > 0.5, 1, 0)"},
        keep=("B02",),
    )
    result = apply(cube(), (step,))
    assert list(result.data_vars) == ["B02", "ndvi", "green"]
    green, ndvi = result.green.values, result.ndvi.values
    assert np.array_equal(np.isnan(green), np.isnan(ndvi))
    assert np.array_equal(green == 1, ndvi > 0.5)


def test_nothing_is_computed_and_one_layer_is_added_per_expression():
    def refuse(dsk, keys, **kwargs):
        raise AssertionError("computed")

    source = cube()
    with dask.config.set(scheduler=refuse):
        result = apply(source, (NDVI,))
    before = set(source.B04.data.dask.layers) | set(source.B08.data.dask.layers)
    assert len(set(result.ndvi.data.dask.layers) - before) == 1


def test_eager_cubes_work_too():
    source = cube()
    lazy = apply(source, (NDVI, reduce_step(how="median")))
    eager = apply(source.compute(), (NDVI, reduce_step(how="median")))
    assert eager.ndvi.chunks is None
    np.testing.assert_array_equal(lazy.ndvi.values, eager.ndvi.values)


def test_which_reductions_want_all_times():
    assert needs_whole_time((NDVI, reduce_step(how="median")))
    assert not needs_whole_time((NDVI, reduce_step(how="mean")))
