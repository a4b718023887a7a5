"""The pixel side of a collection: arguments are understood here, the work is done in ``read`` and ``plan``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rasteret_dask.errors import EmptySelectionError
from rasteret_dask.facade.options import options_of
from rasteret_dask.grid.aoi import Areas, parse_areas
from rasteret_dask.grid.geobox import Bounds
from rasteret_dask.index import schema
from rasteret_dask.model import Ledger
from rasteret_dask.plan.explain import Explanation, explain_plans
from rasteret_dask.read import accessor as accessor  # registers ds.rasteret
from rasteret_dask.read.classes import is_class_band, with_class_bands
from rasteret_dask.read.cube import decide_grid, open_cube, plan_cube
from rasteret_dask.read.gather import COLUMNS
from rasteret_dask.read.request import (
    CubeRequest,
    area_of,
    lonlat_bounds,
    make_request,
)
from rasteret_dask.runs.cube import note_cube

if TYPE_CHECKING:
    import xarray as xr

    from rasteret_dask.collection import Collection


class Reads:
    """Methods of :class:`~rasteret_dask.Collection` that lead to pixels."""

    def get_xarray(
        self: Collection,
        geometries: Any = None,
        bands: Sequence[str] | str | None = None,
        *,
        bbox: Any = None,
        geometry_column: str | None = None,
        geometry_crs: Any = None,
        all_touched: bool = False,
        crs: Any = None,
        target_crs: Any = None,
        resolution: float | tuple[float, float] | None = None,
        geobox: Any = None,
        anchor: tuple[float, float] | None = None,
        chunks: Any = "auto",
        groupby: Any = "time",
        mosaic: Any = "first",
        mosaic_mask: str = "band",
        sortby: str | None = None,
        resampling: Any = "nearest",
        overviews: Any = "auto",
        properties: Sequence[str] = (),
        dtype: Any = None,
        masked: bool = False,
        scale: bool = False,
        harmonize: str | None = None,
        offsets: Mapping[str, float] | None = None,
        decode: bool = False,
        mask: Mapping[str, Any] | None = None,
        nodata: float | int | None = None,
        fill_value: float | int | None = None,
        missing: str = "raise",
        on_error: str = "raise",
        ledger: str | Ledger | None = None,
        early_exit: bool = False,
        like: Any = None,
        storage: Any = None,
        **filters: Any,
    ) -> xr.Dataset:
        """Open the collection as a lazy cube; nothing is fetched until something is computed.

        Parameters
        ----------
        geometries : optional
            Areas that crop and mask: shapely, GeoJSON, WKB, GeoPandas; a tuple of four numbers crops only.
        bands : sequence of str, optional
            Canonical names or aliases; all by default.
        bbox : tuple of float, optional
            ``(west, south, east, north)`` in lon/lat; every pixel that it touches is kept.
        geometry_column : str, optional
            The column of a table that holds the geometries.
        geometry_crs : optional
            What the coordinates of ``geometries`` mean, if they do not say; a table that does not say must be told, all else is in lon/lat.
        all_touched : bool
            Whether a polygon keeps every pixel that it touches, not those alone whose centre it holds.
        crs, target_crs : optional
            Of the output: anything that pyproj takes, ``"utm"`` or ``"native"``; by default that of most pixels. ``target_crs`` is
            rasteret's name for it.
        resolution : float or (x, y), optional
            In units of the output CRS; by default that of the finest band.
        geobox : odc.geo.geobox.GeoBox, optional
            The whole grid; instead of ``bbox``, ``crs``, ``resolution`` and ``anchor``. Geometries mask its pixels, and crop nothing.
        anchor : (x, y), optional
            Any pixel corner of the grid.
        chunks : "auto", "tile", "tiles", None, or mapping
            Dask chunks along ``time``, ``y`` and ``x``. ``"auto"``: whole tiles, 64 MiB at most, enough tiles to hide latency, and of equal
            size, as Zarr wants them, the same for all bands (by the largest tiles). ``"tiles"``: as many, but cut where each band's own
            tiles end, so that none is read twice. ``{}`` or ``"tile"``: one task for each source tile. None computes at once. For a
            median over time: ``{"time": -1, "y": "tiles", "x": "tiles"}``.
        groupby : str, sequence of str or callable
            What becomes one time step: ``"time"``, ``"solar_day"``, ``"id"``, the name of a column or several, a period (``"1D"``,
            ``"1MS"``), or a function of the rows (an Arrow table) that returns a key for each.
        mosaic : str or callable
            How the items of a step become one: ``first`` or ``last`` valid pixel in the order of time and id (or of ``sortby``), ``min``,
            ``max``, ``mean``, ``median``, ``count``, or a function of ``(items, rows, columns)`` with NaN for nothing.
        mosaic_mask : {"band", "all"}
            Whether each band takes its own first valid item, or all bands of a pixel come from one item: the first that is valid in every
            band of the cube. ``"all"`` reads every band once for each band.
        sortby : str, optional
            A column that ranks the items of a step, as ``"eo:cloud_cover"``; a leading minus turns it round.
        resampling : str or mapping
            ``nearest``, ``bilinear``, ``cubic``, ``average``, ``mode``, ``min``, ``max``, ``q1``, ``med``, ``q3``; one for all bands, or a
            mapping of bands or of the roles ``"classes"`` and ``"values"`` (``"*"`` for the rest). Class bands take ``nearest`` or
            ``mode`` unless a mapping names them.
        overviews : "auto", "off" or int
            Which level is read: the coarsest that is no coarser than the output, full resolution, or this one. Class bands are read from
            overviews only where those were made by nearest or mode, or when a level is named.
        properties : sequence of str
            STAC properties that become coordinates on ``time``: numbers as the mean over a step, others as they are, joined by commas.
        dtype : optional
            Of the result; the files' own by default.
        masked : bool
            Floats with NaN where there is nothing.
        scale : bool
            Apply scale and offset; Sentinel-2's own offset rule included. Bands that have either become float32; others stay as they are.
        harmonize : {"sentinel-2"}, optional
            Take the offset of baseline 04.00 out of Sentinel-2's digital numbers without scaling; int16 with nodata -32768.
        offsets : mapping of str to float, optional
            Sentinel-2 offsets (0 or -1000, in digital numbers) by item id, over what the rules would say.
        decode : bool
            Turn stored numbers into values where the dataset's descriptor says how and that is no straight line (AlphaEarth's
            embeddings); float32 with NaN for nothing, before anything is warped.
        mask : mapping, optional
            ``{"band": "SCL", "keep": [4, 5, 6, 7]}``, or ``drop``, or ``bits``; applied before items are put together and before warping.
        nodata : number, optional
            What the files mean by nothing, over what they say themselves.
        fill_value : number, optional
            What the result holds where there is nothing.
        missing : {"raise", "nodata"}
            What to do about items that lack a band.
        on_error : {"raise", "record"}
            What to do about tiles that cannot be had or decoded. ``"record"``: they become nodata, and rows of the ledger, which are stored
            before the pixels are given out; see :func:`rasteret_dask.read.ledger.read_ledger`.
        ledger : str, optional
            Directory or URL of the ledger. The cube's attribute ``rasteret_run`` names its run there, ``rasteret_record`` the record by
            which :func:`rasteret_dask.repair` reads the holes again.
        early_exit : bool
            Read the items of a step one after the other, and leave out those that come after every pixel of a chunk is filled. It saves
            bytes where items overlap much, and costs a latency for each item.
        like : xarray.Dataset or DataArray, optional
            Take over the grid of another dataset, in place of ``geobox``.
        storage : StorageOptions, optional
            How the files are reached; the collection's own by default.
        **filters
            Those of :meth:`subset`.

        Returns
        -------
        xarray.Dataset
            One variable for each band, dims ``time, y, x``; x and y are pixel centres, y descends.

        Raises
        ------
        RasteretError
            If the request cannot mean anything, or the items do not fit it.
        """
        given = locals()
        options = {name: value for name, value in given.items() if name in CUBE_OPTIONS}
        table, request = prepare_cube(
            self, geometries, bands, bbox, geometry_crs, {**filters, **options}
        )
        dataset = open_cube(table, request)
        if request.ledger is not None and not isinstance(ledger, Ledger):
            # A ledger that is handed over belongs to a run with a record of its own.
            areas = {"geometries": geometries, "bbox": bbox}
            url = note_cube(self, table, request, {**options, **areas}, bool(filters))
            dataset.attrs["rasteret_record"] = url
        return dataset

    def explain(
        self: Collection,
        geometries: Any = None,
        bands: Sequence[str] | str | None = None,
        *,
        bbox: Any = None,
        geometry_crs: Any = None,
        **options: Any,
    ) -> Explanation:
        """Say what ``get_xarray`` with the same arguments would fetch, before anything is fetched.

        Parameters
        ----------
        geometries, bands, bbox, geometry_crs, **options
            As in :meth:`get_xarray`.

        Returns
        -------
        Explanation
            Requests and bytes exactly, retries apart, and tiles of which only upper rows are wanted and whose first bytes do not hold them
            (at the edge of a swath), which are fetched whole then; tiles, tasks, memory; seconds and money on demand.

        Raises
        ------
        RasteretError
            As from :meth:`get_xarray`.
        """
        table, request = prepare_cube(self, geometries, bands, bbox, geometry_crs, options)
        return explain_plans(plan_cube(table, request).bands)


CUBE_OPTIONS = options_of(Reads.get_xarray, "bbox", "geometry_crs")
"""What `get_xarray` takes beside areas and bands; any other name is a filter's."""


def _extra_columns(collection: Collection, request: CubeRequest) -> list[str]:
    """Return the columns that groupby, sortby and properties need; a function of the rows gets them all but the bands'."""
    known = collection.schema.names
    if callable(request.groupby):
        headers = {schema.band_column(band) for band in collection.bands}
        return [name for name in known if name not in headers]
    groupby = request.groupby
    named = list(groupby) if isinstance(groupby, (list, tuple)) else [groupby]
    named += [schema.GEOMETRY] if "solar_day" in named else []
    named += [request.sortby.removeprefix("-")] if request.sortby else []
    extra = [name for name in (*named, *request.properties) if name in known]
    if any(name not in known for name in request.properties) and schema.PROPERTIES in known:
        extra.append(schema.PROPERTIES)
    return extra


def prepare_cube(
    collection: Collection,
    geometries: Any,
    bands: Sequence[str] | str | None,
    bbox: Any,
    geometry_crs: Any,
    options: Mapping[str, Any],
) -> tuple[pa.Table, CubeRequest]:
    """Return the rows and the request of a cube; options that ``get_xarray`` does not name are filters.

    Parameters
    ----------
    collection : Collection
    geometries, bands, bbox, geometry_crs
        As in ``get_xarray``.
    options : mapping
        By name; see `CUBE_OPTIONS`.
    """
    known = {name: value for name, value in options.items() if name in CUBE_OPTIONS}
    filters = {name: value for name, value in options.items() if name not in CUBE_OPTIONS}
    column = known.pop("geometry_column", None)
    target = known.pop("target_crs", None)
    if target is not None and known.get("crs") is None:
        known["crs"] = target
    if geometries is not None and bbox is None:
        geometries = parse_areas(geometries, geometry_crs, column).joined()
    table, request, areas, bounds, crs = _prepare(
        collection, geometries, bands, bbox, geometry_crs, known, filters
    )
    box = lonlat_bounds(bounds, crs)
    if box is None or areas is not None or request.fixed is not None:
        return table, request
    return _with_corners(collection, table, request, box, filters)


def _with_corners(
    collection: Collection,
    table: pa.Table,
    request: CubeRequest,
    box: Bounds,
    filters: dict[str, Any],
) -> tuple[pa.Table, CubeRequest]:
    """Return the rows that the grid touches, which is larger than the lon/lat box where the two are turned against each other."""
    grid = decide_grid(table, request)
    request = replace(request, fixed=grid)
    wider = lonlat_bounds(grid.bounds, grid.crs)
    if wider is None or _holds(box, wider, slack=1e-9):
        return table, request
    chosen = collection.subset(bbox=wider, **filters)
    if len(chosen) == len(table):
        return table, request
    core = frozenset(table.column(schema.ID).to_pylist())
    return chosen.to_table(table.column_names), replace(request, core=core)


def _holds(outer: Bounds, inner: Bounds, slack: float) -> bool:
    if outer[0] > outer[2] or inner[0] > inner[2] or inner[2] > 180.0:
        return False
    low = all(a <= b + slack for a, b in zip(outer[:2], inner[:2]))
    return low and all(a >= b - slack for a, b in zip(outer[2:], inner[2:]))


def _prepare(
    collection: Collection,
    geometries: Any,
    bands: Sequence[str] | str | None,
    bbox: Any,
    geometry_crs: Any,
    options: dict[str, Any],
    filters: dict[str, Any],
) -> tuple[pa.Table, CubeRequest, Areas | None, Bounds | None, str]:
    """Return the rows, and the request, of a read."""
    names = tuple(collection.resolve_bands(bands))
    areas, bounds, crs = area_of(geometries, bbox, geometry_crs)
    if options.get("storage") is None:
        options["storage"] = collection.storage
    infos = {c: collection.band_info(c) for c in collection.bands}
    classes = frozenset(c for _, c in names if is_class_band(collection.band_info(c)))
    request = make_request(
        names,
        areas=areas,
        bounds=bounds,
        bounds_crs=crs,
        options=options,
        classes=classes,
        infos=infos,
    )
    wanted = [canonical for _, canonical in names]
    if request.mask is not None:
        canonical = collection.resolve_bands([request.mask.band])[0][1]
        request = replace(request, mask=replace(request.mask, band=canonical))
        wanted.append(canonical)
    box = lonlat_bounds(bounds, crs)
    if box is None and request.fixed is not None:
        box = lonlat_bounds(request.fixed.bounds, request.fixed.crs)
    chosen = collection.subset(bbox=box, **filters) if box is not None or filters else collection
    columns = [name for name in COLUMNS if name in collection.schema.names]
    columns += _extra_columns(collection, request)
    columns += [schema.band_column(band) for band in dict.fromkeys(wanted)]
    table = chosen.to_table(list(dict.fromkeys(columns)))
    if not len(table):
        raise EmptySelectionError(
            f"none of the collection's {len(collection)} items meets the area and the filters",
            hint=f"the collection covers {collection.bounds}",
        )
    request = with_class_bands(request, table, options.get("resampling", "nearest"))
    return table, request, areas, bounds, crs
