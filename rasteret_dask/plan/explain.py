"""What a cube will fetch, before it fetches anything: counted on the very plans that will be read; as a table, as text, as HTML."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pyarrow as pa

from rasteret_dask.plan.chunks import BandPlan
from rasteret_dask.plan.costs import BandCost
from rasteret_dask.plan.count import Known, count_plan

_HEAD = ("band", "requests", "MB", "tiles", "tasks", "used", "chunk MiB")


@dataclass(frozen=True, slots=True)
class Explanation:
    """The cost of a read; requests and bytes are exact for the planned requests, retries and redirects apart.

    Parameters
    ----------
    bands : mapping of str to BandCost
    """

    bands: Mapping[str, BandCost]

    @property
    def total(self) -> BandCost:
        """All bands together; the peak is that of the largest."""
        total = BandCost()
        for cost in self.bands.values():
            total = total.plus(cost)
        return total

    @property
    def requests(self) -> int:
        """GET requests."""
        return self.total.requests

    @property
    def bytes(self) -> int:
        """Bytes fetched."""
        return self.total.bytes

    @property
    def used_share(self) -> float:
        """Share of the fetched pixels that is used, 0 to 1."""
        return self.total.used_share

    def seconds(self, *, latency: float, bandwidth: float, in_flight: int = 128) -> float:
        """Return how long fetching takes at least.

        Parameters
        ----------
        latency : float
            Seconds of one request.
        bandwidth : float
            Bytes a second, of all workers together.
        in_flight : int
            Requests under way at once, of all workers together.
        """
        total = self.total
        return max(total.bytes / bandwidth, -(-total.requests // in_flight) * latency)

    def money(self, *, per_thousand_gets: float, per_gigabyte: float) -> float:
        """Return what fetching costs, in the currency of the prices (10**9 bytes to a gigabyte)."""
        total = self.total
        return total.requests / 1000 * per_thousand_gets + total.bytes / 1e9 * per_gigabyte

    def to_rows(self) -> list[dict[str, object]]:
        """Return one mapping for each band."""
        return [
            {"band": band, **asdict(cost), "used_share": cost.used_share}
            for band, cost in self.bands.items()
        ]

    def to_table(self) -> pa.Table:
        """Return an Arrow table with one row for each band: the columns of :class:`~rasteret_dask.plan.costs.BandCost` beside ``band``
        and ``used_share``. ``to_table().to_pandas()`` makes a DataFrame."""
        names = ["band", *(name for name in BandCost.__slots__), "used_share"]
        types = [pa.string(), *(pa.int64() for _ in BandCost.__slots__), pa.float64()]
        return pa.Table.from_pylist(self.to_rows(), schema=pa.schema(list(zip(names, types))))

    def _cells(self) -> list[tuple[str, ...]]:
        """Return the rows that people see, all bands together last."""
        return [
            (
                band,
                f"{c.requests}",
                f"{c.bytes / 1e6:.2f}",
                f"{c.tiles}",
                f"{c.tasks}",
                f"{c.used_share:.0%}",
                f"{c.peak_chunk_bytes / 2**20:.1f}",
            )
            for band, c in [*self.bands.items(), ("all", self.total)]
        ]

    def __str__(self) -> str:
        rows = [_HEAD, *self._cells()]
        widths = [max(len(row[k]) for row in rows) for k in range(len(_HEAD))]
        return "\n".join("  ".join(v.rjust(w) for v, w in zip(row, widths)) for row in rows)

    def _repr_html_(self) -> str:
        # Colours and fonts are the page's own, so that it can be read on a light page and on a dark one.
        *bands, total = self._cells()
        rule = "1px solid currentColor"
        return (
            "<table class='rasteret-explain' style='border-collapse:collapse;color:inherit'>"
            "<caption style='text-align:left'>What reading will fetch</caption>"
            f"<thead style='border-bottom:{rule}'>{_row(_HEAD, 'col')}</thead>"
            f"<tbody>{''.join(_row(row) for row in bands)}</tbody>"
            f"<tfoot style='border-top:{rule};font-weight:bold'>{_row(total)}</tfoot></table>"
        )


def _row(cells: tuple[str, ...], scope: str = "row") -> str:
    """Return a row of HTML; its first cell names it, or all of them name their columns."""
    style = "style='text-align:{};padding:2px 8px;background:none;color:inherit'"
    out = []
    for k, text in enumerate(cells):
        tag = "th" if k == 0 or scope == "col" else "td"
        named = f" scope='{'col' if scope == 'col' else 'row'}'" if tag == "th" else ""
        place = style.format("left" if k == 0 else "right")
        out.append(f"<{tag}{named} {place}>{html.escape(text)}</{tag}>")
    return f"<tr style='background:none'>{''.join(out)}</tr>"


def explain_plans(plans: Mapping[str, BandPlan]) -> Explanation:
    """Count what plans will fetch.

    Parameters
    ----------
    plans : mapping of str to BandPlan
        By the name of the band.
    """
    known: Known = {}
    return Explanation({band: count_plan(plan, known) for band, plan in plans.items()})
