"""A picture for people: one variable through a colour map, or three as red, green and blue."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import xarray as xr

from rasteret_dask.errors import ArgumentError
from rasteret_dask.write.raster import flat_bands, is_nodata, nodata_of
from rasteret_dask.write.target import put_bytes

Colour = tuple[int, int, int]

# Colours at equal steps from low to high; what lies between is linear.
COLORMAPS: Mapping[str, tuple[Colour, ...]] = {
    "gray": ((0, 0, 0), (255, 255, 255)),
    "ndvi": (
        (92, 62, 38),
        (168, 128, 84),
        (226, 203, 152),
        (244, 240, 184),
        (190, 216, 122),
        (120, 182, 72),
        (50, 136, 46),
        (14, 88, 34),
        (2, 48, 24),
    ),
    # The eleven classes of ColorBrewer's diverging scheme.
    "RdYlGn": (
        (165, 0, 38),
        (215, 48, 39),
        (244, 109, 67),
        (253, 174, 97),
        (254, 224, 139),
        (255, 255, 191),
        (217, 239, 139),
        (166, 217, 106),
        (102, 189, 99),
        (26, 152, 80),
        (0, 104, 55),
    ),
    "inferno": (
        (0, 0, 4),
        (66, 10, 104),
        (147, 38, 103),
        (221, 81, 58),
        (252, 165, 10),
        (252, 255, 164),
    ),
    "viridis": ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)),
}


def write_png(
    data: xr.DataArray | xr.Dataset,
    url: str | os.PathLike[str],
    *,
    bands: Sequence[str] | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    colormap: str | None = None,
    percentiles: tuple[float, float] = (2.0, 98.0),
    max_size: int = 2048,
) -> str:
    """Compute an image and write it as a PNG; nodata is transparent.

    Parameters
    ----------
    data : DataArray (y, x) or (band, y, x), or Dataset
        One band, or three for red, green and blue.
    url : str or path-like
        Any URL that fsspec can write.
    bands : sequence of str, optional
        Which variables of a Dataset, as ``["B04", "B03", "B02"]``.
    vmin, vmax : float, optional
        Values for the darkest and the brightest colour; by default the `percentiles` of what is
        seen, the same for all three bands.
    colormap : str, optional
        A name in `COLORMAPS`, for one band; ``viridis`` by default.
    percentiles : tuple of float
        In percent.
    max_size : int
        Pixels along the longer side; every n-th pixel of a larger image is shown.

    Returns
    -------
    str
        The URL.

    Raises
    ------
    ArgumentError
        For another number of bands, or an unknown colour map.
    """
    images = flat_bands(data, bands)
    if len(images) not in (1, 3):
        raise ArgumentError(f"a picture shows one band or three, not {len(images)}")
    if colormap is not None and len(images) == 3:
        raise ArgumentError("a colour map belongs to one band")
    name = colormap or "viridis"
    if name not in COLORMAPS:
        raise ArgumentError(
            f"unknown colour map {name!r}", hint=f"known: {', '.join(sorted(COLORMAPS))}"
        )
    values, empty = _computed(images, max_size)
    low, high = _range(values, empty, vmin, vmax, percentiles)
    # NaN is masked below; it must not become a number by accident here.
    levels = np.clip((np.where(empty, low, values) - low) / (high - low), 0.0, 1.0)
    if len(images) == 1:
        colours = _coloured(levels[0], COLORMAPS[name])
    else:
        colours = np.rint(np.moveaxis(levels, 0, -1) * 255).astype("uint8")
    alpha = np.where(empty.any(axis=0), 0, 255).astype("uint8")
    picture = np.ascontiguousarray(np.dstack([colours, alpha]))
    return put_bytes(bytes(imagecodecs.png_encode(picture)), url)


def _computed(
    images: list[xr.DataArray], max_size: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Values and emptiness, each of shape (bands, rows, columns), thinned to `max_size`."""
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise ArgumentError(f"the bands have different sizes: {sorted(shapes)}")
    step = -(-max(images[0].shape) // max_size)
    thin = [image[step // 2 :: step, step // 2 :: step] for image in images]
    # One computation for all three: they share reads.
    merged = xr.Dataset({str(n): image.reset_coords(drop=True) for n, image in enumerate(thin)})
    computed = merged.compute()
    arrays = [np.asarray(computed[str(n)].values) for n in range(len(images))]
    empty = np.stack([is_nodata(a, nodata_of(i)) for a, i in zip(arrays, images, strict=True)])
    return np.stack([array.astype("float64") for array in arrays]), empty


def _range(
    values: npt.NDArray[np.float64],
    empty: npt.NDArray[np.bool_],
    vmin: float | None,
    vmax: float | None,
    percentiles: tuple[float, float],
) -> tuple[float, float]:
    seen = values[~empty & np.isfinite(values)]
    low, high = np.percentile(seen, percentiles) if seen.size else (0.0, 1.0)
    low = float(low) if vmin is None else float(vmin)
    high = float(high) if vmax is None else float(vmax)
    if vmin is not None and vmax is not None and low >= high:
        raise ArgumentError(f"vmin ({vmin}) must be below vmax ({vmax})")
    # An image of one value has no range; any will do.
    return (low, high) if high > low else (low, low + 1.0)


def _coloured(levels: npt.NDArray[Any], colours: Sequence[Colour]) -> npt.NDArray[np.uint8]:
    table = np.array(colours, "float64")
    at = np.linspace(0.0, 1.0, len(table))
    lookup = np.stack([np.interp(np.linspace(0, 1, 1024), at, table[:, n]) for n in range(3)], -1)
    picture: npt.NDArray[np.uint8] = np.rint(lookup).astype("uint8")[
        np.rint(levels * 1023).astype("int64")
    ]
    return picture
