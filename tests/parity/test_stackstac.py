"""Side by side with stackstac on real Sentinel-2: one grid, the same pixels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pystac
import pytest

import rasteret_dask as rd

stackstac = pytest.importorskip("stackstac")


def read_items(austria: Path, tile: str) -> list[pystac.Item]:
    items = [pystac.Item.from_file(str(p)) for p in sorted(austria.glob(f"S2*{tile}*/*.json"))]
    for item in items:
        item.make_asset_hrefs_absolute()
        for asset in item.assets.values():
            # They speak of the 10 m originals, and stackstac believes them; the files are 120 m.
            asset.extra_fields.pop("proj:shape", None)
            asset.extra_fields.pop("proj:transform", None)
    return items


def test_the_same_grid_gives_stackstacs_pixels(austria: Path, tmp_path: Path) -> None:
    items = read_items(austria, "33TWM")
    bounds = (499_980.0, 5_090_220.0, 609_780.0, 5_200_020.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = stackstac.stack(
            items,
            assets=["red", "nir"],
            epsg=32633,
            resolution=120,
            bounds=bounds,
            snap_bounds=False,
            dtype="float64",
            rescale=False,
            fill_value=np.nan,
            sortby_date="asc",
        ).compute()
        collection = rd.build_from_stac(
            static_catalog=austria / "catalog.json", name="austria", workspace_dir=tmp_path
        )
    ours = collection.get_xarray(
        bands=["red", "nir"], groupby="id", grid_code="MGRS-33TWM", masked=True
    )
    assert theirs.shape == (5, 2, 915, 915)
    for band in ("red", "nir"):
        expected = theirs.sel(band=band).values
        assert np.isfinite(expected).mean() > 0.5
        assert np.array_equal(ours[band].values, expected, equal_nan=True)
