"""TIFF headers as values of a row; the way back, for many rows at once, is in `sources`."""

from __future__ import annotations

import json
from dataclasses import fields
from operator import attrgetter
from typing import Any

import numpy as np

from rasteret_dask.errors import HeaderError
from rasteret_dask.index.sources import BandSources, band_sources
from rasteret_dask.tiff.model import Affine6, Level, TiffHeader, TileLayout

__all__ = ["BandSources", "band_sources", "header_to_struct", "layout_fields"]


_BANDS = attrgetter("samples", "planar")
_DECODING = attrgetter(
    *(f.name for f in fields(TileLayout) if f.name not in ("width", "height", "samples"))
)


def header_to_struct(header: TiffHeader, band_index: int = 0) -> dict[str, Any]:
    """One band of a header as a value of `schema.BAND_TYPE`.

    Parameters
    ----------
    header : TiffHeader
    band_index : int
        Which band of the file, from 0. Of a file whose bands lie in planes of their own, only the
        tiles of that plane are kept, as rasteret does.

    Raises
    ------
    HeaderError
        The file has no such band.
    """
    full = header.levels[0]
    if not 0 <= band_index < full.samples:
        raise HeaderError(f"the file has {full.samples} bands, and no band number {band_index}")
    layout = full.layout
    transform = header.transform
    return {
        **_tiles(full, band_index),
        "dtype": layout.dtype,
        "transform": _short(transform),
        "predictor": layout.predictor,
        "compression": layout.compression,
        "pixel_scale": None if transform is None else [transform[0], -transform[4], 0.0],
        "tiepoint": None if transform is None else [0.0, 0.0, 0.0, transform[2], transform[5], 0.0],
        "nodata": None if header.nodata is None else float(header.nodata),
        "samples_per_pixel": full.samples,
        "planar_configuration": full.planar,
        "photometric": layout.photometric,
        "extra_samples": list(layout.extra_samples) or None,
        "band_index": band_index,
        "crs": header.crs,
        "bits_per_sample": layout.bits,
        "little_endian": layout.little_endian,
        "strips": layout.strips,
        "fill_order": layout.fill_order,
        "subsampling": list(layout.subsampling),
        "codec_tables": layout.tables or None,
        "nodata_text": None if header.nodata is None else repr(header.nodata),
        "scale": _of_band(header.scales, band_index),
        "offset": _of_band(header.offsets, band_index),
        "size": header.size,
        "etag": header.etag,
        "last_modified": header.last_modified,
        "levels": [_level(level, full, band_index) for level in header.levels[1:]],
        "masks": _masks(header, full, band_index),
        "extras": _extras(header, band_index),
    }


def _tiles(level: Level, plane: int) -> dict[str, Any]:
    down, across = level.grid
    per_plane = down * across
    start = plane * per_plane if level.planar == 2 else 0
    tiles = slice(start, start + per_plane)
    return {
        "image_width": level.width,
        "image_height": level.height,
        "tile_width": level.layout.width,
        "tile_height": level.layout.height,
        "tile_offsets": level.offsets[tiles].view(np.int64),
        "tile_byte_counts": level.counts[tiles].view(np.int64),
    }


def _short(transform: Affine6 | None) -> list[float] | None:
    # rasteret's form for north-up grids is (scale x, translate x, scale y, translate y).
    if transform is None:
        return None
    a, b, c, d, e, f = transform
    return [a, c, e, f] if b == 0 and d == 0 else list(transform)


def _of_band(values: tuple[Any, ...], band_index: int) -> Any:
    return values[band_index] if band_index < len(values) else None


def layout_fields(level: Level) -> dict[str, Any]:
    """All of a level's layout but its tile size, as JSON values."""
    layout: TileLayout = level.layout
    return {
        "dtype": layout.dtype,
        "samples_per_pixel": level.samples,
        "planar_configuration": level.planar,
        "bits_per_sample": layout.bits,
        "compression": layout.compression,
        "predictor": layout.predictor,
        "photometric": layout.photometric,
        "fill_order": layout.fill_order,
        "little_endian": layout.little_endian,
        "subsampling": list(layout.subsampling),
        "extra_samples": list(layout.extra_samples),
        "codec_tables": layout.tables.hex(),
        "strips": layout.strips,
    }


def _level(level: Level, full: Level, band_index: int) -> dict[str, Any]:
    return {**_tiles(level, band_index), "layout": _changed_layout(level, full)}


def _changed_layout(level: Level, full: Level) -> str | None:
    if _DECODING(level.layout) == _DECODING(full.layout) and _BANDS(level) == _BANDS(full):
        return None  # by far the most common
    plain = layout_fields(full)
    changed = {key: v for key, v in layout_fields(level).items() if v != plain[key]}
    return json.dumps(changed, sort_keys=True) if changed else None


def _masks(header: TiffHeader, full: Level, band_index: int) -> list[dict[str, Any] | None]:
    if any(mask is not None for mask in header.masks):
        return [None if mask is None else _level(mask, full, 0) for mask in header.masks]
    # An alpha band in the band's own tiles is found by its layout; one in a plane of its own would be lost here.
    alpha = _alpha_plane(full)
    if alpha is None or alpha == band_index:
        return []
    return [_level(level, full, alpha) for level in header.levels]


def _alpha_plane(full: Level) -> int | None:
    extra = full.layout.extra_samples
    if full.planar != 2 or len(extra) > full.samples:
        return None
    first = full.samples - len(extra)
    return next((first + k for k, value in enumerate(extra) if value in (1, 2)), None)


def _extras(header: TiffHeader, band_index: int) -> str | None:
    colormap = header.colormap
    found = {
        "description": _of_band(header.descriptions, band_index),
        "unit": _of_band(header.units, band_index),
        "overview_resampling": header.overview_resampling,
        "categories": list(header.categories) if band_index == 0 else [],
        "colormap": None if colormap is None else colormap.astype(int).tolist(),
        "gcps": [list(point) for point in header.gcps],
        "leader": header.leader,
        "trailer": header.trailer,
        "bigtiff": header.bigtiff,
        "warnings": list(header.warnings),
    }
    kept = {key: value for key, value in found.items() if value}
    return json.dumps(kept, sort_keys=True, ensure_ascii=False) if kept else None
