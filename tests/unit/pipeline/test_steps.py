"""Steps on real Dask cubes, against NumPy."""

from __future__ import annotations

from typing import get_args

import dask
import numpy as np
import pytest
import xarray as xr

from rasteret_dask.documents import validate
from rasteret_dask.errors import ConfigError, PipelineError
from rasteret_dask.grid.kernels import METHODS
from rasteret_dask.grid.mosaic import METHODS as MOSAICS
from rasteret_dask.pipeline.indices import INDICES
from rasteret_dask.pipeline.reductions import REDUCTIONS
from rasteret_dask.pipeline.sources import Method, Mosaic
from rasteret_dask.pipeline.steps import apply, needs_whole_time
from rasteret_dask.pipeline.work import (
    CompositeStep,
    CustomStep,
    ExpressionStep,
    IndexStep,
    ReduceStep,
    Reduction,
    ResampleStep,
)

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


# --- indices, composites, periods, code of one's own ------------------------------------------
REFLECTANCE = {"blue": 0.05, "green": 0.08, "red": 0.06, "rededge1": 0.12, "nir": 0.4}
REFLECTANCE |= {"swir16": 0.2, "swir22": 0.1}
# Computed by hand from the definitions, for the values above.
BY_HAND = {
    "ndvi": 0.34 / 0.46,
    "evi": 2.5 * 0.34 / (0.4 + 0.36 - 0.375 + 1),
    "evi2": 2.5 * 0.34 / (0.4 + 0.144 + 1),
    "savi": 1.5 * 0.34 / 0.96,
    "msavi": (2 * 0.4 + 1 - np.sqrt(1.8**2 - 8 * 0.34)) / 2,
    "gndvi": 0.32 / 0.48,
    "ndre": 0.28 / 0.52,
    "ndwi": -0.32 / 0.48,
    "mndwi": -0.12 / 0.28,
    "ndmi": 0.2 / 0.6,
    "ndsi": -0.12 / 0.28,
    "nbr": 0.3 / 0.5,
    "ndbi": -0.2 / 0.6,
    "bsi": (0.26 - 0.45) / (0.26 + 0.45),
}


def spectrum(names: dict[str, str]) -> xr.Dataset:
    pixel = {k: (("y", "x"), np.full((2, 3), REFLECTANCE[v])) for k, v in names.items()}
    return xr.Dataset(pixel).chunk(y=1)


def test_every_index_by_hand():
    assert set(BY_HAND) == set(INDICES)
    source = spectrum({name: name for name in REFLECTANCE})
    result = apply(source, (IndexStep(indices=tuple(INDICES), keep=("red",)),))
    assert list(result.data_vars) == ["red", *INDICES]
    for name, expected in BY_HAND.items():
        np.testing.assert_allclose(result[name], expected, rtol=1e-12, err_msg=name)


def test_indices_know_the_names_of_sentinel_2_and_those_they_are_told():
    source = spectrum({"B04": "red", "B08": "nir", "near": "swir16"})
    step = validate(IndexStep, {"indices": ["NDVI", "ndmi"], "bands": {"swir16": "near"}})
    result = apply(source, (step,))
    np.testing.assert_allclose(result.ndvi, BY_HAND["ndvi"])
    np.testing.assert_allclose(result.ndmi, BY_HAND["ndmi"])


@pytest.mark.parametrize("how", ["max", "min"])
def test_composite_takes_all_variables_of_one_look(how):
    source = cube((2, 16, 32), np.float64)
    result = apply(source, (validate(CompositeStep, {"composite": {"by": "B08", "how": how}}),))
    by = source.B08.values
    fill = -np.inf if how == "max" else np.inf
    best = (np.argmax if how == "max" else np.argmin)(np.where(np.isnan(by), fill, by), axis=0)
    seen = ~np.isnan(by).all(axis=0)
    assert not seen.all()
    rows, columns = np.nonzero(seen)
    for name in ("B04", "B08", "B02"):
        expected = source[name].values[best[seen], rows, columns]
        np.testing.assert_array_equal(result[name].values[seen], expected)
        assert np.isnan(result[name].values[~seen]).all()
    assert "time" not in result.coords


@pytest.mark.parametrize("chunks", [(1, 16, 32), (-1, 40, 50)])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_resample_equals_numpy(chunks):
    source = cube(chunks, np.float64)
    step = validate(ResampleStep, {"resample": {"period": "3D", "how": "median"}})
    result = apply(source, (step,)).B04
    assert result.dims == ("time", "y", "x")
    assert [str(t)[:10] for t in result.time.values] == ["2023-08-01", "2023-08-04", "2023-08-07"]
    for n, rows in enumerate((slice(0, 3), slice(3, 6), slice(6, 7))):
        expected = np.nanmedian(source.B04.values[rows], axis=0)
        np.testing.assert_array_equal(result.values[n], expected)


def test_periods_without_a_look_are_left_out():
    source = cube().isel(time=[0, 6])
    step = validate(ResampleStep, {"resample": {"period": "2D", "how": "mean"}})
    result = apply(source, (step,))
    assert [str(t)[:10] for t in result.time.values] == ["2023-08-01", "2023-08-07"]


def test_looks_are_counted_beside_a_reduction():
    source = cube()
    result = apply(source, (reduce_step(how="median", looks="clear"),))
    assert list(result.data_vars) == ["B04", "B08", "B02", "clear"]
    np.testing.assert_array_equal(result.clear, np.sum(~np.isnan(source.B04.values), axis=0))


def test_a_step_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_step.py").write_text("def twice(ds, by=2):\n    return (ds * by)[['B04']]\n")
    monkeypatch.syspath_prepend(tmp_path)

    def step(**changes):
        given = {"function": "my_step:twice", "variables": ["B04"], "options": {"by": 3}, **changes}
        return validate(CustomStep, {"custom": given})

    source = cube()
    np.testing.assert_array_equal(apply(source, (step(),)).B04, source.B04 * 3)
    with pytest.raises(PipelineError, match="promises"):
        apply(source, (step(variables=["B08"]),))
    with pytest.raises(ConfigError, match="cannot be imported"):
        apply(source, (step(function="my_step:thrice"),))


def test_the_cube_knows_every_method_of_the_reader():
    assert get_args(Method) == METHODS
    assert get_args(Mosaic) == MOSAICS
