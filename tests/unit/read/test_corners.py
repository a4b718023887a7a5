"""A grid is larger than the lon/lat box that it was made for: its corners are read too, and make no steps of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from handmade import Scene, collect
from pyproj import Transformer

from rasteret_dask.testing.cog import make_cog

# Far from the zone's central meridian, where north is turned against the grid by more than a degree.
LEFT, TOP, SIDE = 700_000.0, 5_200_000.0, 400


TO_LONLAT = Transformer.from_crs("EPSG:32633", "OGC:CRS84", always_xy=True)
TO_UTM = Transformer.from_crs("OGC:CRS84", "EPSG:32633", always_xy=True)


def scene(path: Path, name: str, rows: tuple[int, int], cols: tuple[int, int], when: str) -> Scene:
    """A rectangle of the area, full of 7 (the first one) or 9."""
    file = make_cog(
        path / f"{name}.tif",
        np.full((rows[1] - rows[0], cols[1] - cols[0]), 7 if name == "main" else 9, np.uint16),
        transform=Affine(100, 0, LEFT + 100 * cols[0], 0, -100, TOP - 100 * rows[0]),
        crs="EPSG:32633",
        nodata=0,
        blocksize=64,
        overviews=0,
    )
    return Scene(name, {"v": file}, when)


@pytest.fixture
def corner(tmp_path: Path) -> tuple[Any, tuple[float, float, float, float], int, int]:
    """A main item, and one that lies beyond the box's eastern meridian but within the grid, at its upper right."""
    west, south = TO_LONLAT.transform(LEFT + 100 * 20, TOP - 100 * 380)
    east, north = TO_LONLAT.transform(LEFT + 100 * 180, TOP - 100 * 20)
    # South-west of its upper end a meridian lies further east on the grid.
    far = (TO_UTM.transform(east, south)[0] - LEFT) / 100
    latitude = TO_LONLAT.transform(LEFT + 18_000, TOP - 6_000)[1]
    first = int(np.ceil((TO_UTM.transform(east, latitude)[0] - LEFT) / 100)) + 1
    assert first + 2 < far
    main = scene(tmp_path, "main", (0, SIDE), (0, first), "2023-07-01T10:00:00")
    extra = scene(tmp_path, "extra", (30, 60), (first, first + 40), "2023-07-01T10:00:05")
    both = collect(main, extra)
    box = (west, south, east, north)
    # What makes the case: the box does not meet the second item's own box.
    assert len(both.subset(bbox=box)) == 1
    return both, box, first, int(far)


def test_an_item_in_the_corners_alone_is_read(corner: Any) -> None:
    both, box, first, far = corner
    cube = both.get_xarray(bbox=box, bands=["v"], groupby="solar_day")
    assert cube.sizes["time"] == 1
    rows = np.round((TOP - cube.y.values) / 100 - 0.5).astype(int)
    cols = np.round((cube.x.values - LEFT) / 100 - 0.5).astype(int)
    values = cube.v.values[0]
    assert cols.max() >= far - 1
    in_extra = np.ix_((rows >= 30) & (rows < 60), cols >= first)
    assert values[in_extra].size > 0
    assert (values[in_extra] == 9).all()
    assert (values[:, cols < first] == 7).all()
    assert (values[np.ix_(rows >= 60, cols >= first)] == 0).all()


@pytest.mark.parametrize("groupby", ["time", "id"])
def test_it_makes_no_step_of_its_own(corner: Any, groupby: Any) -> None:
    both, box, _, _ = corner
    cube = both.get_xarray(bbox=box, bands=["v"], groupby=groupby)
    assert cube.sizes["time"] == 1
    assert set(np.unique(cube.v.values)) == {0, 7}
