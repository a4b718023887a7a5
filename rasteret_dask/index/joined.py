"""Several tables seen as one, with the columns of all: what `concat` gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.dataset as pads

from rasteret_dask.index import schema as names
from rasteret_dask.index.columns import common_type, fitted
from rasteret_dask.index.dataset import ORDER, TableView, by_time
from rasteret_dask.index.query import Expression, every
from rasteret_dask.index.told import needs_assets, tell, with_fields
from rasteret_dask.model import BandInfo


@dataclass(frozen=True, slots=True, eq=False)
class JoinedView:
    """Rows of several views; a column that one of them lacks is null there.

    Parameters
    ----------
    views : tuple of TableView
        Every one has all the columns, but for fields of its structs.
    told : tuple of tuple of BandInfo
        What the catalogues of each view say of bands for which no catalogue speaks alone; their rows are given out with it.
    schema : pyarrow.Schema
        Of all together.
    filter : Expression, optional
        Which rows; all of them without one.
    """

    views: tuple[TableView, ...]
    told: tuple[tuple[BandInfo, ...], ...]
    schema: pa.Schema
    filter: Expression | None = None

    def where(self, expression: Expression | None) -> JoinedView:
        """The rows that also pass `expression`."""
        if expression is None:
            return self
        views = tuple(view.where(expression) for view in self.views)
        return replace(self, views=views, filter=every([self.filter, expression]))

    def count(self, expression: Expression | None = None) -> int:
        """Number of rows (that also pass `expression`)."""
        return sum(view.count(expression) for view in self.views)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows in the order (datetime, id)."""
        wanted = list(self.schema.names if columns is None else columns)
        read = self._needed([*wanted, *(n for n in ORDER if n in self.schema.names)])
        target = pa.schema([self.schema.field(name) for name in read], self.schema.metadata)
        parts = zip(self.views, self.told)
        tables = [tell(_fit(view.read(read), target), told) for view, told in parts]
        return by_time(pa.concat_tables(tables)).select(wanted)

    def head(self, n: int) -> pa.Table:
        """The first `n` rows in the order (datetime, id)."""
        parts = zip(self.views, self.told)
        tables = [tell(_fit(view.head(n), self.schema), told) for view, told in parts]
        return by_time(pa.concat_tables(tables)).slice(0, n)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Rows in pieces, one view after the other."""
        wanted = list(self.schema.names if columns is None else columns)
        read = self._needed(wanted)
        target = pa.schema([self.schema.field(name) for name in read], self.schema.metadata)
        for view, told in zip(self.views, self.told):
            for batch in view.batches(read):
                table = tell(_fit(pa.Table.from_batches([batch]), target), told)
                yield from table.select(wanted).to_batches()

    def _needed(self, columns: list[str]) -> list[str]:
        """Columns, and that of assets where these are needed to say what catalogues do."""
        more = any(needs_assets(told, columns) for told in self.told)
        return list(dict.fromkeys([*columns, *([names.ASSETS] if more else [])]))


def join(
    views: Sequence[TableView | JoinedView],
    metadata: dict[bytes, bytes],
    told: Sequence[Sequence[BandInfo]] | None = None,
) -> JoinedView:
    """See several views as one.

    Parameters
    ----------
    views : sequence of TableView or JoinedView
    metadata : mapping
        Of the schema.
    told : sequence of sequence of BandInfo, optional
        Of each view, what its catalogue says of bands for which no catalogue speaks alone: nodata, scale and offset become its rows' own.

    Raises
    ------
    CollectionError
        If a column has types that do not go together.
    """
    flat: list[TableView] = []
    says: list[tuple[BandInfo, ...]] = []
    for view, infos in zip(views, told or [()] * len(views)):
        if isinstance(view, JoinedView):
            flat += view.views
            says += [(*inner, *infos) for inner in view.told]
        else:
            flat.append(view)
            says.append(tuple(infos))
    fields: dict[str, pa.Field] = {}
    for view in flat:
        for field in view.schema:
            known = fields.get(field.name)
            kind = field.type if known is None else common_type(known.type, field.type, field.name)
            fields[field.name] = pa.field(field.name, kind)
    for column in {names.band_column(info.name) for infos in says for info in infos}:
        fields[column] = pa.field(column, with_fields(fields[column].type))
    # Headers come last, as in every collection.
    order = sorted(fields, key=lambda name: name.endswith("_metadata"))
    schema = pa.schema([fields[name] for name in order], metadata)
    return JoinedView(tuple(_widen(view, schema) for view in flat), tuple(says), schema)


def _widen(view: TableView, schema: pa.Schema) -> TableView:
    """Give a view the columns that it lacks, all null, so that filters can name them."""
    have = view.schema
    lacking = [field for field in schema if field.name not in have.names]
    if not lacking:
        return view
    wide = have
    for field in lacking:
        wide = wide.append(field)
    dataset = view.dataset
    if isinstance(dataset, pads.FileSystemDataset):
        return replace(view, dataset=dataset.replace_schema(wide))
    table = dataset.to_table()
    for field in lacking:
        table = table.append_column(field, pa.nulls(len(table), field.type))
    return replace(view, dataset=pads.InMemoryDataset(table))


def _fit(table: pa.Table, target: pa.Schema) -> pa.Table:
    columns = [
        pa.chunked_array(
            [fitted(chunk, field.type) for chunk in table.column(field.name).chunks], field.type
        )
        for field in target
    ]
    return pa.Table.from_arrays(columns, schema=target)
