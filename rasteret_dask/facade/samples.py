"""Values under points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dask
import pyarrow as pa

from rasteret_dask.errors import ArgumentError
from rasteret_dask.facade.options import options_of
from rasteret_dask.grid.frames import check_frame
from rasteret_dask.grid.given import understand_points
from rasteret_dask.index import schema
from rasteret_dask.index.dataset import in_memory
from rasteret_dask.read.client import alone
from rasteret_dask.read.gather import COLUMNS
from rasteret_dask.read.near import places_of_points
from rasteret_dask.read.points import NEIGHBOURHOODS, WINDOW, check_names, sample_points
from rasteret_dask.read.points import SCHEMA as POINTS
from rasteret_dask.read.request import make_request

if TYPE_CHECKING:
    from rasteret_dask.collection import Collection


class Samples:
    """Methods of :class:`~rasteret_dask.Collection` that lead to values under points."""

    def sample_points(
        self: Collection,
        points: Any,
        bands: Sequence[str] | str | None = None,
        *,
        geometry_column: str | None = None,
        x_column: str | None = None,
        y_column: str | None = None,
        geometry_crs: Any = None,
        match: str = "all",
        max_distance_pixels: int = 0,
        return_neighbourhood: str = "off",
        scale: bool = False,
        offsets: Mapping[str, float] | None = None,
        decode: bool = False,
        nodata: float | int | None = None,
        missing: str = "raise",
        storage: Any = None,
        **filters: Any,
    ) -> Any:
        """Read the pixels under points, each tile once for all the points in it.

        Parameters
        ----------
        points
            Shapely points, GeoJSON, WKB, a GeoSeries or GeoArrow array, an (n, 2) array, or a table (Arrow, Polars, DuckDB, pandas,
            GeoPandas) with a column of points or two of coordinates. A Dask frame gives a Dask frame: each partition is sampled by a task
            of its own, and its points are numbered from 0.
        bands : sequence of str, optional
            Canonical names or aliases; all by default.
        geometry_column, x_column, y_column : str, optional
            Columns of the table. Its other columns, and properties of GeoJSON features, come back beside the values.
        geometry_crs : optional
            What the coordinates are in, if the data does not say; a table that does not say must be told, all else is in lon/lat.
        match : {"all", "latest"}
            Every item that a point lies on, or the latest alone, band by band. The item's ``bbox`` must hold the point, and its file
            have a pixel there, whatever other points there are.
        max_distance_pixels : int
            Where there is nodata, look so many pixels around for the nearest valid one.
        return_neighbourhood : {"off", "always", "if_center_nodata"}
            Also return the square of that radius around the pixel, row by row, NaN outside of the file.
        scale, offsets, decode
            As in :meth:`get_xarray`: the values that a cube would hold, NaN for nothing; bands without scale or decoder stay as they are.
        nodata : number, optional
            What the files mean by nothing, over what they say themselves.
        missing : {"raise", "nodata"}
            What to do about items that lack a band: refuse, or leave them out. With ``match="latest"`` they are left out.
        storage : StorageOptions, optional
        **filters
            Those of :meth:`subset`.

        Returns
        -------
        pyarrow.Table, or a Dask frame
            One row for each point, item and band, ordered by item (time, then id), band and point: ``point_index`` (row of the input),
            ``point_x``, ``point_y``, ``point_crs``, ``record_id``, ``datetime``, ``collection``, ``band``, ``value`` (float64; nodata as it
            is stored, or NaN where only the file's own mask or alpha says that there is nothing), ``raster_crs``, perhaps
            ``neighbourhood_values``, and the caller's own columns. A point belongs to the pixel to its right and below when it lies on an
            edge. Points that lie on no item have no row.

        Raises
        ------
        ArgumentError
            If the points cannot be understood, or an option means nothing.
        """
        given = locals()
        _check(match, max_distance_pixels, return_neighbourhood)
        chosen = self.subset(**filters) if filters else self
        if hasattr(points, "map_partitions") and hasattr(points, "dask"):
            how = {name: value for name, value in given.items() if name in _OPTIONS}
            return _sample_lazily(chosen, points, bands, how)
        found = understand_points(
            points,
            geometry_column=geometry_column,
            x_column=x_column,
            y_column=y_column,
            crs=geometry_crs,
        )
        names = tuple(self.resolve_bands(bands))
        options = {
            "missing": "nodata" if match == "latest" else missing,
            "scale": scale,
            "offsets": offsets,
            "decode": decode,
            "nodata": nodata,
            "storage": self.storage if storage is None else storage,
        }
        infos = {canonical: self.band_info(canonical) for _, canonical in names}
        request = make_request(names, options=options, infos=infos)
        places = places_of_points(found)
        return sample_points(
            _rows(chosen.subset(bbox=places.bounds), names),
            request,
            found,
            places,
            name=self.name,
            latest=match == "latest",
            max_distance=max_distance_pixels,
            neighbourhood=return_neighbourhood,
        )


_OPTIONS = options_of(Samples.sample_points)


def _rows(collection: Collection, names: Sequence[tuple[str, str]]) -> pa.Table:
    """The rows of a read of bands, without columns that it does not need."""
    columns = [name for name in COLUMNS if name in collection.schema.names]
    columns += dict.fromkeys(schema.band_column(band) for _, band in names)
    return collection.to_table(columns)


def _sample_lazily(collection: Collection, points: Any, bands: Any, how: dict[str, Any]) -> Any:
    places = {name: how[name] for name in ("geometry_column", "x_column", "y_column")}
    picked = check_frame(points._meta, **places, crs=how["geometry_crs"])
    made = POINTS if how["return_neighbourhood"] == "off" else POINTS.append(WINDOW)
    meta = made.empty_table().to_pandas()
    own = points._meta.drop(
        columns=[c for c in points._meta.columns if str(points._meta[c].dtype) == "geometry"]
    )
    placed = {picked, how["geometry_column"]} & set(own.columns)
    own = own.drop(columns=list(placed))
    check_names(own.columns, made)
    for column in own.columns:
        meta[column] = own[column].reset_index(drop=True)
    # Rows travel once, not with every task; a dataset's files might not be within a worker's reach.
    rows = dask.delayed(_rows(collection, collection.resolve_bands(bands)))
    bare = replace(collection, view=None, commit=None, place=None, report=None)  # type: ignore[arg-type]  # `view` comes with the rows
    return points.map_partitions(_sample_partition, rows, bare, bands, how, meta, meta=meta)


def _sample_partition(
    part: Any,
    rows: pa.Table,
    bare: Collection,
    bands: Any,
    how: dict[str, Any],
    empty: Any,
) -> Any:
    if not len(part):
        return empty
    collection = replace(bare, view=in_memory(rows))
    with alone():
        found = collection.sample_points(part, bands, **how).to_pandas()
    # Texts have a type of Dask's own, which Arrow does not give back.
    own = [name for name in empty.columns if name not in (*POINTS.names, WINDOW.name)]
    return found.astype(empty.dtypes[own].to_dict())


def _check(match: str, distance: int, neighbourhood: str) -> None:
    if match not in ("all", "latest"):
        raise ArgumentError(f"match must be 'all' or 'latest', not {match!r}")
    if isinstance(distance, bool) or not isinstance(distance, int) or distance < 0:
        raise ArgumentError(f"max_distance_pixels is {distance!r}; a whole number is needed")
    if neighbourhood not in NEIGHBOURHOODS:
        raise ArgumentError(
            f"return_neighbourhood={neighbourhood!r} is unknown",
            hint=f"there is {', '.join(NEIGHBOURHOODS)}",
        )
    if neighbourhood != "off" and not distance:
        raise ArgumentError("return_neighbourhood needs max_distance_pixels, the square's radius")
