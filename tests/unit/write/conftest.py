from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from affine import Affine


@pytest.fixture
def affine() -> Affine:
    return Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0)


@pytest.fixture
def cube(affine: Affine) -> xr.Dataset:
    """Two bands, three dates, lazy, with nodata 0."""
    random = np.random.default_rng(1)
    values = random.integers(1, 9000, (2, 3, 700, 900)).astype("uint16")
    values[:, :, :50] = 0
    dataset = xr.Dataset(
        {
            name: (
                ("time", "y", "x"),
                da.from_array(values[n], chunks=(1, 256, 256)),
                {"_FillValue": np.uint16(0), "long_name": name},
            )
            for n, name in enumerate(["B04", "B08"])
        },
        coords={
            "time": np.array(["2023-07-03", "2023-07-08", "2023-07-13"], "datetime64[ns]"),
            "y": 5_200_000.0 - 10 * (np.arange(700) + 0.5),
            "x": 500_000.0 + 10 * (np.arange(900) + 0.5),
        },
    )
    return dataset.rio.write_crs("EPSG:32633").rio.write_transform(affine)
