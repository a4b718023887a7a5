"""What x and y count in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from handmade import Scene, collect
from pyproj import CRS

from rasteret_dask.testing.cog import make_cog


@pytest.mark.parametrize(
    ("crs", "corner", "unit", "called"),
    [
        ("EPSG:32633", (500_000, 5_200_000), "metre", "metre"),
        ("EPSG:2263", (980_000, 200_000), "US_survey_foot", "US survey foot"),  # New York
        ("EPSG:2222", (700_000, 1_000_000), "foot", "foot"),  # Arizona
        ("EPSG:29871", (29_352, 22_014), "20.116765121552632 metre", "British chain (Sears 1922)"),
    ],
)
def test_x_and_y_are_said_to_be_in_the_unit_of_the_crs(
    tmp_path: Path, crs: str, corner: tuple[int, int], unit: str, called: str
) -> None:
    # Names as in the table of units of CF (UDUNITS); PROJ's own beside them.
    assert CRS.from_user_input(crs).axis_info[0].unit_name == called
    image = np.ones((16, 16), np.uint8)
    at = Affine(10, 0, corner[0], 0, -10, corner[1])
    file = make_cog(tmp_path / "v.tif", image, transform=at, crs=crs, overviews=0)
    cube = collect(Scene("a", {"v": file})).get_xarray()
    assert cube.x.attrs["units"] == cube.y.attrs["units"] == unit
