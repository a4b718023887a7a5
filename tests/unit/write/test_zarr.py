from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
import zarr
from affine import Affine

from rasteret_dask.errors import ArgumentError
from rasteret_dask.write.zarr import write_zarr


def test_a_cube_comes_back(cube: xr.Dataset, affine: Affine, tmp_path: Path) -> None:
    url = write_zarr(cube, tmp_path / "new" / "cube.zarr")
    raw = xr.open_zarr(url, mask_and_scale=False)
    xr.testing.assert_equal(raw.load(), cube.compute())
    assert raw.rio.crs.to_epsg() == 32633
    assert raw.B04.dtype == np.uint16
    assert raw.B04.attrs["_FillValue"] == 0
    masked = xr.open_zarr(url, decode_coords="all")
    assert np.isnan(masked.B04[0, :50].values).all()
    assert masked.rio.crs.to_epsg() == 32633
    assert masked.rio.transform() == affine
    assert masked.B04.encoding["grid_mapping"] == "spatial_ref"
    group = zarr.open_group(url, mode="r")
    assert group.metadata.zarr_format == 3
    assert group.metadata.consolidated_metadata is not None
    assert group["B04"].chunks == (1, 256, 256)


def test_after_arithmetic_and_with_uneven_chunks(cube: xr.Dataset, tmp_path: Path) -> None:
    ndvi = ((cube.B08 * 1.0 - cube.B04) / (cube.B08 * 1.0 + cube.B04)).median("time")
    chunked = ndvi.chunk(y=256, x=256)
    shifted = chunked.isel(y=slice(100, None), x=slice(30, None)).rename("ndvi")
    assert shifted.chunks == ((156, 256, 188), (226, 256, 256, 132))
    write_zarr(shifted, tmp_path / "ndvi.zarr")
    read = xr.open_zarr(tmp_path / "ndvi.zarr", decode_coords="all")
    assert np.array_equal(read.ndvi, shifted, equal_nan=True)
    assert read.rio.crs.to_epsg() == 32633


def test_any_url(cube: xr.Dataset) -> None:
    url = "memory://write-zarr/cube.zarr"
    write_zarr(cube[["B04"]], url)
    read = xr.open_zarr(url, mask_and_scale=False)
    assert np.array_equal(read.B04, cube.B04)


def test_an_unfinished_store_does_not_open(cube: xr.Dataset, tmp_path: Path) -> None:
    def broken(block: np.ndarray, block_info: object = None) -> np.ndarray:
        raise OSError("no such tile")

    bad = cube[["B04"]].copy()
    bad["B04"] = bad.B04.copy(data=bad.B04.data.map_blocks(broken, dtype="uint16"))
    with pytest.raises(OSError, match="no such tile"):
        write_zarr(bad, tmp_path / "cube.zarr")
    with pytest.raises(FileNotFoundError):
        xr.open_zarr(tmp_path / "cube.zarr")
    # Doing it again, rightly, works.
    write_zarr(cube, tmp_path / "cube.zarr")
    assert np.array_equal(xr.open_zarr(tmp_path / "cube.zarr", mask_and_scale=False).B04, cube.B04)


def test_what_may_be_replaced(cube: xr.Dataset, tmp_path: Path) -> None:
    small = cube.isel(time=[0])[["B04"]]
    write_zarr(cube, tmp_path / "cube.zarr")
    with pytest.raises(ArgumentError, match="there already"):
        write_zarr(small, tmp_path / "cube.zarr", overwrite=False)
    write_zarr(small, tmp_path / "cube.zarr")
    assert list(xr.open_zarr(tmp_path / "cube.zarr").data_vars) == ["B04"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("…")
    with pytest.raises(ArgumentError, match="no Zarr store"):
        write_zarr(small, tmp_path / "thesis")
    with pytest.raises(ArgumentError, match="is a file"):
        write_zarr(small, tmp_path / "thesis" / "chapter1.txt")
    assert (tmp_path / "thesis" / "chapter1.txt").exists()


def test_the_dataset_itself_is_left_alone(cube: xr.Dataset, tmp_path: Path) -> None:
    before = {name: (dict(v.attrs), dict(v.encoding)) for name, v in cube.variables.items()}
    write_zarr(cube, tmp_path / "cube.zarr")
    assert before == {name: (dict(v.attrs), dict(v.encoding)) for name, v in cube.variables.items()}
