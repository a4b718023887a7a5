"""A cell of an append: what its search finds and the snapshot lacks. All of this runs on workers.

A cell is searched each time, since the catalogue may have grown; its part is named by the records that are new in it. So who appends again
after having been killed reads the headers of unfinished cells alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from rasteret_dask.ingest.cells import search_cell
from rasteret_dask.ingest.cut import content_key
from rasteret_dask.ingest.records import reprocessed, sort_records
from rasteret_dask.ingest.slices import (
    Outcome,
    Recipe,
    Slice,
    guarded,
    hashes,
    index_records,
    journal,
)


def fingerprint(item: str) -> bytes:
    """Sixteen bytes for an id: so many that no two of a collection are the same."""
    return hashlib.blake2b(item.encode(), digest_size=16).digest()


def append_cells(slices: Sequence[Slice], recipe: Recipe, known: frozenset[bytes]) -> list[Outcome]:
    """Search cells, and index what is not known yet.

    Parameters
    ----------
    slices : sequence of Slice
        With a cell each; their keys are positions.
    recipe : Recipe
    known : frozenset of bytes
        Fingerprints of the ids that the snapshot holds.
    """
    return [guarded(one.key, lambda one=one: _append(one, recipe, known)) for one in slices]  # type: ignore[misc]


def _append(one: Slice, recipe: Recipe, known: frozenset[bytes]) -> Outcome:
    assert one.cell is not None
    items = search_cell(one.cell)
    found = hashes(item["id"] for item in items)
    records = sort_records(
        recipe.record(item) for item in items if fingerprint(item["id"]) not in known
    )
    if not records:
        return Outcome(one.key, ids=found)
    key = content_key(int(one.key), records, recipe.document)
    outcome = journal(recipe.place, key)
    if outcome is None:
        outcome = index_records(key, records, recipe, reprocessed(records))
    return replace(outcome, ids=found)
