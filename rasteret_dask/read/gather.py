"""Rows of a collection to :class:`~rasteret_dask.plan.table.RawSources`: order, levels, nodata, radiometry."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_dask.errors import ArgumentError, GridError, MissingBandError
from rasteret_dask.grid.choose import SourceGrid
from rasteret_dask.grid.geobox import crs_text
from rasteret_dask.grid.radiometry import OTHER_SENSOR, Number, Offset, sentinel2_offset
from rasteret_dask.index import schema
from rasteret_dask.index.rows import band_sources
from rasteret_dask.index.sources import BandSources
from rasteret_dask.plan.steps import TimeSteps
from rasteret_dask.plan.table import RawSources, by_grid
from rasteret_dask.read.grouping import PLATFORM, column_of, make_steps, warn_of_torn
from rasteret_dask.read.request import CubeRequest
from rasteret_dask.tiff.held import Told, holds
from rasteret_dask.tiff.metadata import parse_nodata

S2_SCALE = 1e-4
"""Reflectance per digital number, where an item does not declare it (ESA's QUANTIFICATION_VALUE is 10000)."""

_OTHERS = re.compile(r"(scl|aot|wvp|cloud|snow|visual|tci|preview|thumbnail).*", re.IGNORECASE)
_REFLECTANCE = re.compile(
    r"B(0[1-9]|1[0-2]|8A)|coastal|blue|green|red|rededge[123]?|nir(08|09)?|swir(16|22)",
    re.IGNORECASE,
)

COLUMNS = (
    schema.ID,
    schema.COLLECTION,
    schema.DATETIME,
    schema.START,
    schema.BBOX,
    schema.ASSETS,
    schema.EPSG,
    schema.CRS,
    schema.BASELINE,
    schema.DATATAKE,
    schema.BOA_OFFSET_APPLIED,
    schema.ORBIT_STATE,
    schema.RELATIVE_ORBIT,
    schema.CLOUD_COVER,
    PLATFORM,
)
"""What a read needs of each item, beside its bands; older or foreign collections may lack some."""


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """The items of a cube, ordered by time step and then by rank.

    Parameters
    ----------
    table : pyarrow.Table
        Their rows.
    steps : TimeSteps
    offsets : tuple of Offset, optional
        The Sentinel-2 offset of each item, when it was asked for.
    """

    table: pa.Table
    steps: TimeSteps
    offsets: tuple[Offset, ...] | None = None


def _core_steps(
    table: pa.Table, steps: TimeSteps, request: CubeRequest
) -> tuple[pa.Table, TimeSteps]:
    """Leave out the time steps that hold none of the items that were asked for.

    A grid is larger than the lon/lat box that it was made for. Items in its corners belong to the picture, but make no step of their own.
    """
    if request.core is None:
        return table, steps
    core = np.isin(np.array(column_of(table, schema.ID)), np.array(sorted(request.core)))
    kept = np.isin(steps.steps, np.unique(steps.steps[core]))
    if kept.all():
        return table, steps
    table = table.filter(pa.array(kept))
    return table, make_steps(table, request.groupby)


def arrange(table: pa.Table, request: CubeRequest) -> Items:
    """Order items by time step and rank, and work out what each one's radiometry needs."""
    table, steps = _core_steps(table, make_steps(table, request.groupby), request)
    warn_of_torn(table, steps, request.groupby)
    order = np.lexsort((_ranks(table, request), steps.steps))
    # Mostly they are in order, and then the table that a grid was chosen for is still the same.
    if not np.array_equal(order, np.arange(len(table))):
        table = table.take(pa.array(order))
        steps = replace(steps, steps=steps.steps[order])
    return Items(table, steps, _offsets(table, request))


def items_by_id(table: pa.Table, request: CubeRequest) -> Items:
    """Return every item as a step of its own, in the table's order, for reads that are no cubes."""
    times = np.zeros(len(table), dtype="datetime64[ns]")
    return Items(table, TimeSteps(np.arange(len(table)), times, times), _offsets(table, request))


def _offsets(table: pa.Table, request: CubeRequest) -> tuple[Offset, ...] | None:
    if request.harmonize != "sentinel-2" and not (request.scale and _is_sentinel2(table)):
        return None
    reflectances = []
    for _, band in request.bands:
        if is_reflectance(band, request):
            reflectances.append(band)
        elif request.harmonize and band not in request.classes and not _OTHERS.fullmatch(band):
            raise ArgumentError(
                "nothing says whether the band is a reflectance of Sentinel-2, from which the offset is to be taken",
                band=band,
                hint="call it B04 or red, as Sentinel-2 and STAC do, or read it without harmonize=",
            )
    return _sentinel2(table, reflectances[0], request) if reflectances else None


def _ranks(table: pa.Table, request: CubeRequest) -> npt.NDArray[np.int64]:
    """Return the rank of each item among those of its step: by the column that was named, else by time and id; ``last`` turns it round."""
    count = len(table)
    ranks = np.arange(count)
    if request.sortby is not None:
        name = request.sortby.removeprefix("-")
        if name not in table.column_names:
            raise ArgumentError(f"sortby={request.sortby!r} is no column of the collection")
        order = "descending" if request.sortby.startswith("-") else "ascending"
        keyed = pa.table({"key": table.column(name), "n": pa.array(ranks)})
        indices = pc.sort_indices(
            keyed, sort_keys=[("key", order), ("n", "ascending")], null_placement="at_end"
        ).to_numpy()
        ranks = np.empty(count, dtype=np.int64)
        ranks[indices] = np.arange(count)
    return -ranks if request.mosaic == "last" else ranks


def _is_sentinel2(table: pa.Table) -> bool:
    named = any(
        str(c or "").startswith("sentinel-2-") for c in set(column_of(table, schema.COLLECTION))
    )
    return named or any(v is not None for v in column_of(table, schema.BOA_OFFSET_APPLIED))


def is_reflectance(band: str, request: CubeRequest) -> bool:
    """Whether a Sentinel-2 band is a reflectance, to which the offset applies; SCL, AOT and WVP are not.

    A band that somebody gave a name of his own is known by its asset's.
    """
    info = request.infos.get(band)
    names = (band,) if info is None else (band, info.asset, info.common_name or "")
    return any(_REFLECTANCE.fullmatch(name) is not None for name in names)


def _sentinel2(table: pa.Table, band: str, request: CubeRequest) -> tuple[Offset, ...]:
    sources = band_sources(table, band, key=_key(band, request))
    declared = dict(zip(sources.rows.tolist(), zip(sources.scales.tolist(), sources.adds.tolist())))
    columns = (schema.ID, schema.COLLECTION, schema.BOA_OFFSET_APPLIED, schema.BASELINE)
    found = []
    for row, (item, collection, applied, baseline) in enumerate(
        zip(*(column_of(table, name) for name in columns))
    ):
        if item in request.offsets:
            found.append(Offset(request.offsets[item], "given"))
            continue
        elsewhere = collection is not None and not collection.startswith("sentinel-2")
        if elsewhere and applied is None and baseline is None:
            found.append(OTHER_SENSOR)
            continue
        scale, add = declared.get(row, (None, None))
        try:
            found.append(
                sentinel2_offset(
                    collection=collection,
                    offset_applied=applied,
                    baseline=baseline,
                    declared_scale=scale if scale == scale else None,
                    declared_add=add if add == add else None,
                )
            )
        except ArgumentError as error:
            raise error.located(item=item) from None
    return tuple(found)


def overview_methods(items: Items, band: str, request: CubeRequest) -> dict[str, str | None]:
    """Return how each item's overviews were made, in capitals, where the file says so."""
    found = band_sources(items.table, band, key=_key(band, request))
    return {
        item: None if made is None else made.upper()
        for item, made in zip(found.item_ids, found.overview_resampling)
    }


def raw_sources(
    items: Items,
    band: str,
    request: CubeRequest,
    *,
    mask: bool = False,
    level: int = 0,
    inner: bool = False,
) -> RawSources:
    """Return one band's sources at one level, in the order of the items; those without that level are left out.

    ``inner`` asks for the files' internal masks instead of their pixels, as far as they have any; ``mask`` for a mask band.

    Parameters
    ----------
    items : Items
    band : str
        Canonical name.
    request : CubeRequest
    mask : bool
        Whether it is a mask band.
    level : int
        0 for full resolution.
    inner : bool
        Whether the files' internal masks are wanted instead of their pixels.

    Raises
    ------
    MissingBandError
        If items lack the band and the request does not allow that.
    GridError
        If a file has no CRS or no affine georeference.
    """
    found = band_sources(items.table, band, level, mask=inner, key=_key(band, request))
    if (
        level == 0
        and not inner
        and len(found) < len(items.table)
        and (request.missing == "raise" or not len(found))
    ):
        _report_missing(items.table, found, band)
    for k, (crs, affine) in enumerate(zip(found.crs, found.transforms[:, 0])):
        if crs is None or affine != affine:
            what = (
                "no CRS"
                if crs is None
                else "no affine georeference (ground control points at most)"
            )
            raise GridError(
                f"the file has {what}, so it has no place in a cube",
                item=found.item_ids[k],
                band=band,
                url=found.urls[k],
                hint="read it in pixel space with open_tiff",
            )
    scales, adds = _scaling(found, items, request, band, mask or inner)
    # A mask has no nodata: what its sparse tiles hold is 0, whatever the image says.
    nodata: tuple[Number, ...] = (None,) * len(found) if inner else found.nodata
    told = None if inner else _told_nodata(band, None if mask else request.nodata, request)
    if told is not None:
        nodata = _overruled(found, told)
    normal = {crs: crs_text(crs) for crs in set(found.crs)}
    return RawSources(
        urls=found.urls,
        etags=found.etags,
        items=found.item_ids,
        crs=tuple(normal[c] for c in found.crs),
        steps=items.steps.steps[found.rows],
        affines=found.transforms,
        sizes=np.column_stack([found.heights, found.widths]),
        layouts=found.layouts,
        layout_ids=found.layout_ids,
        tile_ptr=found.tile_ptr,
        offsets=found.offsets,
        counts=found.counts,
        # A mask has one sample, whatever the band's place among the image's.
        samples=np.where((found.planar == 2) | inner, 0, found.band_index),
        nodata=_as_held(nodata, found),
        scales=scales,
        adds=adds,
        levels=np.full(len(found), level, dtype=np.int64),
    )


def _key(band: str, request: CubeRequest) -> str | None:
    info = request.infos.get(band)
    return None if info is None else info.asset


def _told_nodata(band: str, user: float | int | None, request: CubeRequest) -> float | int | None:
    """Return what the caller, or else the descriptor, calls nodata; both stand above the file."""
    if user is not None:
        return user
    info = request.infos.get(band)
    if info is None or info.nodata is None:
        return None
    return int(info.nodata) if float(info.nodata).is_integer() else info.nodata


def _as_held(nodata: tuple[Number, ...], found: BandSources) -> tuple[Number, ...]:
    """Round nodata values to what samples of floats hold, as those of files are; a caller's, a descriptor's or STAC's need not be."""
    types = [layout.dtype for layout in found.layouts]
    if not any(np.dtype(name).kind in "fc" for name in types):
        return nodata
    pairs = list(zip(found.layout_ids.tolist(), nodata))
    held = {pair: _held(types[pair[0]], pair[1]) for pair in set(pairs)}
    return tuple(held[pair] for pair in pairs)


def _held(dtype: str, nodata: Number) -> Number:
    if nodata is None or np.dtype(dtype).kind not in "fc":
        return nodata
    rounded = parse_nodata(repr(float(nodata)), dtype, [])
    return nodata if rounded is None or rounded == nodata else rounded


def _overruled(found: BandSources, told: float | int) -> tuple[Number, ...]:
    """Return what each source calls nodata by somebody else's word; where its type cannot hold that, sparse tiles hold the file's own."""
    types = [layout.dtype for layout in found.layouts]

    def one(layout: int, own: Number) -> Number:
        if isinstance(own, Told):
            own = own.own
        if own is None or holds(types[layout], told) or not holds(types[layout], own):
            return told
        return Told(told, own)

    pairs = list(zip(found.layout_ids.tolist(), found.nodata))
    made = {pair: one(*pair) for pair in set(pairs)}
    return tuple(made[pair] for pair in pairs)


def _report_missing(table: pa.Table, found: BandSources, band: str) -> None:
    lacking = np.setdiff1d(np.arange(len(table)), found.rows)
    names = [table.column(schema.ID)[int(k)].as_py() for k in lacking[:3]]
    raise MissingBandError(
        f"{len(lacking)} of {len(table)} items have no readable band {band!r} ({', '.join(names)}"
        f"{' …' if len(lacking) > 3 else ''})",
        band=band,
        hint="the build report says why; missing='nodata' reads them as nodata",
    )


def _scaling(
    found: BandSources, items: Items, request: CubeRequest, band: str, mask: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return scale and add of each source; the Sentinel-2 offset overrides what is declared."""
    ones, zeros = np.ones(len(found)), np.zeros(len(found))
    if mask:
        return ones, zeros
    scales, adds = ones, zeros
    if request.scale:
        # The descriptor speaks where neither the file nor STAC does, for both numbers at once.
        info = request.infos.get(band)
        silent = np.isnan(found.scales) & np.isnan(found.adds)
        scale, add = (info.scale, info.offset) if info is not None else (None, None)
        scales = np.where(
            silent, 1.0 if scale is None else scale, np.nan_to_num(found.scales, nan=1.0)
        )
        adds = np.where(silent, 0.0 if add is None else add, np.nan_to_num(found.adds, nan=0.0))
    if items.offsets is not None and is_reflectance(band, request):
        told = [items.offsets[k] for k in found.rows.tolist()]
        # Of a level that no file has there are none.
        rules = np.array([one is not OTHER_SENSOR for one in told], dtype=bool)
        if request.scale:
            scales = np.where(rules & np.isnan(found.scales), S2_SCALE, scales)
        # The rule overrides what is declared; an offset in digital numbers is scaled like them.
        dn = np.array([one.dn for one in told], dtype=np.float64)
        adds = np.where(rules, dn * scales, adds)
    return scales, adds


def source_grids(raw: RawSources) -> list[SourceGrid]:
    """Return the distinct grids of a band's sources."""
    grids = []
    for same in by_grid(raw):
        first = min(raw.items[k] for k in same.members.tolist())
        grids.append(
            SourceGrid(same.crs, same.affine, same.width, same.height, len(same.members), first)
        )
    return grids
