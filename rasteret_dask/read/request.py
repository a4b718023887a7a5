"""What a caller asked of a cube, checked before anything else happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.aoi import Areas, parse_areas, parse_bbox
from rasteret_dask.grid.choose import CRS84, GridRequest, parse_crs, parse_resolution
from rasteret_dask.grid.geobox import Bounds, Grid, from_geobox, transform_bounds
from rasteret_dask.grid.masks import MaskRule, mask_rule
from rasteret_dask.model import StorageOptions

RESAMPLINGS = ("nearest",)


@dataclass(frozen=True, slots=True)
class CubeRequest:
    """The arguments of ``get_xarray``, understood.

    Parameters
    ----------
    bands : tuple of (str, str)
        The spelling that was asked for, and the canonical name.
    grid : GridRequest
        What was said of the output grid.
    fixed : Grid, optional
        A grid that was given whole.
    areas : Areas, optional
        Geometries that mask.
    all_touched : bool
    chunks, groupby
        As given.
    dtype : str, optional
    masked, scale : bool
    harmonize : str, optional
    mask : MaskRule, optional
    nodata, fill_value : number, optional
    missing : {"raise", "nodata"}
    storage : StorageOptions
    """

    bands: tuple[tuple[str, str], ...]
    grid: GridRequest
    fixed: Grid | None = None
    areas: Areas | None = None
    all_touched: bool = False
    chunks: Any = "auto"
    groupby: Any = "time"
    dtype: str | None = None
    masked: bool = False
    scale: bool = False
    harmonize: str | None = None
    mask: MaskRule | None = None
    nodata: float | int | None = None
    fill_value: float | int | None = None
    missing: str = "raise"
    storage: StorageOptions = field(default_factory=StorageOptions)


def area_of(
    geometries: Any, bbox: Any, geometry_crs: Any
) -> tuple[Areas | None, Bounds | None, str]:
    """Return geometries that mask (if any), and the bounds that crop with their CRS.

    Raises
    ------
    ArgumentError
        If both or neither can be understood.
    """
    if geometries is not None and bbox is not None:
        raise ArgumentError("give geometries= or bbox=, not both")
    if bbox is not None:
        return None, parse_bbox(bbox), CRS84
    if geometries is None:
        return None, None, CRS84
    areas = parse_areas(geometries, geometry_crs)
    return (None if areas.boxes else areas), areas.bounds, areas.crs


def lonlat_bounds(bounds: Bounds | None, crs: str) -> Bounds | None:
    """Return bounds in lon/lat, for the query on the collection."""
    if bounds is None or crs == CRS84:
        return bounds
    return transform_bounds(bounds, crs, CRS84)


def make_request(
    bands: tuple[tuple[str, str], ...],
    *,
    areas: Areas | None,
    bounds: Bounds | None,
    bounds_crs: str,
    options: Mapping[str, Any],
) -> CubeRequest:
    """Check the rest of ``get_xarray``'s arguments.

    Raises
    ------
    ArgumentError
        Naming the argument that means nothing.
    """
    given = dict(options)
    fixed = given.pop("geobox", None)
    resampling = given.pop("resampling", "nearest")
    if resampling not in RESAMPLINGS:
        raise ArgumentError(
            f"resampling={resampling!r} is unknown; there is {', '.join(RESAMPLINGS)}"
        )
    crs, resolution = (
        parse_crs(given.pop("crs", None)),
        parse_resolution(given.pop("resolution", None)),
    )
    if fixed is not None and (crs is not None or resolution is not None):
        raise ArgumentError("a geobox fixes CRS and resolution; do not give them as well")
    dtype = given.pop("dtype", None)
    mask = given.pop("mask", None)
    missing = given.pop("missing", "raise")
    if missing not in ("raise", "nodata"):
        raise ArgumentError(f"missing must be 'raise' or 'nodata', not {missing!r}")
    harmonize = given.pop("harmonize", None)
    if harmonize not in (None, "sentinel-2"):
        raise ArgumentError(f"harmonize={harmonize!r} is unknown; there is 'sentinel-2'")
    return CubeRequest(
        bands=bands,
        grid=GridRequest(crs, resolution, bounds, bounds_crs, given.pop("anchor", None)),
        fixed=None if fixed is None else from_geobox(fixed),
        areas=areas,
        dtype=None if dtype is None else np.dtype(dtype).name,
        mask=None if mask is None else mask_rule(mask),
        missing=missing,
        harmonize=harmonize,
        storage=given.pop("storage", None) or StorageOptions(),
        **given,
    )
