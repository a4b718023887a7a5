"""Races for one collection: ``python -m benchmarks.races --tries 300 --store disk|s3|azure``.

Two processes build, append or refresh at once, or three threads commit, again and again. One wins, the other says so and loses nothing:
what it fetched is used when it tries again. Meanwhile two readers look: ours, which follows commits, and one that knows nothing
of them and reads every Parquet file of the directory that foreign readers are pointed at. Neither may ever meet a torn,
duplicate, superseded or uncommitted row. Ends with an error if one did.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rivals import (
    BAND,
    Ids,
    Lost,
    Reader,
    Rivals,
    Seen,
    append,
    build,
    globbing,
    ours,
    watched,
)
from rasteret_dask.errors import CommitConflictError
from rasteret_dask.index.commit import Commit, commit_numbers, read_commit, write_commit
from rasteret_dask.index.place import Place
from rasteret_dask.ingest import cut
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.stores import Store, azure, s3

ITEMS, MORE = 6, 3


# --- races ---------------------------------------------------------------------------------------
class Campaign:
    """Races in one store.

    Parameters
    ----------
    store : Store
    folder : Path
        For the rasters.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.rivals = Rivals(store)
        self.counts: Counter[str] = Counter()
        cut.slice_rows = lambda count, bands: 2

    def raster(self, name: str, value: int) -> Path:
        path = self.folder / f"{name}.tif"
        corner = (10.0, 0.0, 500000.0, 0.0, -10.0, 5200000.0)
        pixels = np.full((32, 32 + 16 * value), value, "uint16")
        make_cog(path, pixels, transform=corner, crs="EPSG:32633", blocksize=16)
        return path

    def items(self, name: str, first: int, count: int) -> list[dict[str, Any]]:
        href = str(self.folder / f"{name}.tif")
        return [
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": f"s{k:03d}",
                "bbox": [15.0, 46.9, 15.01, 46.91],
                "geometry": None,
                "properties": {"datetime": f"2023-01-01T00:{k:02d}:00Z"},
                "links": [],
                "assets": {BAND: {"href": href, "type": "image/tiff"}},
            }
            for k in range(first, first + count)
        ]

    def run(self, kind: str, number: int) -> None:
        name = f"{kind}{number}"
        self.raster(name, 1)
        looks: list[Reader] = getattr(self, f"race_{kind}")(name)
        for reader, who in zip(looks, ("looks of ours", "looks of the globbing"), strict=False):
            self.counts[who] += reader.looks
        self.counts[kind] += 1

    def both(self, name: str, ends: Sequence[Any], winners: int, expected: Sequence[Ids]) -> Ids:
        if sum(end[0] == "won" for end in ends) != winners:
            raise Lost(f"{name}: {ends}")
        final = [ours(self.store, name), globbing(self.store, name)]
        if final[0] is None or final[0] != final[1] or final[0][0] not in expected:
            raise Lost(f"{name}: {ends}, in the end {final}")
        return final[0][0]

    def race_same(self, name: str) -> list[Reader]:
        """One build twice at once is one build."""
        items = self.items(name, 0, ITEMS)
        whole = ids(items)
        right = lambda seen: seen[0] == whole  # noqa: E731
        with watched(self.store, name, right, right) as looks:
            ends = self.rivals.race("build", name, [items, items])
        self.both(name, ends, 2, [whole])
        return looks

    def race_other(self, name: str) -> list[Reader]:
        """Of two builds that differ one is told, and none of its rows is seen by anybody."""
        items = [self.items(name, 0, ITEMS), self.items(name, 2, ITEMS)]
        sides = [ids(one) for one in items]
        seen: set[Ids] = set()

        def right(found: Seen) -> bool:
            seen.add(found[0])
            return found[0] in sides

        with watched(self.store, name, right, right) as looks:
            ends = self.rivals.race("build", name, items)
        final = self.both(name, ends, 1, sides)
        if seen - {final} or ends[sides.index(final)][0] != "won":
            raise Lost(f"{name}: {ends}, seen {seen}, in the end {final}")
        return looks

    def race_append(self, name: str) -> list[Reader]:
        """Of two appends one may be told; it tries again with what it has fetched, and nothing is lost."""
        base = self.items(name, 0, ITEMS)
        more = [self.items(name, ITEMS, MORE), self.items(name, ITEMS + MORE, MORE)]
        build(self.store, name, base)
        whole = ids(base) | ids(more[0]) | ids(more[1])
        snapshots = [ids(base), ids(base) | ids(more[0]), ids(base) | ids(more[1]), whole]
        with watched(
            self.store, name, lambda s: s[0] in snapshots, lambda s: ids(base) <= s[0] <= whole
        ) as looks:
            ends = self.rivals.race("append", name, more)
            for end, own in zip(ends, more, strict=True):
                if end[0] == "told":
                    self.counts["told and tried again"] += 1
                    again = append(self.store, name, own)
                    if again.report is None or again.report.requests:
                        raise Lost(f"{name}: headers were fetched twice")
        if all(end[0] == "told" for end in ends):
            raise Lost(f"{name}: {ends}")
        self.both(name, ends, sum(end[0] == "won" for end in ends), [whole])
        return looks

    def race_refresh(self, name: str) -> list[Reader]:
        """Nobody sees rows of before beside rows of after."""
        items = self.items(name, 0, ITEMS)
        build(self.store, name, items)
        self.raster(name, 2)
        whole = ids(items)
        right = lambda seen: seen[0] == whole and len(seen[1]) == 1  # noqa: E731
        with watched(self.store, name, right, right) as looks:
            ends = self.rivals.race("refresh", name, [items, items])
        self.both(name, ends, 2, [whole])
        return looks

    def race_commit(self, name: str) -> list[Reader]:
        """Of three commits of one number one stands, and the others are told: eight numbers in turn."""
        place = Place(f"{self.store.url}/{name}", self.store.storage)
        for number in range(1, 9):
            gate = threading.Barrier(3)
            told: list[int] = []

            def commit(who: int, number: int = number, gate: Any = gate, told: Any = told) -> None:
                what = {"schema_version": 1, "bands": []}
                one = Commit(number, "c", str(who), {}, f"data/{who}", what, ())
                gate.wait()
                try:
                    write_commit(place, one)
                except CommitConflictError:
                    told.append(who)

            threads = [threading.Thread(target=commit, args=(who,)) for who in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            standing = read_commit(place)
            stands = None if standing is None else (standing.number, int(standing.identity))
            if stands is None or stands[0] != number or sorted([stands[1], *told]) != [0, 1, 2]:
                raise Lost(
                    f"{name}: of three who wrote commit {number}, {stands} stands and {told} were told"
                )
        if commit_numbers(place) != list(range(1, 9)):
            raise Lost(f"{name}: {commit_numbers(place)}")
        return []


def ids(items: Sequence[Any]) -> Ids:
    return frozenset(item["id"] for item in items)


KINDS = ("same", "other", "append", "refresh", "commit")


def twice_created(log: Path) -> list[str]:
    """Names that azurite's own log says were created more than once: its fault, not ours."""
    said = re.compile(r'PUT (\S+/_rasteret/commits/\S+) HTTP/1.1" 201')
    found = Counter(m[1] for m in map(said.search, log.read_text().splitlines()) if m)
    return [name for name, count in found.items() if count > 1]


def race(store: Store, folder: Path, tries: int, kinds: Sequence[str]) -> int:
    campaign = Campaign(store, folder)
    lost: list[str] = []
    begin = time.perf_counter()
    try:
        for number in range(tries):
            try:
                campaign.run(kinds[number % len(kinds)], number)
            except Lost as error:
                lost.append(str(error))
                print(f"LOST {error}", flush=True)
            if number % 50 == 49:
                print(f"{number + 1} tries, {len(lost)} lost", flush=True)
    finally:
        campaign.rivals.close()
    print(
        f"{store.url.partition(':')[0] if '://' in store.url else 'disk'}: {tries} tries in "
        f"{time.perf_counter() - begin:.0f} s, {len(lost)} lost; "
        + ", ".join(f"{count} {what}" for what, count in sorted(campaign.counts.items()))
    )
    return len(lost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=300)
    parser.add_argument("--store", choices=("disk", "s3", "azure"), default="disk")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    given = parser.parse_args()
    kinds = given.kinds.split(",")
    with tempfile.TemporaryDirectory(prefix="races-") as name:
        folder = Path(name)
        for sub in ("rasters", "store"):
            (folder / sub).mkdir()
        if given.store == "disk":
            lost = race(Store(str(folder / "store")), folder / "rasters", given.tries, kinds)
        else:
            opened = s3() if given.store == "s3" else azure(folder / "store")
            with opened as store:
                lost = race(store, folder / "rasters", given.tries, kinds)
            if given.store == "azure":
                twice = twice_created(folder / "store" / "access.log")
                print(f"commits that the emulator itself created twice: {twice or 'none'}")
    if lost:
        raise SystemExit(f"{lost} races ended as none may")


if __name__ == "__main__":
    main()
