"""What a TorchGeo dataset is made of: rows, the index that samplers draw from, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
from pyproj import Transformer

from rasteret_dask.errors import ArgumentError, EmptySelectionError
from rasteret_dask.grid.aoi import Areas, parse_areas
from rasteret_dask.index import schema
from rasteret_dask.integrations.labels import PolygonLabels, polygon_labels
from rasteret_dask.plan.steps import TimeSteps
from rasteret_dask.plan.table import RawSources
from rasteret_dask.read.classes import is_class_band, with_class_bands
from rasteret_dask.read.gather import COLUMNS, Items, raw_sources
from rasteret_dask.read.grouping import item_times
from rasteret_dask.read.request import CubeRequest, make_request

if TYPE_CHECKING:
    from rasteret_dask.collection import Collection
    from rasteret_dask.integrations.windows import Spans

_CUBE = frozenset(
    (
        "groupby",
        "mosaic",
        "sortby",
        "resampling",
        "overviews",
        "dtype",
        "masked",
        "scale",
        "harmonize",
        "mask",
        "nodata",
        "fill_value",
        "missing",
        "storage",
        "on_error",
        "ledger",
    )
)
"""What of ``get_xarray`` means something for chips."""

_MOMENT = np.timedelta64(1, "us")

_SEGMENTS = 20
"""Parts of each side of a footprint that is moved to another CRS."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Rows of a collection and how to read them; what a dataset carries to other processes.

    Parameters
    ----------
    table : pyarrow.Table
        Sorted by time and id.
    request : CubeRequest
    series : bool
        Whether chips have a time axis.
    areas : Areas, optional
        Where chips are drawn from.
    one_area : bool
        Together, or one after the other.
    commons : mapping of str to str
        STAC common name of each band that has one, by the spelling that was asked for.
    """

    table: pa.Table
    request: CubeRequest
    series: bool = False
    areas: Areas | None = None
    one_area: bool = False
    commons: Mapping[str, str] = field(default_factory=dict)

    def with_crs(self, crs: str) -> Source:
        """Return the same in another CRS, at the resolution that follows."""
        grid = self.request.grid
        known = grid.resolution if grid.crs is None else None
        grid = replace(grid, crs=crs, resolution=known, anchor=None)
        return replace(self, request=replace(self.request, grid=grid))


def make_source(
    collection: Collection,
    bands: Sequence[str] | str | None,
    *,
    areas: Areas | None,
    one_area: bool,
    crs: Any,
    resolution: Any,
    allow_resample: bool,
    series: bool,
    label: str | None,
    options: Mapping[str, Any],
) -> Source:
    """Choose rows and check that they fit together.

    Parameters
    ----------
    collection : Collection
    bands : sequence of str, optional
    areas : Areas, optional
        Where chips are drawn from.
    one_area : bool
        Whether those are one area in several pieces.
    crs, resolution : optional
        Of the chips.
    allow_resample : bool
        Whether bands may be brought to one resolution.
    series : bool
        Whether a chip has a time axis.
    label : str, optional
        The column of labels.
    options : mapping
        The rest, as ``get_xarray`` takes it.

    Raises
    ------
    ArgumentError
        If CRSs or resolutions differ and nothing says what to do about it.
    EmptySelectionError
        If no item is left.
    """
    names = tuple(collection.resolve_bands(bands))
    infos = {band: collection.band_info(band) for band in collection.bands}
    known = {name: value for name, value in options.items() if name in _CUBE}
    known |= {"crs": crs, "resolution": resolution}
    known["storage"] = known.get("storage") or collection.storage
    classes = frozenset(band for _, band in names if is_class_band(infos[band]))
    request = make_request(names, options=known, classes=classes, infos=infos)
    wanted = [band for _, band in names]
    if request.mask is not None:
        band = collection.resolve_bands([request.mask.band])[0][1]
        request = replace(request, mask=replace(request.mask, band=band))
        wanted.append(band)
    filters = {name: value for name, value in options.items() if name not in _CUBE}
    if areas is not None:
        filters |= {"geometries": list(areas.geometries), "geometry_crs": areas.crs}
    chosen = collection.subset(**filters) if filters else collection
    table = chosen.to_table(_columns(collection, request, wanted, label))
    if not len(table):
        raise EmptySelectionError(
            f"none of the collection's {len(collection)} items meets the area and the filters"
        )
    request = with_class_bands(request, table, known.get("resampling", "nearest"))
    if request.grid.crs is None and crs is None:
        _check_crs(table, request)
    if request.grid.resolution is None and not allow_resample:
        _check_resolutions(table, request)
    commons = {asked: common for asked, band in names if (common := infos[band].common_name)}
    return Source(table, request, series, areas, one_area, commons)


def _columns(
    collection: Collection, request: CubeRequest, bands: Sequence[str], label: str | None
) -> list[str]:
    known = collection.schema.names
    if callable(request.groupby):
        headers = {schema.band_column(band) for band in collection.bands}
        columns = [name for name in known if name not in headers]
    else:
        groups = [request.groupby] if isinstance(request.groupby, str) else list(request.groupby)
        sort = [request.sortby.removeprefix("-")] if request.sortby else []
        also = [label] if label else []
        columns = [n for n in (*COLUMNS, schema.END, *groups, *sort, *also) if n in known]
    return list(dict.fromkeys([*columns, *(schema.band_column(band) for band in bands)]))


def _sources(table: pa.Table, request: CubeRequest) -> list[RawSources]:
    count = len(table)
    times = item_times(table)
    items = Items(table, TimeSteps(np.arange(count), times, times))
    plain = replace(request, scale=False, harmonize=None)
    return [raw_sources(items, band, plain) for _, band in request.bands]


def _check_crs(table: pa.Table, request: CubeRequest) -> None:
    found = {crs for raw in _sources(table, request) for crs in raw.crs}
    if len(found) > 1:
        raise ArgumentError(
            f"the items lie in {len(found)} CRSs ({', '.join(sorted(found)[:4])}), and chips need one",
            hint="give target_crs=: one of these, or 'native' for the most frequent; or choose items of one CRS",
        )


def _check_resolutions(table: pa.Table, request: CubeRequest) -> None:
    found: dict[tuple[str, float, float], str] = {}
    for (asked, _), raw in zip(request.bands, _sources(table, request)):
        for crs, affine in zip(raw.crs, raw.affines.tolist()):
            key = (crs, round(abs(affine[0]), 9), round(abs(affine[4]), 9))
            found.setdefault(key, asked)
    sizes = {key[1:] for key in found}
    if len(sizes) > 1 and len({key[0] for key in found}) < len(found):
        shown = ", ".join(f"{asked}: {key[1]:g}" for key, asked in list(found.items())[:4])
        raise ArgumentError(
            f"bands or items differ in resolution ({shown})",
            hint="allow_resample=True brings them to the finest, resolution= to one of your choice",
        )


# --- the index -----------------------------------------------------------------------------------
def make_index(source: Source, spans: Spans) -> gpd.GeoDataFrame:
    """Return what samplers draw from: a row for each item, or for each tile of the ground when there is a time axis.

    With areas, each row is cut to each of them.

    Raises
    ------
    EmptySelectionError
        If the areas meet no pixels.
    """
    crs = source.request.grid.crs
    assert crs is not None
    ids = source.table.column(schema.ID).to_pylist()
    numbers = {item: k for k, item in enumerate(ids)}
    outlines: dict[Any, shapely.Geometry] = {}
    rows: dict[Any, list[int]] = {}
    placed: set[int] = set()
    for raw in _sources(source.table, source.request):
        for item, own, affine, size in zip(
            raw.items, raw.crs, raw.affines.tolist(), raw.sizes.tolist()
        ):
            k = numbers[item]
            if k in placed:
                continue
            placed.add(k)
            grid = (own, *affine, *size)
            if grid not in outlines:
                outlines[grid] = _outline(own, affine, size, crs)
            rows.setdefault(grid if source.series else (grid, k), []).append(k)
    shapes = [outlines[key if source.series else key[0]] for key in rows]
    members = list(rows.values())
    if source.areas is not None:
        shapes, members = _cut(shapes, members, source.areas.to_crs(crs), source.one_area)
    first = np.array([spans.first[m].min() for m in members]).astype("datetime64[ns]")
    # TorchGeo's own datasets find nothing for a span of no length, which is what a moment is.
    last = np.array([spans.last[m].max() for m in members]).astype("datetime64[ns]") + _MOMENT
    when = pd.IntervalIndex.from_arrays(
        pd.DatetimeIndex(first), pd.DatetimeIndex(last), closed="both", name="datetime"
    )
    names = [", ".join(ids[k] for k in m[:3]) + (" …" if len(m) > 3 else "") for m in members]
    return gpd.GeoDataFrame({"item": names}, geometry=shapes, index=when, crs=crs)


def _outline(own: str, affine: Sequence[float], size: Sequence[int], crs: str) -> shapely.Geometry:
    a, b, c, d, e, f = affine
    height, width = size
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    ring = shapely.Polygon([(a * x + b * y + c, d * x + e * y + f) for x, y in corners])
    if own == crs:
        return shapely.box(*ring.bounds) if b == d == 0.0 else ring
    fine = shapely.segmentize(ring, ring.length / 4 / _SEGMENTS)
    transformer = Transformer.from_crs(own, crs, always_xy=True)
    return shapely.transform(
        fine, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1]))
    )


def _cut(
    shapes: list[shapely.Geometry], members: list[list[int]], areas: Areas, together: bool
) -> tuple[list[shapely.Geometry], list[list[int]]]:
    parts = [shapely.union_all(list(areas.geometries))] if together else list(areas.geometries)
    tree = shapely.STRtree(shapes)
    pairs = []
    for part in parts:
        for k in np.sort(tree.query(part, predicate="intersects")).tolist():
            common = shapely.intersection(shapes[k], part)
            if common.area > 0:
                pairs.append((common, members[k]))
    if not pairs:
        raise EmptySelectionError("the geometries meet none of the items' pixels")
    return [shape for shape, _ in pairs], [found for _, found in pairs]


# --- labels --------------------------------------------------------------------------------------
def labelled(
    collection: Collection,
    field_name: str | None,
    geometries: Any,
    geometry_crs: Any,
    all_touched: bool,
    background: float | int,
) -> tuple[Areas | None, PolygonLabels | None, str | None]:
    """Return where chips are drawn from, the polygons to paint, and the column of labels.

    Parameters
    ----------
    collection : Collection
    field_name : str, optional
        The column of labels.
    geometries, geometry_crs : optional
        Where chips are drawn from.
    all_touched : bool
        Whether a polygon paints every pixel that it touches.
    background : number
        Where no polygon lies.

    Raises
    ------
    ArgumentError
        If the field is a column of neither the geometries nor the collection.
    """
    areas = None if geometries is None else parse_areas(geometries, geometry_crs)
    if field_name is None:
        return areas, None, None
    columns = getattr(geometries, "columns", ())
    if field_name in columns:
        painted = polygon_labels(
            geometries,
            field_name,
            crs=geometry_crs,
            all_touched=all_touched,
            background=background,
        )
        return areas, painted, None
    if field_name in collection.schema.names:
        return areas, None, field_name
    raise ArgumentError(
        f"label_field={field_name!r} is a column of neither the geometries nor the collection",
        hint="give geometries= as a GeoDataFrame that has it, or add it to the collection",
    )


def labels(table: pa.Table, column: str | None) -> dict[str, Any]:
    """Return the label of each item.

    Raises
    ------
    ArgumentError
        If an item has none, or labels are neither numbers nor text.
    """
    if column is None:
        return {}
    values = table.column(column).to_pylist()
    ids = table.column(schema.ID).to_pylist()
    for item, value in zip(ids, values):
        if not isinstance(value, (bool, int, float, str)):
            raise ArgumentError(
                f"the label {value!r} is neither a number nor text", item=item, path=column
            )
    return dict(zip(ids, values))


def rgb(source: Source) -> list[int]:
    """Return the channels to draw as red, green and blue, or the one to draw in grey."""
    names = {
        common: k
        for k, (asked, _) in enumerate(source.request.bands)
        if (common := source.commons.get(asked))
    }
    found = [names[c] for c in ("red", "green", "blue") if c in names]
    return found if len(found) == 3 else [0]
