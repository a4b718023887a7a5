"""The keys of ``cube``: every argument of ``get_xarray`` that YAML can say, and each means what it means in Python."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from affine import Affine
from handmade import Scene, collect

import rasteret_dask as rd
from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline import config, reading
from rasteret_dask.pipeline.sources import Cube
from rasteret_dask.testing.cog import make_cog

NOT_IN_YAML = {
    "self",
    "filters",  # collection.subset
    "storage",  # collection.storage
    "geometry_crs",  # the vector file says it,
    "geometry_column",  # and it has one
    "target_crs",  # another name for crs
    "geobox",  # values that only Python has:
    "like",  # crs, resolution, anchor and bbox say the same
}


def test_every_argument_of_get_xarray_is_a_key() -> None:
    arguments = set(inspect.signature(rd.Collection.get_xarray).parameters)
    assert set(Cube.model_fields) == arguments - NOT_IN_YAML


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    path = tmp_path_factory.mktemp("keys")
    rng = np.random.default_rng(3)
    scenes = []
    for k in range(2):
        files = {}
        for band in ("red", "nir"):
            image = rng.integers(1, 5000, (80, 80)).astype(np.uint16)
            image[rng.random(image.shape) < 0.3] = 0
            at = Affine(10, 0, 500_000, 0, -10, 5_200_000)
            files[band] = make_cog(
                path / f"{k}{band}.tif", image, transform=at, nodata=0, blocksize=32, overviews=0
            )
        columns = {"s2:processing_baseline": "04.00"}
        scenes.append(Scene(f"i{k}", files, f"2023-07-03T10:00:0{k}", columns=columns))
    return collect(*scenes)


BASE = {"groupby": "solar_day", "bands": ["red", "nir"], "fill_value": 0}
KEYS: dict[str, dict[str, Any]] = {
    "mosaic_mask": {"mosaic_mask": "all"},
    "early_exit": {"early_exit": True},
    "two resolutions": {"resolution": (20, 40), "resampling": "average"},
    "anchor": {"resolution": 20, "anchor": (500_005, 5_200_005)},
    "dtype": {"dtype": "float64"},
    "offsets": {"harmonize": "sentinel-2", "offsets": {"i0": -1000, "i1": 0}, "fill_value": None},
}


@pytest.mark.parametrize("name", KEYS)
def test_a_key_means_what_the_argument_means(collection: rd.Collection, name: str) -> None:
    how = {**BASE, **KEYS[name]}
    yaml = {k: list(v) if isinstance(v, tuple) else v for k, v in how.items()}
    pipeline = config.from_mapping(
        {
            "version": 1,
            "collection": {"load": "./there"},
            "cube": {**yaml, "masked": False},
            "outputs": [{"zarr": "a.zarr"}],
        }
    )
    found = reading.open_cube(collection, pipeline, {}).load()
    expected = collection.get_xarray(**how).load()
    assert found.identical(expected)
    plain = collection.get_xarray(**BASE).load()
    # Early exit saves bytes and changes nothing; all others change something.
    same = found.equals(plain) and found.red.dtype == plain.red.dtype
    assert same == (name == "early_exit")
    told = reading.explain(collection, pipeline, {})
    assert told == collection.explain(**how)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("mosaic_mask", "each", "band"),
        ("resolution", [10, 20, 30], "resolution"),
        ("resolution", "10 m", "number"),
        ("resolution", -1, "greater than 0"),
        ("anchor", [1], "anchor"),
        ("offsets", {"i0": "much"}, "offsets"),
    ],
)
def test_what_a_key_cannot_mean_is_refused_with_its_path(key: str, value: Any, words: str) -> None:
    cube = {**BASE, key: value}
    with pytest.raises(ConfigError, match=words) as caught:
        config.from_mapping(
            {
                "version": 1,
                "collection": {"load": "./there"},
                "cube": cube,
                "outputs": [{"zarr": "a.zarr"}],
            }
        )
    assert f"cube.{key}" in str(caught.value)
