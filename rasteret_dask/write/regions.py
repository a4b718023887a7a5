"""Which regions of a store are written: small files beside it, one a region.

A chunk that is all nothing is not stored, so the chunks themselves cannot say. See
``docs/formats.md``, "Region markers".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from rasteret_dask.errors import SchemaVersionError
from rasteret_dask.write.target import resolve

VERSION = 1
FORMAT = "rasteret-dask regions"
_LAYOUT = "layout.json"
_PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial$")

Index = tuple[int, ...]
Key = tuple[str, Index]


@dataclass(frozen=True, slots=True)
class Layout:
    """Into which regions a store falls, and of what cube.

    Parameters
    ----------
    digest : str
        Of the arrays, their shards and the fingerprint of what is computed.
    count : int
        Regions.
    """

    digest: str
    count: int

    def document(self) -> dict[str, Any]:
        """As it is written."""
        return {"format": FORMAT, "version": VERSION, "digest": self.digest, "count": self.count}


def layout(
    arrays: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], str]], fingerprint: str
) -> Layout:
    """The layout of a store.

    Parameters
    ----------
    arrays : mapping of str to (shape, shards, dtype)
    fingerprint : str
        Of what is computed.
    """
    said = json.dumps([VERSION, sorted(arrays.items()), fingerprint])
    grids = {(shape, shards) for shape, shards, _ in arrays.values()}
    count = sum(
        prod(ceil(n / size) if size else 0 for n, size in zip(shape, shards, strict=True))
        for shape, shards in grids
    )
    return Layout(hashlib.sha256(said.encode()).hexdigest(), count)


def beside(store: str) -> str:
    """Where the markers of a store lie."""
    return f"{store.rstrip('/')}.regions"


def sweep(store: str) -> None:
    """Remove what a killed writer had half written on local disk, once nobody writes there any more; zarr gives it names of its own."""
    fs, path = resolve(store)
    if isinstance(fs, LocalFileSystem):
        for found in Path(path).rglob("*.partial"):
            if _PARTIAL.search(found.name):
                found.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Journal:
    """The markers of one store; picklable.

    Parameters
    ----------
    url : str
        The folder they lie in; gone once the store is whole.
    """

    url: str

    def read(self, wanted: Layout) -> frozenset[Key] | None:
        """Regions that are written; None when there is no journal, or it is of another cube.

        Raises
        ------
        SchemaVersionError
            A newer version of this package wrote it.
        """
        fs, path = resolve(self.url)
        if not fs.exists(f"{path}/{_LAYOUT}"):
            return None
        try:
            found = json.loads(fs.cat_file(f"{path}/{_LAYOUT}"))
        except ValueError:  # broken off while it was written
            return None
        if found.get("version", 0) > VERSION:
            raise SchemaVersionError(
                f"the region markers are of version {found['version']}; {VERSION} is known",
                url=self.url,
            )
        if found != wanted.document():
            return None
        fs.invalidate_cache()
        names = [entry.rsplit("/", 1)[-1] for entry in fs.ls(path, detail=False)]
        return frozenset(_key(name) for name in names if name.endswith(".done"))

    def begun(self) -> bool:
        """Whether a write has begun here, of whatever cube, and has not come to its end."""
        fs, path = resolve(self.url)
        return bool(fs.exists(f"{path}/{_LAYOUT}"))

    def begin(self, wanted: Layout) -> None:
        """Forget what was there, and write down the layout."""
        self.end()
        fs, path = resolve(self.url)
        fs.makedirs(path, exist_ok=True)
        fs.pipe_file(f"{path}/{_LAYOUT}", json.dumps(wanted.document()).encode())

    def mark(self, name: str, index: Index) -> None:
        """Say that a region is stored: `name` is the first of the variables it holds."""
        fs, path = resolve(self.url)
        fs.pipe_file(f"{path}/{name}@{'.'.join(map(str, index))}.done", b"1")

    def end(self) -> None:
        """Remove all markers; the layout first, so that half of them are never taken for all."""
        fs, path = resolve(self.url)
        if fs.exists(path):
            if fs.exists(f"{path}/{_LAYOUT}"):
                fs.rm_file(f"{path}/{_LAYOUT}")
            fs.rm(path, recursive=True)


def _key(name: str) -> Key:
    variable, _, index = name.removesuffix(".done").rpartition("@")
    return variable, tuple(int(part) for part in index.split(".") if part)
