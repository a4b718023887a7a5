"""Windows of single items: as one NumPy array, or as a row for each geometry and item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rasteret_dask.errors import ArgumentError, EmptySelectionError
from rasteret_dask.grid.aoi import Areas, parse_areas
from rasteret_dask.index import schema
from rasteret_dask.model import BandInfo
from rasteret_dask.read.chips import get_gdf, get_numpy
from rasteret_dask.read.gather import COLUMNS
from rasteret_dask.read.near import Places, places_of_areas
from rasteret_dask.read.request import area_of, make_request

if TYPE_CHECKING:
    import geopandas
    import numpy.typing as npt

    from rasteret_dask.collection import Collection

Names = tuple[tuple[str, str], ...]


class Arrays:
    """Methods of :class:`~rasteret_dask.Collection` that lead to arrays on the items' own grids."""

    def get_numpy(
        self: Collection,
        geometries: Any = None,
        bands: Sequence[str] | str | None = None,
        *,
        bbox: Any = None,
        geometry_column: str | None = None,
        geometry_crs: Any = None,
        all_touched: bool = False,
        resolution: float | tuple[float, float] | None = None,
        resampling: Any = "nearest",
        scale: bool = False,
        offsets: Mapping[str, float] | None = None,
        decode: bool = False,
        nodata: float | int | None = None,
        fill_value: float | int | None = None,
        missing: str = "raise",
        storage: Any = None,
        **filters: Any,
    ) -> npt.NDArray[np.generic]:
        """Read windows of every item on its own grid, at once.

        Parameters
        ----------
        geometries, bbox, geometry_column, geometry_crs, all_touched
            As in :meth:`get_xarray`. Each window is cut at the item's edge.
        bands : sequence of str, optional
        resolution : float or (x, y), optional
            Bring all bands to it, which bands of different resolution need. The items of a geometry are then on one grid, as in a
            cube with a step for each item, and are nodata where they do not reach.
        resampling : str or mapping
            How; as in :meth:`get_xarray`. Without ``resolution`` nothing is resampled.
        scale, offsets, decode
            As in :meth:`get_xarray`: float32 with NaN for nothing; bands without scale or decoder stay as they are.
        nodata : number, optional
            What the files mean by nothing, over what they say themselves.
        fill_value : number, optional
            For pixels outside polygons; the files' nodata by default, NaN where values are scaled or decoded.
        missing : {"raise", "nodata"}
            What to do about items that lack a band; ``"nodata"`` leaves them out, or fills their band where there is a ``resolution``.
        storage : StorageOptions, optional
        **filters
            Those of :meth:`subset`.

        Returns
        -------
        ndarray
            ``[N, H, W]`` for one band, ``[N, C, H, W]`` for several; N runs over geometries, and over items by time within each.

        Raises
        ------
        ArgumentError
            If the results differ in shape.
        GridError
            If an item's bands differ in resolution and no ``resolution`` is given.
        """
        options = {
            "all_touched": all_touched,
            "scale": scale,
            "offsets": offsets,
            "decode": decode,
            "nodata": nodata,
            "fill_value": fill_value,
            "storage": self.storage if storage is None else storage,
            "missing": missing,
        }
        if geometries is not None and bbox is None:
            geometries = parse_areas(geometries, geometry_crs, geometry_column)
        areas, bounds, crs = area_of(geometries, bbox, geometry_crs)
        if resolution is not None:
            how = {"resolution": resolution, "resampling": resampling, **options, **filters}
            return _on_one_grid(self, geometries, bbox, bands, how)
        names = tuple(self.resolve_bands(bands))
        request = make_request(names, options=options, infos=self._infos(names))
        places = places_of_areas(areas, bounds, crs)
        table = self._rows_near(places, names, filters)
        return get_numpy(table, request, areas, bounds, crs, places)

    def get_gdf(
        self: Collection,
        geometries: Any,
        bands: Sequence[str] | str | None = None,
        *,
        geometry_column: str | None = None,
        geometry_crs: Any = None,
        all_touched: bool = False,
        per: str = "item",
        scale: bool = False,
        offsets: Mapping[str, float] | None = None,
        decode: bool = False,
        fill_value: float | int | None = None,
        nodata: float | int | None = None,
        missing: str = "raise",
        storage: Any = None,
        **filters: Any,
    ) -> geopandas.GeoDataFrame:
        """Read the pixels of each geometry on each item that it meets, at once, each tile once however many geometries touch it.

        Parameters
        ----------
        geometries
            Areas that crop and mask: shapely, GeoJSON, WKB, a GeoSeries or GeoArrow array, or a table (Arrow, Polars, DuckDB, pandas,
            GeoPandas); a tuple of four numbers crops only.
        bands : sequence of str, optional
            Canonical names or aliases; all by default.
        geometry_column : str, optional
            The column of the table that holds the geometries. Its other columns, and properties of GeoJSON features, come back beside
            the pixels.
        geometry_crs : optional
            What the coordinates are in, if the data does not say; a table that does not say must be told, all else is in lon/lat.
        all_touched : bool
            Whether a polygon keeps every pixel that it touches, not those alone whose centre it holds.
        per : {"item", "band"}
            A row for each geometry and item, with a column for each band; or, as rasteret does it, a row for each band, with columns
            ``band`` and ``data``. Bands of different resolution need the latter.
        scale, offsets, decode
            As in :meth:`get_xarray`: float32 with NaN for nothing; bands without scale or decoder stay as they are.
        fill_value : number, optional
            For pixels outside polygons; the files' nodata by default, NaN where values are scaled or decoded.
        nodata : number, optional
            What the files mean by nothing, over what they say themselves.
        missing : {"raise", "nodata"}
            What to do about items that lack a band: refuse, or leave them out.
        storage : StorageOptions, optional
        **filters
            Those of :meth:`subset`.

        Returns
        -------
        geopandas.GeoDataFrame
            By geometry, then item (time, then id): ``geometry_id`` (from 1, the row of the input), ``record_id``, ``datetime``,
            ``cloud_cover``, ``collection``, ``crs`` and ``transform`` of the pixels (on the item's own grid), arrays of shape (rows,
            columns), the caller's own columns, and ``geometry`` as it was given. A geometry meets an item by the box of either (``bbox``)
            and by the pixels of the file, whatever other geometries there are. A geometry over the antimeridian has a row for each side
            of an item that ends there, as a map of the world does.

        Raises
        ------
        EmptySelectionError
            If the geometries meet no item.
        GridError
            If an item's bands differ in resolution and ``per`` is ``"item"``.
        NodataError
            If pixels outside a polygon need a value that nobody names.
        """
        if per not in ("item", "band"):
            raise ArgumentError(f"per must be 'item' or 'band', not {per!r}")
        areas = parse_areas(geometries, geometry_crs, geometry_column)
        names = tuple(self.resolve_bands(bands))
        options = {
            "missing": missing,
            "scale": scale,
            "offsets": offsets,
            "decode": decode,
            "nodata": nodata,
            "all_touched": all_touched,
            "fill_value": fill_value,
            "storage": self.storage if storage is None else storage,
        }
        request = make_request(names, options=options, infos=self._infos(names))
        places = places_of_areas(areas, None, areas.crs)
        table = self._rows_near(places, names, filters)
        return get_gdf(table, request, areas, places, name=self.name, per=per)

    def _infos(self: Collection, names: Names) -> dict[str, BandInfo]:
        return {canonical: self.band_info(canonical) for _, canonical in names}

    def _rows_near(
        self: Collection, places: Places | None, names: Names, filters: Mapping[str, Any]
    ) -> pa.Table:
        """The rows that a read needs, without columns that it does not."""
        chosen = self.subset(**filters) if filters else self
        if places is not None:
            chosen = chosen.subset(bbox=places.bounds)
        columns = [*COLUMNS, schema.CLOUD_COVER, *(schema.band_column(band) for _, band in names)]
        table = chosen.to_table([n for n in dict.fromkeys(columns) if n in self.schema.names])
        if not len(table):
            raise EmptySelectionError(
                f"none of the collection's {len(self)} items meets the area and the filters",
                hint=f"the collection covers {self.bounds}",
            )
        return table


def _on_one_grid(
    collection: Collection, areas: Areas | None, bbox: Any, bands: Any, how: dict[str, Any]
) -> npt.NDArray[np.generic]:
    """Return the steps of a cube for each geometry, an item each, one geometry after the other."""
    each: list[Any] = [None]
    if areas is not None:
        each = [Areas((g,), areas.crs, areas.boxes) for g in areas.geometries]
    asked = [name for name, _ in collection.resolve_bands(bands)]
    found = []
    for area in each:
        cube = collection.get_xarray(area, asked, bbox=bbox, groupby="id", chunks=None, **how)
        found.append(np.stack([cube[band].values for band in asked], axis=1))
    shapes = {array.shape[2:] for array in found}
    if len(shapes) > 1:
        shown = ", ".join(f"{h}×{w}" for h, w in sorted(shapes)[:4])
        raise ArgumentError(
            f"the results differ in shape ({shown}), and one array needs one",
            hint="read geometries one by one, or use get_gdf for ragged results",
        )
    whole: npt.NDArray[np.generic] = np.concatenate(found)
    return whole[:, 0] if len(asked) == 1 else whole
