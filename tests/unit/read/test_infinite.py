"""Infinite values, as radar in decibels has them, make infinite only what they belong to, however the cube is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from handmade import Scene, collect
from odc.geo.geobox import GeoBox

import rasteret_dask as rd
from rasteret_dask.testing.cog import make_cog

LEFT, TOP = 500_000, 5_200_000
AT = Affine(10, 0, LEFT, 0, -10, TOP)


def one(path: Path, image: np.ndarray, **how: Any) -> rd.Collection:
    file = make_cog(path / "v.tif", image, transform=AT, blocksize=64, overviews=0, **how)
    return collect(Scene("a", {"v": file}))


def grid(size: float, count: int, crs: str = "EPSG:32633") -> GeoBox:
    return GeoBox((count, count), Affine(size, 0, LEFT, 0, -size, TOP), crs)


@pytest.mark.parametrize("value", [-np.inf, np.inf])
def test_an_average_knows_what_its_box_covers(tmp_path: Path, value: float) -> None:
    image = np.ones((100, 100), np.float32)
    image[:, 3] = value
    how: dict[str, Any] = {"geobox": grid(24, 20), "resampling": "average", "overviews": "off"}
    cubes = [
        one(tmp_path, image).get_xarray(masked=True, chunks=chunks, **how).v.values[0]
        for chunks in (None, {"x": 1}, {"x": 7, "y": 3})
    ]
    expected = np.ones((20, 20))
    expected[:, 1] = value  # columns 2.4 to 4.8
    for cube in cubes:
        assert np.array_equal(cube, expected)


@pytest.mark.parametrize("method", ["bilinear", "cubic"])
def test_a_neighbour_without_a_weight_is_none(tmp_path: Path, method: str) -> None:
    """On the centres of pixels all others have none."""
    image = np.ones((40, 40), np.float32)
    image[:, 3] = -np.inf
    cube = one(tmp_path, image).get_xarray(
        geobox=grid(10, 20), resampling=method, masked=True, overviews="off"
    )
    assert np.array_equal(cube.v.values[0], image[:20, :20])


@pytest.mark.parametrize("method", ["average", "bilinear", "cubic"])
def test_on_another_plane_only_pixels_nearby_are_infinite(tmp_path: Path, method: str) -> None:
    image = np.ones((100, 100), np.float32)
    image[50, 50] = np.inf
    found = one(tmp_path, image)
    for chunks in (None, {"x": 16, "y": 16}):
        cube = found.get_xarray(
            crs="EPSG:3035",
            resolution=20,
            resampling=method,
            masked=True,
            overviews="off",
            chunks=chunks,
        )
        values = cube.v.values[0]
        odd = ~np.isfinite(values) & ~np.isnan(values)
        assert 0 < odd.sum() <= 36
        known = np.isfinite(values)
        assert (values[known] == 1.0).all() or np.allclose(values[known], 1.0)
        # NaN is what lies outside of the image, the same with and without an infinite pixel.
        plain = one(tmp_path / "p", np.ones_like(image)).get_xarray(
            like=cube, resampling=method, masked=True, overviews="off"
        )
        assert np.array_equal(np.isnan(values), np.isnan(plain.v.values[0]))
