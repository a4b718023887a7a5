from __future__ import annotations

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import xarray as xr

from rasteret_dask.errors import ArgumentError
from rasteret_dask.write.preview import COLORMAPS, write_png


def pixels(path: Path) -> np.ndarray:
    return np.asarray(imagecodecs.png_decode(io.BytesIO(path.read_bytes()).read()))


def test_one_band_through_a_colour_map(tmp_path: Path) -> None:
    values = np.array([[0.0, 1.0, np.nan], [0.5, -9.0, 9.0]], "float32")
    array = xr.DataArray(values, dims=("y", "x"), name="ndvi")
    write_png(array, tmp_path / "f.png", vmin=0, vmax=1, colormap="RdYlGn")
    picture = pixels(tmp_path / "f.png")
    assert picture.shape == (2, 3, 4)
    low, middle, high = (COLORMAPS["RdYlGn"][n] for n in (0, 5, 10))
    assert tuple(picture[0, 0]) == (*low, 255)
    assert tuple(picture[0, 1]) == (*high, 255)
    assert picture[0, 2, 3] == 0
    assert np.abs(picture[1, 0, :3].astype(int) - middle).max() <= 1
    # What lies beyond takes the colour of the end.
    assert tuple(picture[1, 1, :3]) == low
    assert tuple(picture[1, 2, :3]) == high


def test_three_bands_stretched_together(cube: xr.Dataset, tmp_path: Path) -> None:
    day = cube.isel(time=0)
    write_png(day, tmp_path / "f.png", bands=["B08", "B04", "B04"])
    picture = pixels(tmp_path / "f.png")
    assert picture.shape == (700, 900, 4)
    assert (picture[:50, :, 3] == 0).all()
    assert (picture[50:, :, 3] == 255).all()
    assert np.array_equal(picture[..., 1], picture[..., 2])
    seen = np.stack([day.B08, day.B04, day.B04])[:, 50:]
    low, high = np.percentile(seen, (2, 98))
    expected = np.clip((day.B08.values[50:] - low) / (high - low), 0, 1) * 255
    assert np.abs(picture[50:, :, 0] - expected).max() <= 0.51


def test_large_images_are_thinned(cube: xr.Dataset, tmp_path: Path) -> None:
    write_png(cube.B04[0], tmp_path / "f.png", max_size=100, colormap="gray")
    assert max(pixels(tmp_path / "f.png").shape) <= 100


def test_nothing_to_see(tmp_path: Path) -> None:
    array = xr.DataArray(np.full((4, 5), np.nan), dims=("y", "x"))
    write_png(array, tmp_path / "f.png")
    assert (pixels(tmp_path / "f.png")[..., 3] == 0).all()
    write_png(xr.DataArray(np.full((4, 5), 3), dims=("y", "x")), tmp_path / "g.png")
    assert (pixels(tmp_path / "g.png")[..., 3] == 255).all()


def test_refusals(cube: xr.Dataset, tmp_path: Path) -> None:
    day = cube.isel(time=0)
    with pytest.raises(ArgumentError, match="one band or three"):
        write_png(day, tmp_path / "f.png")
    with pytest.raises(ArgumentError, match="unknown colour map 'jet'"):
        write_png(day.B04, tmp_path / "f.png", colormap="jet")
    with pytest.raises(ArgumentError, match="belongs to one band"):
        write_png(day, tmp_path / "f.png", bands=["B04"] * 3, colormap="gray")
    with pytest.raises(ArgumentError, match="must be below"):
        write_png(day.B04, tmp_path / "f.png", vmin=2, vmax=1)
    with pytest.raises(ArgumentError, match="no variable B99"):
        write_png(day, tmp_path / "f.png", bands=["B99"])
