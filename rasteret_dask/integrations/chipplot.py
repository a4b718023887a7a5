"""Samples as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import ArgumentError


def draw(
    sample: Mapping[str, Any],
    channels: Sequence[int],
    gaps: Sequence[Any],
    show_titles: bool,
    suptitle: str | None,
) -> Any:
    """Draw image, mask and prediction side by side.

    Parameters
    ----------
    sample : mapping
        With ``image`` (``[C, H, W]`` or ``[T, C, H, W]``, of which the first date is drawn), ``mask`` or ``prediction``.
    channels : sequence of int
        Three for colours, one for grey.
    gaps : sequence of number or None
        What each channel holds where there is nothing.
    show_titles : bool
    suptitle : str, optional

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentError
        matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ArgumentError(
            "drawing needs matplotlib", hint="install rasteret-dask[plot]"
        ) from None
    pictures: list[tuple[str, npt.NDArray[Any], dict[str, Any]]] = []
    if "image" in sample:
        image = np.asarray(sample["image"])
        image = image[0] if image.ndim == 4 else image
        pictures.append(("image", picture(image, channels, gaps), {"cmap": "gray"}))
    for key in ("mask", "prediction"):
        if key in sample:
            mask = np.asarray(sample[key])
            mask = mask.reshape(-1, *mask.shape[-2:])[0]
            options = {"cmap": "tab20", "interpolation": "none"}
            pictures.append((key, mask, options))
    # pyplot's, as TorchGeo's own: `dataset.plot(sample); plt.show()` is how its tutorials look at samples.
    figure, axes = pyplot.subplots(1, len(pictures), figsize=(4 * len(pictures), 4), squeeze=False)
    for axis, (title, values, options) in zip(axes[0], pictures):
        axis.imshow(values, **options)
        axis.axis("off")
        if show_titles:
            axis.set_title(title)
    if suptitle is not None:
        figure.suptitle(suptitle)
    return figure


def picture(
    image: npt.NDArray[Any], channels: Sequence[int], gaps: Sequence[Any]
) -> npt.NDArray[np.float32]:
    """Stretch each channel between its 2nd and 98th percentile; what is nothing is black.

    Returns
    -------
    ndarray of float32
        ``[H, W, 3]`` or ``[H, W]``, from 0 to 1.
    """
    planes = []
    for channel in channels:
        values = image[channel].astype(np.float32)
        gap = gaps[channel]
        good = np.isfinite(values) if gap is None or gap != gap else values != gap
        low, high = np.percentile(values[good], (2, 98)) if good.any() else (0.0, 1.0)
        scaled = np.clip((values - low) / max(float(high - low), 1e-6), 0.0, 1.0)
        planes.append(np.where(good, scaled, 0.0).astype(np.float32))
    return np.stack(planes, axis=-1) if len(planes) > 1 else planes[0]
