"""Which bands a build indexes, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

from rasteret_dask.errors import ArgumentError
from rasteret_dask.index import own
from rasteret_dask.ingest.bands import discover, find_asset, from_map, resolve
from rasteret_dask.ingest.build import Gathered
from rasteret_dask.ingest.records import AS_THEY_ARE, NO_MORE, Links, Record, make_record
from rasteret_dask.model import BandInfo, DatasetDescriptor

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BandChoice:
    """What a caller says of bands.

    Parameters
    ----------
    wanted : sequence of str, optional
        The bands to index, by any of their names; all that the items have by default.
    band_map, index_map : mapping, optional
        Canonical name to asset key, and to the band of its file.
    descriptor : DatasetDescriptor, optional
        Used when there is no map.
    links : Links
        Which of an asset's links are taken.
    """

    wanted: Sequence[str] | None = None
    band_map: Mapping[str, str] | None = None
    index_map: Mapping[str, int] | None = None
    descriptor: DatasetDescriptor | None = None
    links: Links = AS_THEY_ARE

    def __post_init__(self) -> None:
        for band, index in (self.index_map or {}).items():
            if isinstance(index, bool) or not isinstance(index, Integral) or index < 0:
                raise ArgumentError(
                    f"band_index_map says {index!r}; the bands of a file are counted from 0",
                    band=band,
                )

    def describe(self) -> dict[str, Any]:
        """As JSON: part of a build's identity."""
        known = None
        if self.band_map is None and self.descriptor is not None:
            known = [asdict(band) for band in self.descriptor.bands]
        return {
            "bands": None if self.wanted is None else list(self.wanted),
            "band_map": None if self.band_map is None else dict(self.band_map),
            "band_index_map": None if self.index_map is None else dict(self.index_map),
            "descriptor": known,
            **self.links.describe(),
        }

    def infos(self, items: Sequence[Json], *, whole: bool = True) -> tuple[BandInfo, ...]:
        """The bands of the collection, in its order.

        Parameters
        ----------
        items : sequence of mapping
        whole : bool
            These are all of the items: described bands that none of them has are left out.

        Raises
        ------
        UnknownBandError
            A wanted band is none of the dataset's.
        """
        if self.band_map is not None:
            found = from_map(self.band_map, self.index_map, items)
        elif self.descriptor is not None and self.descriptor.bands:
            found = self.descriptor.bands
        else:
            found = discover(items)
        if self.wanted is not None:
            names = [canonical for _, canonical in resolve(self.wanted, found)]
            known = {band.name: band for band in found}
            return tuple(known[name] for name in dict.fromkeys(names))
        return tuple(
            band
            for band in found
            if not whole
            or any(find_asset(item.get("assets") or {}, band) is not None for item in items)
        )

    def records(
        self,
        items: Iterable[Json],
        infos: Sequence[BandInfo],
        columns: own.Columns = NO_MORE,
    ) -> Iterator[Record]:
        """One record for each item, with columns beside ours."""
        return (make_record(item, infos, self.links, columns) for item in items)

    def gathered(self, items: Sequence[Json], columns: own.Columns = NO_MORE) -> Gathered:
        """What there is to build from items that are known."""
        infos = self.infos(items)
        return Gathered(infos, self.records(items, infos, columns), columns=columns)
