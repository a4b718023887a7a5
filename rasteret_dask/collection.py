"""A collection: a table to query. Methods are short and delegate; those that lead to pixels, to other
tables and to training are in `facade`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from typing import Any

import geopandas
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from rasteret_dask.errors import ArgumentError
from rasteret_dask.facade import page
from rasteret_dask.facade.arrays import Arrays
from rasteret_dask.facade.reads import Reads
from rasteret_dask.facade.samples import Samples
from rasteret_dask.facade.tables import Tables
from rasteret_dask.facade.training import Training
from rasteret_dask.grid.aoi import is_box
from rasteret_dask.grid.geobox import Bounds
from rasteret_dask.index import query, schema
from rasteret_dask.index.commit import Commit
from rasteret_dask.index.dataset import TableView, in_memory, open_commit
from rasteret_dask.index.extent import bounds_of, silent_clouds, told_extent
from rasteret_dask.index.geometries import to_geometries
from rasteret_dask.index.joined import JoinedView
from rasteret_dask.index.place import Place
from rasteret_dask.ingest.bands import resolve
from rasteret_dask.ingest.report import BuildReport
from rasteret_dask.ingest.stac import read_items
from rasteret_dask.ingest.update import append_found, append_items, refresh_files
from rasteret_dask.model import BandInfo, DatasetDescriptor, StorageOptions

log = logging.getLogger(__name__)

_BAR = (schema.DATETIME, schema.CRS, schema.BBOX)


@dataclass(frozen=True, eq=False)  # Arrow expressions have no truth
class Collection(Reads, Arrays, Samples, Tables, Training):
    """Items, their assets, and the headers of their files: a lazy table whose pixels can be read.

    Made by `build`, `load` or `as_collection`; every query gives a new collection and reads
    nothing.

    Parameters
    ----------
    view : TableView or JoinedView
        The rows.
    name : str
    descriptor : DatasetDescriptor, optional
        What the catalogue says of the dataset.
    infos : tuple of BandInfo
        What is known of the bands, in the order of the columns.
    storage : StorageOptions
        How the rasters are reached.
    place : Place, optional
        Where the collection lies.
    commit : Commit, optional
        The snapshot that the rows are of.
    report : BuildReport, optional
        The account of the build.
    reached : StorageOptions, optional
        How the place was reached that rows of others, or of several collections, came from.
    """

    view: TableView | JoinedView
    name: str = ""
    descriptor: DatasetDescriptor | None = None
    infos: tuple[BandInfo, ...] = ()
    storage: StorageOptions = field(default_factory=StorageOptions)
    place: Place | None = None
    commit: Commit | None = None
    report: BuildReport | None = None
    reached: StorageOptions | None = None

    # --- what it is ----------------------------------------------------------------------------
    @property
    def bands(self) -> list[str]:
        """Canonical names of the bands."""
        return list(schema.band_names(self.view.schema))

    @property
    def schema(self) -> pa.Schema:
        """The columns of the table."""
        return self.view.schema

    @cached_property
    def _count(self) -> int:
        if self.commit is not None and self.view.filter is None:
            return self.commit.rows
        return self.view.count()

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _summary(self) -> dict[str, Any]:
        if self.commit is not None and self.view.filter is None:
            told = told_extent(self.commit)
            if told is not None:
                return told
        names = [name for name in _BAR if name in self.schema.names]
        table = self.view.read(names)
        times = pc.min_max(table.column(schema.DATETIME)).as_py()
        crs = pc.unique(table.column(schema.CRS)).to_pylist() if schema.CRS in names else []
        bounds = bounds_of(table.column(schema.BBOX)) if schema.BBOX in names else None
        return {
            "first": times["min"],
            "last": times["max"],
            "crs": sorted(c for c in crs if c),
            "bounds": bounds,
        }

    @property
    def crs(self) -> list[str]:
        """The CRS of the items, distinct and sorted: ``EPSG:n``, or WKT2 where there is no code."""
        return list(self._summary["crs"])

    @property
    def bounds(self) -> Bounds | None:
        """lon/lat box around all footprints; west > east when it crosses the antimeridian. None
        when empty."""
        found: Bounds | None = self._summary["bounds"]
        return found

    @property
    def dates(self) -> tuple[Any, Any]:
        """First and last ``datetime``; naive, UTC."""
        return self._summary["first"], self._summary["last"]

    def resolve_bands(self, names: Sequence[str] | str | None = None) -> list[tuple[str, str]]:
        """Names as people write them → canonical names; all bands by default.

        Returns
        -------
        list of (asked, canonical)

        Raises
        ------
        UnknownBandError
            No band answers to a name, or more than one does.
        """
        if names is None:
            return [(name, name) for name in self.bands]
        asked = [names] if isinstance(names, str) else list(names)
        if not asked:
            raise ArgumentError("no band was asked for")
        return resolve(asked, [self.band_info(name) for name in self.bands])

    def band_info(self, name: str) -> BandInfo:
        """What is known of a band, by its canonical name."""
        known = {info.name: info for info in self.infos}
        return known.get(name) or BandInfo(name=name, asset=name)

    # --- queries -------------------------------------------------------------------------------
    def subset(
        self,
        *,
        bbox: Any = None,
        date_range: Any = None,
        cloud_cover_lt: float | None = None,
        geometries: Any = None,
        geometry_column: str | None = None,
        geometry_crs: Any = None,
        split: str | Sequence[str] | None = None,
        split_column: str = "split",
        **columns: Any,
    ) -> Collection:
        """Items that meet every condition.

        Parameters
        ----------
        bbox : tuple of float, optional
            ``(west, south, east, north)`` in lon/lat; west > east crosses the antimeridian.
        date_range : pair or str, optional
            ``("2023-06-01", "2023-08-31")``; a date without a time includes its last moment.
        cloud_cover_lt : float, optional
            Percent. Items that do not say are left out, and their number is logged.
        geometries : optional
            Items whose footprint truly meets one of them: shapely, GeoJSON, WKB, GeoPandas, Arrow,
            or a bbox.
        geometry_column : str, optional
            The column of a table that holds them.
        geometry_crs : optional
            What their coordinates are in, if they do not say; a table must say or be told, all else is in lon/lat.
        split, split_column : optional
            Rows of a split, as ``train``.
        **columns
            ``column=value``, ``column_lt/le/gt/ge/ne/in=value``; a colon may be written as an
            underscore.

        Raises
        ------
        ArgumentError
            A condition cannot mean anything.
        """
        conditions = query.column_expressions(columns, self.schema)
        if bbox is not None:
            conditions.append(query.bbox_expression(bbox, self.schema))
        if date_range is not None:
            conditions.append(query.date_expression(date_range, self.schema))
        if split is not None:
            conditions += query.column_expressions({split_column: split}, self.schema)
        found = self._where(query.every(conditions))
        if cloud_cover_lt is not None:
            found = found._less_cloudy(cloud_cover_lt)
        if geometries is None:
            return found
        return found._meeting(geometries, geometry_crs, geometry_column)

    def where(self, expression: Any) -> Collection:
        """Items that an Arrow expression holds for; see ``pyarrow.compute.field``.

        Raises
        ------
        ArgumentError
            It is no expression, or the table cannot answer it.
        """
        return self._where(query.checked(expression, self.schema))

    def _where(self, expression: Any) -> Collection:
        return replace(self, view=self.view.where(expression))

    def select_split(self, split: str | Sequence[str], column: str = "split") -> Collection:
        """Items of a split, as ``train``."""
        return self.subset(split=split, split_column=column)

    def head(self, n: int = 5) -> Collection:
        """The first `n` items in the order (datetime, id).

        Raises
        ------
        ArgumentError
            `n` is negative.
        """
        if isinstance(n, bool) or not isinstance(n, Integral) or n < 0:
            raise ArgumentError(f"head({n!r}): a number of items is whole and not negative")
        return replace(self, view=in_memory(self.view.head(n)), commit=None)

    def _less_cloudy(self, limit: float) -> Collection:
        expression = query.cloud_expression(limit)
        if schema.CLOUD_COVER not in self.schema.names:
            raise ArgumentError("the collection does not know its items' cloud cover")
        nulls = None if self.commit is None else silent_clouds(self.commit)
        if nulls != 0:
            silent = self.view.count(pc.field(schema.CLOUD_COVER).is_null())
            if silent:
                log.warning("%d items do not say how cloudy they are and are left out", silent)
        return self._where(expression)

    def _meeting(self, geometries: Any, crs: Any, column: str | None) -> Collection:
        # A bare tuple is a bbox: lon/lat, unless the caller says otherwise.
        if crs is None and is_box(geometries):
            return self.subset(bbox=geometries)
        shapes = to_geometries(geometries, crs, column)
        near = self._where(query.bbox_expression(query.geometry_bounds(shapes), self.schema))
        wanted = (schema.ID, schema.GEOMETRY, schema.BBOX)
        table = near.view.read([name for name in wanted if name in self.schema.names])
        hits = table.column(schema.ID).filter(pa.array(query.intersecting(table, shapes)))
        return near._where(pc.field(schema.ID).isin(hits.combine_chunks()))

    # --- kept up to date -----------------------------------------------------------------------
    def append(self, items: Any = None) -> Collection:
        """Add the items that are new since the last snapshot.

        Parameters
        ----------
        items : optional
            As `build_from_items` takes them; the collection's own search, made again, by default.

        Returns
        -------
        Collection
            The new snapshot; this one stays what it is.

        Raises
        ------
        ArgumentError
            It is no whole collection in a workspace.
        CommitConflictError
            Another builder committed meanwhile: append again.
        """
        place, commit = self._whole()
        bands = schema.band_infos(commit.document)
        if items is None:
            return self._now(*append_found(place, bands, self.storage))
        return self._now(*append_items(place, read_items(items), bands, self.storage))

    def refresh(self) -> Collection:
        """Read the headers again of files whose ETag changed, and of those that could not be read.

        Returns
        -------
        Collection
            The new snapshot; this one stays what it is.

        Raises
        ------
        ArgumentError
            It is no whole collection in a workspace.
        CommitConflictError
            Another builder committed meanwhile: refresh again.
        """
        place, _ = self._whole()
        return self._now(*refresh_files(place, self.storage))

    def _whole(self) -> tuple[Place, Commit]:
        if self.place is None or self.commit is None or self.view.filter is not None:
            raise ArgumentError(
                "only a whole collection can be updated", hint="load() it from its workspace"
            )
        return self.place, self.commit

    def _now(self, commit: Commit, report: BuildReport) -> Collection:
        place, _ = self._whole()
        return replace(self, view=open_commit(place, commit), commit=commit, report=report)

    # --- the table -----------------------------------------------------------------------------
    def to_table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows as an Arrow table in the order (datetime, id); all columns by default."""
        return self.view.read(self._known(columns))

    def _known(self, columns: Sequence[str] | None) -> Sequence[str] | None:
        for name in columns or ():
            if name not in self.schema.names:
                hint = f"columns: {', '.join(self.schema.names)}"
                raise ArgumentError(f"the collection has no column {name!r}", hint=hint)
        return columns

    def to_batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Rows in pieces, without holding them all."""
        return self.view.batches(self._known(columns))

    def to_geopandas(self, columns: Sequence[str] | None = None) -> Any:
        """Footprints and properties, without headers, as a GeoDataFrame in CRS84."""
        plain = [f.name for f in self.schema if not pa.types.is_nested(f.type)]
        names = [n for n in (columns or plain) if n != schema.GEOMETRY]
        frame = self.view.read([*names, schema.GEOMETRY]).to_pandas()
        shapes = shapely.from_wkb(frame.pop(schema.GEOMETRY))
        return geopandas.GeoDataFrame(frame, geometry=shapes, crs="OGC:CRS84")

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The table for any library that knows Arrow's C stream (DuckDB, Polars, pandas …)."""
        reader = pa.RecordBatchReader.from_batches(self.schema, self.view.batches())
        return reader.__arrow_c_stream__(requested_schema)

    def describe(self) -> dict[str, Any]:
        """Name, items, dates, bands, CRS and bounds as plain values."""
        first, last = self.dates
        return {
            "name": self.name,
            "dataset": None if self.descriptor is None else self.descriptor.id,
            "items": len(self),
            "dates": [None if t is None else t.isoformat() for t in (first, last)],
            "bands": self.bands,
            "crs": self.crs,
            "bounds": self.bounds,
        }

    # --- for people ----------------------------------------------------------------------------
    def _lines(self) -> list[tuple[str, str]]:
        said = self.describe()
        first, last = (str(t)[:10] for t in said["dates"])
        dates = first if first == last else f"{first} … {last}"
        bounds = said["bounds"]
        lines = [
            ("dataset", said["dataset"] or ""),
            ("items", f"{said['items']:,}"),
            ("dates", dates if said["items"] else ""),
            ("bands", ", ".join(said["bands"])),
            ("crs", ", ".join(c if len(c) < 40 else f"{c[:37]}…" for c in said["crs"])),
            ("bounds", "" if bounds is None else ", ".join(f"{v:.4f}" for v in bounds)),
        ]
        if self.report is not None and self.report.failure_count:
            lines.append(("headers", f"{self.report.failure_count} could not be read: see .report"))
        if self.place is not None:
            lines.append(("place", self.place.url))
        return [(key, value) for key, value in lines if value]

    def __repr__(self) -> str:
        rows = "\n".join(f"  {key:8} {value}" for key, value in self._lines())
        return f"<Collection {self.name!r}>\n{rows}"

    def _repr_html_(self) -> str:
        few = self if len(self) <= page.MAX_ITEMS else self.head(page.MAX_ITEMS)
        items = few.to_table([n for n in page.COLUMNS if n in self.schema.names])
        bands = [self.band_info(name) for name in self.bands]
        return page.page(self.name, self._lines(), items, bands, total=len(self))
