"""Where a cube lies is said as rioxarray says it."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from rasteret_dask.read import assemble


class _Grid:
    """What is read of a grid."""

    def __init__(self, crs: str, affine: Affine) -> None:
        self.crs = crs
        self.geobox = GeoBox((3, 4), affine, crs)


@pytest.mark.parametrize(
    ("crs", "affine"),
    [
        ("EPSG:32633", Affine(10, 0, 300000.5, 0, -10.1, 5e6)),
        ("EPSG:4326", Affine(1 / 3600, 0, 13, 0, -1 / 3600, 48)),
        ("EPSG:3035", Affine(0.1, 0, 4321000, 0, -30, 3210000.123456789)),
        ("+proj=sinu +R=6371007.181 +units=m +no_defs", Affine(463.3, 0, 0, 0, -463.3, 1e6)),
    ],
)
def test_a_cube_is_labelled_as_rioxarray_labels_it(crs: str, affine: Affine) -> None:
    grid = _Grid(crs, affine)
    plain = xr.Dataset({"v": (("y", "x"), np.zeros((3, 4)))})
    expected = plain.rio.write_crs(crs).rio.write_transform(affine)
    for _ in range(2):
        found = assemble.grid_mapping(grid)  # type: ignore[arg-type]
        assert found == dict(expected.spatial_ref.attrs)
        found.clear()  # what one cube does with its labels concerns no other
    assert expected["v"].encoding == {"grid_mapping": "spatial_ref"} == expected.encoding
