"""What a caller asked of a cube, checked before anything else happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.aoi import Areas, parse_areas, parse_bbox
from rasteret_dask.grid.choose import GridRequest, parse_crs, parse_resolution
from rasteret_dask.grid.geobox import CRS84, Bounds, Grid, from_geobox, lonlat_box
from rasteret_dask.grid.kernels import METHODS
from rasteret_dask.grid.masks import MaskRule, mask_rule
from rasteret_dask.grid.mosaic import METHODS as MOSAICS
from rasteret_dask.model import BandInfo, Ledger, StorageOptions
from rasteret_dask.read.ledger import new_run


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
    resampling : mapping of str to str
        Method of each band, by the spelling that was asked for.
    overviews : "auto", "off" or int
        Which level is read.
    mosaic : str or callable
    together : bool
        All bands of a pixel come from one item.
    sortby : str, optional
        A column by which the items of a time step are ranked; a leading minus reverses it.
    properties : tuple of str
        Columns that become coordinates.
    early_exit : bool
    classes : frozenset of str
        Canonical names of class bands.
    offsets : mapping of str to float
        Sentinel-2 offsets, in digital numbers, of items whose own metadata is not to be believed.
    ledger : Ledger, optional
        Where tiles that fail are written down; without one they raise.
    decoders : mapping of str to str
        How the stored numbers of a band become values, by the spelling that was asked for.
    infos : mapping of str to BandInfo
        What the descriptor says of the bands, by canonical name.
    core : frozenset of str, optional
        Ids of the items that meet the area; others lie in the corners of the grid alone.
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
    resampling: Mapping[str, str] = field(default_factory=dict)
    overviews: Any = "auto"
    mosaic: Any = "first"
    together: bool = False
    sortby: str | None = None
    properties: tuple[str, ...] = ()
    early_exit: bool = False
    classes: frozenset[str] = frozenset()
    core: frozenset[str] | None = None
    infos: Mapping[str, BandInfo] = field(default_factory=dict)
    decoders: Mapping[str, str] = field(default_factory=dict)
    offsets: Mapping[str, float] = field(default_factory=dict)
    ledger: Ledger | None = None


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
    given = isinstance(geometries, Areas)
    areas = geometries if given else parse_areas(geometries, geometry_crs)
    return (None if areas.boxes else areas), areas.bounds, areas.crs


def lonlat_bounds(bounds: Bounds | None, crs: str) -> Bounds | None:
    """Return bounds in lon/lat, for the query on the collection."""
    if bounds is None or crs == CRS84:
        return bounds
    return lonlat_box(bounds, crs)


def make_request(
    bands: tuple[tuple[str, str], ...],
    *,
    options: Mapping[str, Any],
    areas: Areas | None = None,
    bounds: Bounds | None = None,
    bounds_crs: str = CRS84,
    classes: frozenset[str] = frozenset(),
    infos: Mapping[str, BandInfo] | None = None,
) -> CubeRequest:
    """Check the rest of ``get_xarray``'s arguments.

    Parameters
    ----------
    bands : tuple of (str, str)
        The spelling that was asked for, and the canonical name.
    options : mapping
        The arguments, by name; those that are left out have their defaults.
    areas : Areas, optional
    bounds : tuple of float, optional
    bounds_crs : str
    classes : frozenset of str
        Canonical names of class bands.
    infos : mapping of str to BandInfo, optional
        What the descriptor says of the bands, by canonical name.

    Raises
    ------
    ArgumentError
        Naming the argument that means nothing.
    """
    given = dict(options)
    infos = infos or {}
    decoders = _decoders(bands, infos) if given.pop("decode", False) else {}
    fixed = _fixed(given.pop("geobox", None), given.pop("like", None))
    resampling = parse_resampling(given.pop("resampling", "nearest"), bands, classes)
    crs, resolution = (
        parse_crs(given.pop("crs", None)),
        parse_resolution(given.pop("resolution", None)),
    )
    anchor = given.pop("anchor", None)
    if fixed is not None and any(v is not None for v in (crs, resolution, anchor)):
        raise ArgumentError(
            "a given grid fixes CRS, resolution and anchor; do not give them as well"
        )
    if fixed is not None and bounds is not None and areas is None:
        # Items outside of the box would be missing from a grid that goes on beyond it.
        raise ArgumentError(
            "a given grid fixes the extent; do not give a bbox as well",
            hint="crop the grid, or the cube with .rio.clip_box; geometries= mask pixels of a given grid",
        )
    for name in ("nodata", "fill_value"):
        given[name] = _number(given.get(name), name)
    dtype = given.pop("dtype", None)
    mask = given.pop("mask", None)
    missing = given.pop("missing", "raise")
    if missing not in ("raise", "nodata"):
        raise ArgumentError(f"missing must be 'raise' or 'nodata', not {missing!r}")
    ledger = _ledger(given.pop("on_error", "raise"), given.pop("ledger", None), given)
    harmonize = given.pop("harmonize", None)
    if harmonize not in (None, "sentinel-2"):
        raise ArgumentError(f"harmonize={harmonize!r} is unknown; there is 'sentinel-2'")
    return CubeRequest(
        bands=bands,
        grid=GridRequest(crs, resolution, bounds, bounds_crs, anchor, areas),
        fixed=fixed,
        resampling=resampling,
        overviews=_overviews(given.pop("overviews", "auto")),
        together=_together(given.pop("mosaic_mask", "band"), given.get("mosaic", "first")),
        mosaic=_mosaic(given.pop("mosaic", "first")),
        properties=_names(given.pop("properties", ())),
        classes=classes,
        offsets={str(k): float(v) for k, v in (given.pop("offsets", None) or {}).items()},
        areas=areas,
        dtype=_dtype(dtype),
        mask=None if mask is None else mask_rule(mask),
        missing=missing,
        ledger=ledger,
        harmonize=harmonize,
        decoders=decoders,
        infos=infos,
        storage=given.pop("storage", None) or StorageOptions(),
        **given,
    )


def _number(given: Any, name: str) -> Any:
    """Return a number; an array of one is one too."""
    if getattr(given, "ndim", None) == 0:
        given = given.item()
    if given is not None and not isinstance(given, int | float | complex | np.number):
        raise ArgumentError(f"{name}= must be a number, not {given!r}")
    return given


def _dtype(given: Any) -> str | None:
    if given is None:
        return None
    try:
        dtype = np.dtype(given)
    except TypeError as error:
        raise ArgumentError(f"dtype={given!r} is no type that NumPy knows") from error
    if dtype.kind not in "iufc":
        raise ArgumentError(f"dtype={given!r} does not hold numbers")
    return str(dtype.name)


def _decoders(bands: tuple[tuple[str, str], ...], infos: Mapping[str, BandInfo]) -> dict[str, str]:
    """Return the decoder of each band that has one, by the spelling that was asked for."""
    told = ((asked, infos[band].decode) for asked, band in bands if band in infos)
    found = {asked: decoder for asked, decoder in told if decoder is not None}
    if not found:
        raise ArgumentError(
            "decode=True, and no descriptor says how these bands are decoded",
            hint="scale=True applies scales and offsets",
        )
    return found


def _ledger(on_error: str, url: str | Ledger | None, given: Mapping[str, Any]) -> Ledger | None:
    if on_error not in ("raise", "record"):
        raise ArgumentError(f"on_error must be 'raise' or 'record', not {on_error!r}")
    if (on_error == "record") != (url is not None):
        raise ArgumentError(
            "on_error='record' and ledger= go together",
            hint="ledger= is a directory or URL where the tiles that fail are written down",
        )
    if url is None:
        return None
    if given.get("early_exit"):
        raise ArgumentError("early_exit and on_error='record' exclude each other")
    return url if isinstance(url, Ledger) else new_run(str(url))


def _fixed(geobox: Any, like: Any) -> Grid | None:
    """Return a grid that is given whole, as a GeoBox or as the grid of another dataset."""
    if geobox is not None and like is not None:
        raise ArgumentError("give geobox= or like=, not both")
    if like is not None:
        rio = getattr(like, "rio", None)
        if rio is None or rio.crs is None:
            raise ArgumentError("like= must be a dataset with a CRS, as rioxarray understands it")
        height, width = rio.shape
        geobox = GeoBox((height, width), rio.transform(recalc=True), rio.crs.to_wkt())
    return None if geobox is None else from_geobox(geobox)


def parse_resampling(
    given: Any, bands: tuple[tuple[str, str], ...], classes: frozenset[str]
) -> dict[str, str]:
    """Return a method for each band, by the spelling that was asked for.

    A single name holds for all bands but class bands, which take ``mode`` where that was meant and the nearest pixel otherwise. A mapping
    names bands, in either spelling, or the roles ``"classes"`` and ``"values"``; it is obeyed for class bands too, and ``"*"`` stands for
    the rest.

    Raises
    ------
    ArgumentError
        If a method or a band is unknown.
    """
    named = dict(given) if isinstance(given, Mapping) else {"*": given}
    known = {name for pair in bands for name in pair} | {"classes", "values", "*"}
    if unknown := set(named) - known:
        raise ArgumentError(
            f"resampling names bands that are not read: {sorted(map(str, unknown))}"
        )
    for method in named.values():
        if method not in METHODS:
            raise ArgumentError(
                f"resampling={method!r} is unknown", hint=f"there is {', '.join(METHODS)}"
            )
    out = {}
    for asked, band in bands:
        role = "classes" if band in classes else "values"
        told = named.get(asked, named.get(band, named.get(role)))
        rest = named.get("*", "nearest")
        if told is None and band in classes and rest not in ("nearest", "mode"):
            rest = "nearest"
        out[asked] = told or rest
    return out


def _overviews(given: Any) -> Any:
    if given is None or given is False:
        return "off"
    if given in ("auto", "off") or (
        isinstance(given, int) and not isinstance(given, bool) and given >= 0
    ):
        return given
    raise ArgumentError(f"overviews must be 'auto', 'off' or a level (0, 1, …), not {given!r}")


def _mosaic(given: Any) -> Any:
    if callable(given) or given in MOSAICS:
        return given
    raise ArgumentError(
        f"mosaic={given!r} is unknown", hint=f"there is {', '.join(MOSAICS)}, or a function"
    )


def _together(given: Any, mosaic: Any) -> bool:
    if given not in ("band", "all"):
        raise ArgumentError(f"mosaic_mask must be 'band' or 'all', not {given!r}")
    if given == "all" and mosaic not in ("first", "last"):
        raise ArgumentError(
            f"mosaic_mask='all' takes a pixel from one item, and mosaic={mosaic!r} from several",
            hint="use mosaic='first' or 'last', with sortby= for the order",
        )
    return bool(given == "all")


def _names(given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)
