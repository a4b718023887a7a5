"""Who takes part in a race for a collection: two processes that build, append or refresh at one moment, and two readers who look."""

from __future__ import annotations

import io
import json
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import pyarrow.parquet as pq

import rasteret_dask as rd
from rasteret_dask.errors import BuildMismatchError, CollectionError, CommitConflictError
from rasteret_dask.index.commit import POINTER
from rasteret_dask.index.place import Place
from rasteret_dask.ingest import cut
from rasteret_dask.testing.stores import Store

BAND = "red"
TOLD = (CommitConflictError, BuildMismatchError)
Ids = frozenset[str]


class Lost(Exception):
    """A race ended as none may."""


# --- rivals: processes that do as they are told, at one moment -----------------------------------
def rival(orders: Connection, gate: Any) -> None:
    cut.slice_rows = lambda count, bands: 2
    while (order := orders.recv()) is not None:
        what, store, name, items = order
        gate.wait()
        try:
            done = WORK[what](store, name, items)
            requests = -1 if done.report is None else done.report.requests
            orders.send(("won", len(done), requests))
        except TOLD as error:
            orders.send(("told", type(error).__name__, 0))
        except Exception as error:
            orders.send(("broken", f"{type(error).__name__}: {error}", 0))


def build(store: Store, name: str, items: Sequence[Any]) -> rd.Collection:
    return rd.build_from_items(items, name=name, workspace_dir=store.url, storage=store.storage)


def append(store: Store, name: str, items: Sequence[Any]) -> rd.Collection:
    return rd.load(f"{store.url}/{name}", storage=store.storage).append(items)


def refresh(store: Store, name: str, items: Sequence[Any]) -> rd.Collection:
    return rd.load(f"{store.url}/{name}", storage=store.storage).refresh()


WORK: dict[str, Callable[[Store, str, Sequence[Any]], rd.Collection]] = {
    "build": build,
    "append": append,
    "refresh": refresh,
}


class Rivals:
    """Two processes.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        context = multiprocessing.get_context("spawn")
        self.gate = gate = context.Barrier(2)  # spawned processes look for it by name
        self.lines: list[Connection] = []
        self.processes = []
        for _ in range(2):
            mine, theirs = context.Pipe()
            process = context.Process(target=rival, args=(theirs, gate), daemon=True)
            process.start()
            self.lines.append(mine)
            self.processes.append(process)

    def race(self, what: str, name: str, items: Sequence[Sequence[Any]]) -> list[Any]:
        for line, own in zip(self.lines, items, strict=True):
            line.send((what, self.store, name, own))
        ends = [line.recv() for line in self.lines]
        broken = [end[1] for end in ends if end[0] == "broken"]
        if broken:
            raise Lost(f"{what} of {name}: {broken[0]}")
        return ends

    def close(self) -> None:
        for line, process in zip(self.lines, self.processes, strict=True):
            line.send(None)
            process.join()


# --- readers -------------------------------------------------------------------------------------
@dataclass
class Reader:
    """Looks at a collection from its own thread until it is stopped, and keeps what was wrong."""

    look: Callable[[], Any]
    allowed: Callable[[Any], bool]
    looks: int = 0
    wrong: list[str] = field(default_factory=list)

    def run(self, over: threading.Event) -> None:
        while True:
            last = over.is_set()
            try:
                seen = self.look()
            except Exception as error:  # whatever a reader meets is an answer of the race
                self.wrong.append(f"{type(error).__name__}: {error}")
            else:
                if seen is not None:
                    self.looks += 1
                    if not self.allowed(seen):
                        self.wrong.append(f"saw {seen}")
            if last:
                return


Seen = tuple[Ids, frozenset[str]]
"""Ids, and ETags of their files."""


def rows(tables: Sequence[Any]) -> Seen:
    ids = [one for table in tables for one in table.column("id").to_pylist()]
    if len(set(ids)) != len(ids):
        raise Lost(f"rows twice: {sorted(ids)}")
    heads = [m for t in tables for m in t.column(f"{BAND}_metadata").to_pylist()]
    return frozenset(ids), frozenset(head["etag"] for head in heads)


def ours(store: Store, name: str) -> Seen | None:
    try:
        found = rd.load(f"{store.url}/{name}", storage=store.storage)
    except CollectionError as error:
        if "no collection" in str(error):
            return None
        raise
    return rows([found.to_table(["id", f"{BAND}_metadata"])])


def globbing(store: Store, name: str) -> Seen | None:
    """As any program does that was pointed at a directory."""
    place = Place(f"{store.url}/{name}", store.storage)
    pointer = place.read(POINTER)
    if pointer is None:
        return None
    directory = json.loads(pointer)["directory"]
    files = [one for one in place.list(directory) if one.endswith(".parquet")]
    data = [place.read(f"{directory}/{one}") for one in sorted(files)]
    return rows([pq.read_table(io.BytesIO(one or b"")) for one in data])


@contextmanager
def watched(
    store: Store, name: str, exact: Callable[[Seen], bool], some: Callable[[Seen], bool]
) -> Iterator[list[Reader]]:
    """Readers at work; ours must see what is `exact`, the globbing one `some` of it."""
    readers = [
        Reader(lambda: ours(store, name), exact),
        Reader(lambda: globbing(store, name), some),
    ]
    over = threading.Event()
    threads = [threading.Thread(target=reader.run, args=(over,)) for reader in readers]
    for thread in threads:
        thread.start()
    try:
        yield readers
    finally:
        over.set()
        for thread in threads:
            thread.join()
    for reader, who in zip(readers, ("ours", "globbing"), strict=True):
        if reader.wrong:
            raise Lost(f"{name}: {who} reader: {reader.wrong[0]}")
