"""Maps of the world on planes whose corners lie on no earth, as Mollweide's do: nothing is left out because of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from handmade import Scene, collect
from odc.geo.geobox import GeoBox
from pyproj import Transformer

import rasteret_dask as rd
from rasteret_dask.errors import GridError
from rasteret_dask.grid.geobox import WORLD, lonlat_box, transform_bounds
from rasteret_dask.testing.cog import make_cog

CRS = "ESRI:54009"
WHOLE = Affine(100_000, 0, -18_050_000, 0, -100_000, 9_000_000)
RNG = np.random.default_rng(5)
IMAGE = RNG.integers(1, 200, (180, 361)).astype(np.uint8)


@pytest.fixture
def world(tmp_path: Path) -> rd.Collection:
    file = make_cog(tmp_path / "w.tif", IMAGE, transform=WHOLE, crs=CRS, nodata=0, overviews=0)
    columns = {"bbox": {"xmin": -180.0, "ymin": -90.0, "xmax": 180.0, "ymax": 90.0}}
    return collect(Scene("a", {"v": file}, columns=columns))


def nearest(cube: Any) -> np.ndarray:
    """The pixel of the map under the middle of each of the cube's, by PROJ."""
    x, y = np.meshgrid(cube.x.values, cube.y.values)
    there = Transformer.from_crs(cube.rio.crs, CRS, always_xy=True)
    columns, rows = ~WHOLE * np.array(there.transform(x, y))
    return IMAGE[np.floor(rows).astype(int), np.floor(columns).astype(int)]


@pytest.mark.parametrize(
    ("crs", "resolution"),
    [("EPSG:4326", 0.5), ("EPSG:32633", 50_000), ("EPSG:3857", 50_000), ("EPSG:3035", 50_000)],
)
def test_a_part_of_the_world_is_what_lies_there(
    world: rd.Collection, crs: str, resolution: float
) -> None:
    cube = world.get_xarray(bbox=(10, 45, 24, 58), crs=crs, resolution=resolution)
    assert cube.v.values.all()
    assert (cube.v.values[0] != nearest(cube)).mean() < 0.001


def test_its_whole_extent_is_for_the_caller_to_say(world: rd.Collection) -> None:
    with pytest.raises(GridError, match="cannot be expressed") as caught:
        world.get_xarray(crs="EPSG:4326", resolution=0.5)
    assert "bbox=" in str(caught.value.hint)
    cube = world.get_xarray(bbox=(-180, -85, 180, 85), crs="EPSG:4326", resolution=1)
    assert cube.v.values.all()
    assert (cube.v.values[0] != nearest(cube)).mean() < 0.001


def test_items_anywhere_get_onto_such_a_grid(tmp_path: Path) -> None:
    scenes = []
    for k, lon in enumerate((-170, -60, 15, 178)):
        at = Affine(0.01, 0, lon, 0, -0.01, 10)
        file = make_cog(
            tmp_path / f"{k}.tif",
            np.full((128, 128), k + 1, np.uint8),
            transform=at,
            crs="EPSG:4326",
            nodata=0,
            overviews=0,
        )
        scenes.append(Scene(f"i{k}", {"v": file}))
    grid = GeoBox((1800, 3610), Affine(10_000, 0, -18_050_000, 0, -10_000, 9_000_000), CRS)
    cube = collect(*scenes).get_xarray(geobox=grid, groupby="1YS")
    assert np.unique(cube.v.values).tolist() == [0, 1, 2, 3, 4]


def test_tiles_at_the_far_end_are_not_dropped(tmp_path: Path) -> None:
    """The grid of native tiles reaches beside the earth; what it does not show is still asked for."""
    scenes = []
    for k, left in enumerate((9_000_000, 13_000_000, 17_000_000)):
        at = Affine(10_000, 0, left, 0, -10_000, -2_000_000)
        file = make_cog(
            tmp_path / f"{k}.tif",
            np.full((100, 100), k + 1, np.uint8),
            transform=at,
            crs=CRS,
            nodata=0,
            overviews=0,
        )
        lon = (95.0, 132.0, 170.0)[k]
        box = {"xmin": lon, "ymin": -26.0, "xmax": lon + 9.0, "ymax": -17.0}
        scenes.append(Scene(f"i{k}", {"v": file}, columns={"bbox": box}))
    cube = collect(*scenes).get_xarray(bbox=(90, -80, 180, 80), groupby="1YS")
    assert np.unique(cube.v.values).tolist() == [0, 1, 2, 3]


def test_boxes_that_reach_beside_the_earth() -> None:
    around = (-18_050_000.0, -9_000_000.0, 18_050_000.0, 9_000_000.0)
    with pytest.raises(GridError):
        transform_bounds(around, CRS, "OGC:CRS84", closely=False)
    assert lonlat_box(around, CRS) == WORLD
    inside = (0.0, 0.0, 1_000_000.0, 1_000_000.0)
    assert lonlat_box(inside, CRS) == transform_bounds(inside, CRS, "OGC:CRS84")
    with pytest.raises(GridError):
        lonlat_box((30_000_000.0, 0.0, 31_000_000.0, 1.0), CRS)
    # A pole that a projection does not show is no place beside the earth.
    assert np.isfinite(transform_bounds(WORLD, "OGC:CRS84", "EPSG:3408")).all()
