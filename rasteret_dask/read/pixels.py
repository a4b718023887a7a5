"""One file in pixel space, by the code path of cubes: to check any file against rasterio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import ArgumentError, NotFoundError, TileReadError
from rasteret_dask.grid.tiles import TileRect, Window, pieces
from rasteret_dask.grid.warp import IDENTITY
from rasteret_dask.ingest.headers import fetch_header
from rasteret_dask.model import StorageOptions
from rasteret_dask.plan.sources import SourceRead
from rasteret_dask.read.engine import Load, run_loads
from rasteret_dask.storage.loop import run
from rasteret_dask.tiff.model import Level, TiffHeader

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One resolution, and the file that holds it (a sidecar's levels live in another file)."""

    url: str
    etag: str | None
    level: Level


@dataclass(frozen=True, slots=True, eq=False)
class TiffImage:
    """A GeoTIFF whose header has been read.

    Parameters
    ----------
    url : str
        As it was given.
    header : TiffHeader
        Of the file itself: levels, tile layout, CRS, affine, nodata, scales, offsets, masks.
    layers, masks : tuple of Layer, tuple of Layer or None
        Every level that can be read, those of sidecars included, and the mask of each.
    storage : StorageOptions
        How the bytes are reached.
    """

    url: str
    header: TiffHeader
    layers: tuple[Layer, ...]
    masks: tuple[Layer | None, ...]
    storage: StorageOptions

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows and columns of full resolution."""
        full = self.header.levels[0]
        return full.samples, full.height, full.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the samples."""
        return np.dtype(self.header.levels[0].layout.dtype)

    def read(
        self,
        level: int = 0,
        window: Any = None,
        bands: int | Sequence[int] | None = None,
        masked: bool = False,
    ) -> Array:
        """Read pixels.

        Parameters
        ----------
        level : int
            0 for full resolution, 1 for the first overview, and so on.
        window : ((int, int), (int, int)) or rasterio Window, optional
            Rows and columns of that level, half-open, clipped to the image. All of it when None.
        bands : int or sequence of int, optional
            Counted from 1, as rasterio does. All of them when None.
        masked : bool
            Return a masked array, as rasterio does: by the internal mask, else nodata, else alpha.

        Returns
        -------
        ndarray, shape (bands, rows, columns), or (rows, columns) for a single number
            Of the file's own type: ``float16`` stays ``float16``, and complex integers become the
            narrowest complex type that holds them.

        Raises
        ------
        ArgumentError
            For a level, band or window that the image does not have.
        TileReadError, SourceError
            With the URL, and level, tile and byte range where one tile is to blame.
        StaleIndexError
            When the file has changed since its header was read.
        """
        layer = self._layer(level)
        box = window_of(window, layer.level)
        numbers = [bands] if isinstance(bands, int) else bands
        total = layer.level.samples
        wanted = list(range(1, total + 1)) if numbers is None else [int(n) for n in numbers]
        if not all(1 <= number <= total for number in wanted):
            raise ArgumentError(f"bands are numbered 1 to {total}; {bands} was asked for")
        out = self._planes(layer, box, [number - 1 for number in wanted], level, self.header.nodata)
        result = self._mask(out, wanted, level, box) if masked else out
        return result[0] if isinstance(bands, int) else result

    def _layer(self, level: int) -> Layer:
        if not 0 <= level < len(self.layers):
            raise ArgumentError(
                f"there are levels 0 to {len(self.layers) - 1}; {level} was asked for"
            )
        return self.layers[level]

    def _planes(
        self, layer: Layer, box: Window, wanted: list[int], number: int, nodata: float | int | None
    ) -> Array:
        level = layer.level
        r0, r1, c0, c1 = box
        out = np.empty((len(wanted), max(0, r1 - r0), max(0, c1 - c0)), level.layout.dtype)
        parts = pieces(box, level.layout.height, level.layout.width)
        loads = [
            Load(_source(layer, band, nodata), parts, plane, str(band + 1))
            for band, plane in zip(wanted, out, strict=True)
        ]
        try:
            run_loads(loads, self.storage)
        except TileReadError as error:
            # The engine thinks in sources, for which every level is one of its own.
            raise TileReadError(
                error.message,
                hint=error.hint,
                band=error.band,
                url=error.url,
                level=number,
                tile=error.tile,
                range=error.range,
            ) from None
        return out

    def _mask(self, out: Array, wanted: list[int], level: int, box: Window) -> Array:
        """Apply what says which pixels are valid, in GDAL's order: mask, nodata, alpha."""
        nodata = self.header.nodata
        mask_layer = self.masks[level]
        hidden: Any = np.ma.nomask
        alpha = self._alpha_band(level)
        if mask_layer is not None:
            count = mask_layer.level.samples
            bands = [number - 1 for number in wanted] if count > 1 else [0]
            hidden = np.broadcast_to(
                self._planes(mask_layer, box, bands, level, 0) == 0, out.shape
            ).copy()
        elif nodata is not None:
            hidden = np.isnan(out) if nodata != nodata else out == nodata
        elif alpha is not None:
            plane = self._planes(self.layers[level], box, [alpha], level, None) == 0
            # The alpha band itself is data, and all of it valid.
            hidden = np.stack(
                [np.zeros_like(plane[0]) if n - 1 == alpha else plane[0] for n in wanted]
            )
        return np.ma.MaskedArray(out, mask=hidden, fill_value=nodata)

    def _alpha_band(self, level: int) -> int | None:
        """Return the number of the alpha band, from 0, where GDAL would use it as a mask."""
        full = self.layers[level].level
        extra = full.layout.extra_samples
        if full.samples not in (2, 4) or full.layout.dtype not in ("uint8", "uint16"):
            return None
        return full.samples - 1 if extra and extra[-1] in (1, 2) else None


def open_tiff(
    url: str, storage: StorageOptions | None = None, *, sidecars: bool = False
) -> TiffImage:
    """Read the header of one TIFF, and return an object that reads its pixels.

    Parameters
    ----------
    url : str
        A local path or a URL.
    storage : StorageOptions, optional
        How to reach it.
    sidecars : bool
        Also look for ``url + ".ovr"`` and ``url + ".msk"``, as GDAL keeps overviews and masks.

    Returns
    -------
    TiffImage

    Raises
    ------
    HeaderError, UnsupportedTiffError, SourceError
        When the file cannot be read, with its URL.
    """
    options = storage or StorageOptions()
    header = run(fetch_header(str(url), options=options))
    layers = [Layer(url, header.etag, level) for level in header.levels]
    masks = [None if m is None else Layer(url, header.etag, m) for m in header.masks]
    if sidecars:
        more = _sidecar(f"{url}.ovr", options)
        layers += more
        masks += [None] * len(more)
        _pair(layers, masks, _sidecar(f"{url}.msk", options))
    return TiffImage(str(url), header, tuple(layers), tuple(masks), options)


def _sidecar(url: str, options: StorageOptions) -> list[Layer]:
    try:
        header = run(fetch_header(url, options=options))
    except NotFoundError:
        return []
    return [Layer(url, header.etag, level) for level in header.levels]


def _pair(layers: list[Layer], masks: list[Layer | None], found: list[Layer]) -> None:
    by_size = {(layer.level.height, layer.level.width): layer for layer in found}
    for number, layer in enumerate(layers):
        if masks[number] is None:
            masks[number] = by_size.get((layer.level.height, layer.level.width))


def _source(layer: Layer, band: int, nodata: float | int | None) -> SourceRead:
    level = layer.level
    rows, cols = level.grid
    start = band * rows * cols if level.planar == 2 else 0
    tiles = slice(start, start + rows * cols)
    return SourceRead(
        url=layer.url,
        etag=layer.etag,
        item="",
        step=0,
        window=(0, level.height, 0, level.width),
        height=level.height,
        width=level.width,
        map=IDENTITY,
        layout=level.layout,
        rect=TileRect(0, rows, 0, cols),
        offsets=level.offsets[tiles],
        counts=level.counts[tiles],
        sample=0 if level.planar == 2 else band,
        nodata=nodata,
        scale=1.0,
        add=0.0,
    )


def window_of(window: Any, level: Level) -> Window:
    """Return ``(row0, row1, col0, col1)`` within a level for a window of rasterio's forms.

    Raises
    ------
    ArgumentError
        When it is neither a Window nor ``((row0, row1), (col0, col1))`` of whole numbers.
    """
    if window is None:
        return 0, level.height, 0, level.width
    if hasattr(window, "col_off"):
        window = (
            (window.row_off, window.row_off + window.height),
            (window.col_off, window.col_off + window.width),
        )
    try:
        (r0, r1), (c0, c1) = window
        r0, r1 = _whole(r0, 0), _whole(r1, level.height)
        c0, c1 = _whole(c0, 0), _whole(c1, level.width)
    except (TypeError, ValueError):
        raise ArgumentError(
            f"{window!r} is not a window of whole pixels",
            hint="give ((row0, row1), (col0, col1)) or a rasterio Window",
        ) from None
    if r0 < 0 or c0 < 0 or r1 < r0 or c1 < c0:
        raise ArgumentError(f"the window {window!r} is upside down or starts before the image")
    return min(r0, level.height), min(r1, level.height), min(c0, level.width), min(c1, level.width)


def _whole(value: Any, default: int) -> int:
    if value is None:
        return default
    number = int(value)
    if number != value:
        raise ValueError(value)
    return number
