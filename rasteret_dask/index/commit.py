"""Commits: which immutable parts make up a collection. `docs/formats.md` describes the format.

    <collection>/
      _rasteret/parts/<slice>/<content>.part   Parquet, created if absent, never changed
      _rasteret/commits/00000001.json          a list of parts, created if absent, written last
      _rasteret/current.json                   which directory other readers should read
      data/00000001/<slice>-<content>.parquet  the parts of a commit, for those readers

Our readers follow the newest commit. Parts enter `data/` only after the commit that lists them,
whole, by a link or a copy inside the store, so a reader that lists that directory never meets one
that is torn or was not committed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_dask.errors import CollectionError, CommitConflictError
from rasteret_dask.index import schema
from rasteret_dask.index.place import Place

VERSION: Final = 1
FORMAT: Final = "rasteret-dask commit"
PARTS: Final = "_rasteret/parts"
COMMITS: Final = "_rasteret/commits"
POINTER: Final = "_rasteret/current.json"
SUFFIX: Final = ".part"
"""Not ``.parquet``, so that ``**/*.parquet`` never finds a part that is not committed."""


@dataclass(frozen=True, slots=True)
class Part:
    """An immutable Parquet file and what its rows cover.

    Parameters
    ----------
    name : str
        ``<slice>-<content>``.
    rows, size : int
        Rows, bytes.
    sha256 : str
        Of the file.
    stats : mapping
        What `part_stats` gives.
    """

    name: str
    rows: int
    size: int
    sha256: str
    stats: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Where it lies below the collection."""
        key, _, content = self.name.rpartition("-")
        return part_file(key, content)


def part_file(key: str, content: str) -> str:
    """Where a part lies below the collection: a folder for each slice, so that a task lists its
    own alone."""
    return f"{PARTS}/{key}/{content}{SUFFIX}"


@dataclass(frozen=True, slots=True)
class Commit:
    """A snapshot of a collection.

    Parameters
    ----------
    number : int
        1 for the first.
    name : str
        Of the collection.
    identity : str
        Hash of the arguments of the build.
    arguments : mapping
        Those arguments, so that a difference can be shown.
    directory : str
        Where other readers find the parts.
    document : mapping
        The JSON document of the schema.
    parts : tuple of Part
        In the order of their rows.
    report : mapping
        The build report.
    """

    number: int
    name: str
    identity: str
    arguments: Mapping[str, Any]
    directory: str
    document: Mapping[str, Any]
    parts: tuple[Part, ...]
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows in all."""
        return sum(part.rows for part in self.parts)

    def to_json(self) -> bytes:
        """As it is written; the same commit gives the same bytes."""
        parts = [
            {"name": p.name, "rows": p.rows, "size": p.size, "sha256": p.sha256, "stats": p.stats}
            for p in self.parts
        ]
        return canonical(
            {
                "format": FORMAT,
                "version": VERSION,
                "number": self.number,
                "name": self.name,
                "identity": self.identity,
                "arguments": self.arguments,
                "directory": self.directory,
                "document": self.document,
                "parts": parts,
                "report": self.report,
            }
        )


def canonical(value: Any) -> bytes:
    """JSON with one spelling for one value."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1).encode()


def digest(value: Any) -> str:
    """Hash of a JSON value."""
    return hashlib.sha256(canonical(value)).hexdigest()


def parse_commit(data: bytes, url: str) -> Commit:
    """Read a commit.

    Raises
    ------
    SchemaVersionError
        A newer package wrote it.
    CollectionError
        It is damaged.
    """
    try:
        found = json.loads(data)
        if found["format"] != FORMAT:
            raise CollectionError(f"{found['format']!r} is not {FORMAT!r}", url=url)
        schema.check_version(found["version"], VERSION, "this commit", url)
        schema.check_version(
            found["document"].get("schema_version"), schema.VERSION, "this collection", url
        )
        parts = tuple(Part(**part) for part in found["parts"])
        keys = ("number", "name", "identity", "arguments", "directory", "document", "report")
        return Commit(parts=parts, **{key: found[key] for key in keys})
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CollectionError(f"a damaged commit: {error!r}", url=url) from None


def commit_numbers(place: Place) -> list[int]:
    """Numbers of the commits that a place holds, ascending."""
    names = (name.removesuffix(".json") for name in place.list(COMMITS) if name.endswith(".json"))
    return sorted(int(name) for name in names if name.isdigit())


def is_begun(place: Place) -> bool:
    """Whether somebody builds, or has built, a collection of ours here."""
    return bool(place.below(PARTS).folders())


def commit_file(number: int) -> str:
    """Where a commit lies below the collection."""
    return f"{COMMITS}/{number:08d}.json"


def read_commit(place: Place, number: int | None = None) -> Commit | None:
    """A commit by number, the newest by default; None when there is none.

    Raises
    ------
    CollectionError
        It is damaged; `SchemaVersionError` when a newer package wrote it.
    """
    if number is None:
        numbers = commit_numbers(place)
        if not numbers:
            return None
        number = numbers[-1]
    data = place.read(commit_file(number))
    return None if data is None else parse_commit(data, place.join(commit_file(number)))


def write_commit(place: Place, commit: Commit) -> Commit:
    """Make a commit the newest, then let its parts be seen by other readers.

    Returns
    -------
    Commit
        The one that stands: another builder's, when that one made the same of the same arguments.

    Raises
    ------
    CommitConflictError
        Another builder committed something else under this number.
    """
    if not place.create(commit_file(commit.number), commit.to_json()):
        standing = read_commit(place, commit.number)
        if standing is None or standing.to_json() != commit.to_json():
            raise CommitConflictError(
                f"another builder made commit {commit.number} of {commit.name!r} first",
                url=place.url,
                hint="build again: what was fetched is kept and will be used",
            )
    publish(place, commit)
    place.sweep()
    return commit


def publish(place: Place, commit: Commit) -> None:
    """Make the parts of a commit appear in its directory, and point to it; done again, it changes
    nothing."""
    while True:
        there = place.list(commit.directory)
        for part in commit.parts:
            target = f"{part.name}.parquet"
            if target not in there:
                place.share(part.file, f"{commit.directory}/{target}")
        pointer = canonical({"commit": commit.number, "directory": commit.directory, "version": 1})
        if commit_numbers(place)[-1:] != [commit.number] or place.read(POINTER) == pointer:
            return
        place.replace(POINTER, pointer)
        # Another builder may have committed and moved the pointer between the look and the move.
        newer = read_commit(place)
        if newer is None or newer.number <= commit.number:
            return
        commit = newer


# --- what a part covers --------------------------------------------------------------------------
def part_stats(table: pa.Table) -> dict[str, Any]:
    """Statistics by which a whole part can be passed over without opening it."""
    return {
        "datetime": _span(table.column(schema.DATETIME), table.column(schema.DATETIME)),
        "interval": _span(table.column(schema.START), table.column(schema.END)),
        "bbox": _covered(table.column(schema.BBOX)),
        "crs": sorted(c for c in pc.unique(table.column(schema.CRS)).to_pylist() if c),
        "cloud_null": table.column(schema.CLOUD_COVER).null_count,
        "in_order": _ordered(table),
    }


STATS_COLUMNS: Final = (
    schema.ID,
    schema.DATETIME,
    schema.START,
    schema.END,
    schema.BBOX,
    schema.CRS,
    schema.CLOUD_COVER,
)
"""What `part_stats` needs of a table."""


def _span(first: pa.ChunkedArray, last: pa.ChunkedArray) -> list[str] | str | None:
    """First and last moment; ``none`` when all are null, None when some are and nothing can be
    promised."""
    if first.null_count == last.null_count == len(first):
        return "none"
    if first.null_count or last.null_count:
        return None
    return [pc.min(first).as_py().isoformat(), pc.max(last).as_py().isoformat()]


def _ordered(table: pa.Table) -> bool:
    """Whether the rows are in the order (datetime, id)."""
    keys = [(schema.DATETIME, "ascending"), (schema.ID, "ascending")]
    order = pc.sort_indices(table.select([schema.DATETIME, schema.ID]), sort_keys=keys)
    return bool((np.diff(order.to_numpy()) > 0).all())


def _covered(boxes: pa.ChunkedArray) -> list[float] | None:
    column = {n: pc.struct_field(boxes, n) for n in ("xmin", "ymin", "xmax", "ymax")}
    crosses = pc.any(pc.greater(column["xmin"], column["xmax"])).as_py()
    if crosses or column["xmin"].null_count:
        return None
    low, high = pc.min, pc.max
    return [
        low(column["xmin"]).as_py(),
        low(column["ymin"]).as_py(),
        high(column["xmax"]).as_py(),
        high(column["ymax"]).as_py(),
    ]
