"""The README's command, as a person runs it: in a process of its own, away from the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import rasterio
import xarray as xr


def test_demo(tmp_path: Path):
    command = [sys.executable, "-c", "from rasteret_dask.cli import main; main()"]
    # Commas, spaces and dollar signs occur in folders.
    output = tmp_path / "my $demo, 1"
    done = subprocess.run(
        [*command, "demo", "--output", str(output), "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    account = json.loads(done.stdout)
    assert account["items"] == 8
    assert account["headers"] == 40
    assert account["requests"] > account["headers"]
    assert account["bytes"] > 1_000_000
    assert account["tasks"] > 8
    zarr, cog, png = (Path(url) for url in account["outputs"])
    assert (zarr.parent, cog.suffix, png.suffix) == (output.resolve(), ".tif", ".png")
    with rasterio.open(cog) as image:
        values, profile = image.read(1), image.profile
    assert profile["tiled"]
    assert np.isnan(profile["nodata"])
    np.testing.assert_array_equal(xr.open_zarr(zarr).ndvi.values, values)
    # Both zones are there, and every pixel of land has an NDVI of its own.
    assert np.isfinite(values).mean() > 0.8
    assert np.nanmin(values) < 0 < 0.5 < np.nanmax(values) <= 1
    assert png.stat().st_size > 10_000
