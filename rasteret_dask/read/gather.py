"""Rows of a collection to :class:`~rasteret_dask.plan.table.RawSources`: time steps, versions, nodata, radiometry."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_dask.errors import ArgumentError, GridError, MissingBandError, RasteretWarning
from rasteret_dask.grid.choose import SourceGrid
from rasteret_dask.grid.geobox import crs_text
from rasteret_dask.grid.radiometry import Offset, sentinel2_offset
from rasteret_dask.index import schema
from rasteret_dask.index.rows import band_sources
from rasteret_dask.index.sources import BandSources
from rasteret_dask.model import BandInfo
from rasteret_dask.plan.steps import TimeSteps, group, solar_days, split_acquisitions
from rasteret_dask.plan.table import RawSources, by_grid
from rasteret_dask.read.request import CubeRequest

S2_SCALE = 1e-4
"""Reflectance per digital number, where an item does not declare it (ESA's QUANTIFICATION_VALUE is 10000)."""

_REFLECTANCE = re.compile(
    r"B(0[1-9]|1[0-2]|8A)|coastal|blue|green|red|rededge[123]?|nir(08|09)?|swir(16|22)",
    re.IGNORECASE,
)

_CLASSES = re.compile(r"scl|fmask|cloud_?mask|qa_\w+|\w*_qa|lulc|map|classification", re.IGNORECASE)

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


def _column(table: pa.Table, name: str) -> list[Any]:
    return table.column(name).to_pylist() if name in table.column_names else [None] * len(table)


def item_times(table: pa.Table) -> npt.NDArray[np.datetime64]:
    """Return when each item was taken; interval items count from their start.

    Raises
    ------
    ArgumentError
        If an item has no time at all.
    """
    times: npt.NDArray[np.datetime64]
    times = table.column(schema.DATETIME).to_numpy(zero_copy_only=False).astype("datetime64[ns]")
    if np.isnat(times).any() and schema.START in table.column_names:
        starts = table.column(schema.START).to_numpy(zero_copy_only=False).astype("datetime64[ns]")
        times = np.where(np.isnat(times), starts, times)
    if np.isnat(times).any():
        item = table.column(schema.ID)[int(np.flatnonzero(np.isnat(times))[0])].as_py()
        raise ArgumentError("an item has neither a datetime nor an interval", item=item)
    return times


def make_steps(table: pa.Table, groupby: Any) -> TimeSteps:
    """Group the items of a table, which is sorted by time and id, into time steps.

    Raises
    ------
    ArgumentError
        If ``groupby`` is neither known nor a column.
    """
    times = item_times(table)
    if groupby == "time":
        keys: list[Any] = times.astype(np.int64).tolist()
    elif groupby == "solar_day":
        keys = _solar_days(table, times).tolist()
    elif groupby == "id":
        keys = _column(table, schema.ID)
    else:
        keys = _other_keys(table, times, groupby)
    orbits = zip(_column(table, schema.ORBIT_STATE), _column(table, schema.RELATIVE_ORBIT))
    # Ascending and descending passes of a SAR never mix; optical items have no orbit state, and keep their key.
    keys = [(key, *orbit) if orbit[0] is not None else key for key, orbit in zip(keys, orbits)]
    return group(times, keys)


def _warn_of_torn(table: pa.Table, steps: TimeSteps, groupby: Any) -> None:
    torn = split_acquisitions(steps, _column(table, schema.DATATAKE)) if groupby == "time" else 0
    if torn:
        warnings.warn(
            f"{torn} acquisitions are spread over several time steps, because their items differ by seconds; "
            "groupby='solar_day' joins them",
            RasteretWarning,
            stacklevel=6,
        )


def _core_steps(
    table: pa.Table, steps: TimeSteps, request: CubeRequest
) -> tuple[pa.Table, TimeSteps]:
    """Leave out the time steps that hold none of the items that were asked for.

    A grid is larger than the lon/lat box that it was made for. Items in its corners belong to the picture, but make no step of their own.
    """
    if request.core is None:
        return table, steps
    core = np.isin(np.array(_column(table, schema.ID)), np.array(sorted(request.core)))
    kept = np.isin(steps.steps, np.unique(steps.steps[core]))
    if kept.all():
        return table, steps
    table = table.filter(pa.array(kept))
    return table, make_steps(table, request.groupby)


def _solar_days(table: pa.Table, times: npt.NDArray[np.datetime64]) -> npt.NDArray[np.int64]:
    boxes = table.column(schema.BBOX).to_pylist()
    if any(b is None or b["xmin"] is None for b in boxes):
        raise ArgumentError("groupby='solar_day' needs the footprint of every item")
    west = np.array([b["xmin"] for b in boxes])
    east = np.array([b["xmax"] for b in boxes])
    # A footprint over the antimeridian has its west above its east.
    middle = np.where(west <= east, (west + east) / 2, ((west + east + 360) / 2 + 180) % 360 - 180)
    return solar_days(times, middle)


def _other_keys(table: pa.Table, times: npt.NDArray[np.datetime64], groupby: Any) -> list[Any]:
    """Return the keys of a column, of several, of a period, or of a function of the rows."""
    if callable(groupby):
        keys = list(groupby(table))
        if len(keys) != len(table):
            raise ArgumentError(f"groupby gave {len(keys)} keys for {len(table)} items")
        return keys
    if isinstance(groupby, (list, tuple)) and groupby:
        return list(zip(*(_other_keys(table, times, name) for name in groupby)))
    if isinstance(groupby, str) and groupby in table.column_names:
        return _column(table, groupby)
    if isinstance(groupby, str) and groupby[:1].isdigit():
        try:
            index = pd.DatetimeIndex(times)
            bins = pd.Series(np.arange(len(index)), index=index).resample(groupby).groups
        except ValueError as error:
            raise ArgumentError(f"groupby={groupby!r} is no period: {error}") from None
        starts = np.array(sorted(pd.DatetimeIndex(list(bins))), dtype="datetime64[ns]")
        found: list[Any] = (np.searchsorted(starts, times, side="right") - 1).tolist()
        return found
    raise ArgumentError(
        f"groupby={groupby!r} is unknown",
        hint="use 'time', 'solar_day', 'id', the name of a column, a period like '1MS', or a function of the rows",
    )


def arrange(table: pa.Table, request: CubeRequest) -> Items:
    """Order items by time step and rank, and work out what each one's radiometry needs."""
    table, steps = _core_steps(table, make_steps(table, request.groupby), request)
    _warn_of_torn(table, steps, request.groupby)
    order = np.lexsort((_ranks(table, request), steps.steps))
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
    reflectances = [band for _, band in request.bands if is_reflectance(band)]
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
        str(c or "").startswith("sentinel-2-") for c in set(_column(table, schema.COLLECTION))
    )
    return named or any(v is not None for v in _column(table, schema.BOA_OFFSET_APPLIED))


def is_class_band(info: BandInfo) -> bool:
    """Whether a band is a class map, by its descriptor or by the names that the field gives to such bands."""
    names = {info.name, info.asset, info.common_name or "", *info.aliases}
    return info.categorical or any(_CLASSES.fullmatch(name) for name in names)


def is_reflectance(band: str) -> bool:
    """Whether a Sentinel-2 band is a reflectance, to which the offset applies; SCL, AOT and WVP are not."""
    return _REFLECTANCE.fullmatch(band) is not None


def _sentinel2(table: pa.Table, band: str, request: CubeRequest) -> tuple[Offset, ...]:
    sources = band_sources(table, band, key=_key(band, request))
    declared = dict(zip(sources.rows.tolist(), zip(sources.scales.tolist(), sources.adds.tolist())))
    columns = (schema.ID, schema.COLLECTION, schema.BOA_OFFSET_APPLIED, schema.BASELINE)
    found = []
    for row, (item, collection, applied, baseline) in enumerate(
        zip(*(_column(table, name) for name in columns))
    ):
        if item in request.offsets:
            found.append(Offset(request.offsets[item], "given"))
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
    nodata = found.nodata
    told = _told_nodata(band, request)
    if told is not None and not (mask or inner):
        nodata = (told,) * len(found)
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
        nodata=nodata,
        scales=scales,
        adds=adds,
        levels=np.full(len(found), level, dtype=np.int64),
    )


def _key(band: str, request: CubeRequest) -> str | None:
    info = request.infos.get(band)
    return None if info is None else info.asset


def _told_nodata(band: str, request: CubeRequest) -> float | int | None:
    """Return what the caller, or else the descriptor, calls nodata; both stand above the file."""
    if request.nodata is not None:
        return request.nodata
    info = request.infos.get(band)
    if info is None or info.nodata is None:
        return None
    return int(info.nodata) if float(info.nodata).is_integer() else info.nodata


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
    if items.offsets is not None and is_reflectance(band):
        if request.scale:
            scales = np.where(np.isnan(found.scales), S2_SCALE, found.scales)
        # The rule overrides what is declared; an offset in digital numbers is scaled like them.
        adds = np.array([items.offsets[k].dn for k in found.rows.tolist()]) * scales
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
