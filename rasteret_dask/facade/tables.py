"""What can be done with a collection as a table, beside querying it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from rasteret_dask.errors import ArgumentError
from rasteret_dask.facade import page
from rasteret_dask.index import schema
from rasteret_dask.index.dedupe import COLUMNS, superseded
from rasteret_dask.index.place import Place
from rasteret_dask.model import StorageOptions
from rasteret_dask.write.table import export_rows

if TYPE_CHECKING:
    from rasteret_dask.collection import Collection

log = logging.getLogger(__name__)


class Tables:
    """Methods of :class:`~rasteret_dask.Collection` that lead to tables, or to fewer rows."""

    def dedupe(self: Collection, keep: str = "latest") -> Collection:
        """Keep one item of each acquisition that was processed more than once, and log what is dropped.

        Parameters
        ----------
        keep : {"latest"}
            The highest processing baseline, then the latest time of generation, then the highest id.

        Raises
        ------
        ArgumentError
            `keep` is another word.
        """
        if keep != "latest":
            raise ArgumentError(f"keep={keep!r} is unknown; there is 'latest'")
        names = [name for name in COLUMNS if name in self.schema.names]
        dropped = superseded(self.to_table(names))
        if not dropped:
            return self
        shown = ", ".join(dropped[:5]) + (" …" if len(dropped) > 5 else "")
        log.warning("%d items that a newer version replaces are dropped: %s", len(dropped), shown)
        gone = pc.field(schema.ID).isin(pa.array(dropped, pa.string()))
        return replace(self, view=self.view.where(~gone))

    def export(
        self: Collection,
        path: str | os.PathLike[str],
        *,
        partition_by: str | Sequence[str] = (),
        columns: Sequence[str] | None = None,
        storage: StorageOptions | None = None,
    ) -> str:
        """Write the rows as GeoParquet that every reader of Parquet, and `load`, can open; they are streamed, never held whole.

        Parameters
        ----------
        path : str or path-like
            A directory, or URL of one, that holds nothing yet.
        partition_by : str or sequence of str
            Columns that become folders, as ``["year", "month"]``.
        columns : sequence of str, optional
            All by default.
        storage : StorageOptions, optional
            How the place is reached; by default as the collection's own is.

        Returns
        -------
        str
            The URL that was written to.

        Raises
        ------
        ArgumentError
            A column is unknown.
        CollectionError
            There is something already, or it cannot be written.
        """
        text = os.fspath(path)
        target = text if "://" in text else os.path.abspath(os.path.expanduser(text))
        if storage is None:
            # As its own place is; what a dataset says of its bucket is not so of the caller's.
            own = self.reached if self.place is None else self.place.options
            storage = own or StorageOptions()
        place = Place(target, storage)
        names = list(self.schema.names if columns is None else columns)
        unknown = [name for name in names if name not in self.schema.names]
        if unknown:
            raise ArgumentError(f"no column {unknown[0]!r} to export")
        kept = pa.schema([self.schema.field(name) for name in names], self.schema.metadata)
        by = (partition_by,) if isinstance(partition_by, str) else tuple(partition_by)
        export_rows(self.to_batches(names), kept, place, partition_by=by)
        return place.url

    def compare_to_catalog(self: Collection) -> dict[str, Any]:
        """What the collection holds beside what its dataset offers: plain values, for people to read.

        Raises
        ------
        ArgumentError
            The collection is of no dataset that the catalogue describes.
        """
        descriptor = self.descriptor
        if descriptor is None:
            raise ArgumentError(
                "the collection is of no dataset that the catalogue describes",
                hint="describe() says what it holds",
            )
        offered = [band.name for band in descriptor.bands]
        said = self.describe()
        return {
            "dataset": descriptor.id,
            "title": descriptor.title,
            "license": descriptor.license,
            "requires_auth": descriptor.requires_auth,
            "items": said["items"],
            "dates": said["dates"],
            "bounds": said["bounds"],
            "bands": said["bands"],
            "bands_not_indexed": [name for name in offered if name not in said["bands"]],
            "bands_not_in_catalog": [name for name in said["bands"] if name not in offered],
        }

    def plot(self: Collection, **options: Any) -> Any:
        """Draw the footprints with matplotlib; returns its axes."""
        return page.plot(self.to_geopandas(), **options)

    def explore(self: Collection, **options: Any) -> Any:
        """Put the footprints on an interactive map, where GeoPandas has one."""
        return page.explore(self.to_geopandas(), **options)
