"""Builds killed by ``kill -9`` at random moments: ``python -m benchmarks.kills --tries 300``.

A child of this process builds a collection of 24 files, and is killed at a random moment of the time that a build takes: often
enough amid the write of a part, of the commit, or of what other readers see. Then the build is begun again, and may be killed
again. In the end the bytes are those of a build that nobody disturbed, what readers met before was nothing or the whole, and
headers were read of unfinished slices alone.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import rasteret_dask as rd
from rasteret_dask.errors import CollectionError
from rasteret_dask.ingest import cut
from rasteret_dask.testing.cog import make_cog

ITEMS, ROWS = 24, 3


def items(raster: Path) -> list[dict[str, Any]]:
    return [
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"s{k:03d}",
            "bbox": [15.0, 46.9, 15.01, 46.91],
            "geometry": None,
            "properties": {"datetime": f"2023-01-01T00:{k:02d}:00Z"},
            "links": [],
            "assets": {"red": {"href": str(raster.with_name(f"{k}.tif")), "type": "image/tiff"}},
        }
        for k in range(ITEMS)
    ]


def files(folder: Path) -> dict[str, str]:
    """All that lasts."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "drafts" not in path.parts
    }


def child(given: list[dict[str, Any]], where: Path) -> tuple[int, int]:
    """Start a build in a forked process; its pid, and where it writes how many requests it made."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid:
        os.close(tell)
        return pid, told
    try:
        built = rd.build_from_items(given, name="c", workspace_dir=where)
        requests = 0 if built.report is None else built.report.requests
        os.write(tell, str(requests).encode())
    except Exception:
        traceback.print_exc()
    finally:
        # No part of the parent may end with it.
        os._exit(0)


def finished(where: Path) -> int:
    return len(list((where / "c" / "_rasteret" / "parts").rglob("*.part")))


def seen(where: Path) -> int | None:
    """Rows that a reader meets now, in a process of its own."""
    told, tell = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(tell, str(len(rd.load(where / "c").to_table(["id"]))).encode())
        except CollectionError:
            os.write(tell, b"none")
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(tell)
    os.waitpid(pid, 0)
    answer = os.read(told, 100).decode()
    os.close(told)
    return None if answer == "none" else int(answer or "-1")


class Campaign:
    """Builds of one list of items.

    Parameters
    ----------
    folder : Path
    seed : int
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        corner = (10.0, 0.0, 500000.0, 0.0, -10.0, 5200000.0)
        make_cog(folder / "0.tif", np.ones((64, 64), "uint16"), transform=corner, crs="EPSG:32633")
        for k in range(1, ITEMS):
            os.link(folder / "0.tif", folder / f"{k}.tif")
        self.items = items(folder / "0.tif")
        begin = time.perf_counter()
        self.requests = self.whole(folder / "calm")
        self.seconds = time.perf_counter() - begin
        self.calm = files(folder / "calm" / "c")
        if not self.calm or self.requests < ITEMS:
            raise SystemExit("the calm build has failed")
        self.counts: Counter[str] = Counter()

    def whole(self, where: Path) -> int:
        pid, told = child(self.items, where)
        os.waitpid(pid, 0)
        requests = int(os.read(told, 100) or b"-1")
        os.close(told)
        return requests

    def wait(self, where: Path) -> None:
        """Until a random moment: of the whole build, or of its short part in which it writes."""
        if self.random.random() < 0.3:
            time.sleep(self.random.random() * self.seconds)
            return
        parts, end = self.random.randint(1, ITEMS // ROWS), time.perf_counter() + self.seconds
        while finished(where) < parts and time.perf_counter() < end:
            time.sleep(0.0005)
        time.sleep(self.random.random() * 0.01)

    def one(self, number: int) -> str | None:
        """Kill a build, one to three times, and finish it; what was wrong."""
        where = self.folder / f"try{number}"
        for _ in range(self.random.randint(1, 3)):
            pid, told = child(self.items, where)
            self.wait(where)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(told)
            done, rows = finished(where), seen(where)
            state = "unbegun" if not done else "amid" if rows is None else "committed"
            self.counts[state] += 1
            if rows not in (None, ITEMS):
                return f"a reader met {rows} rows"
        return self.ended(where, seen(where), done, lambda: self.whole(where))

    def ended(
        self, where: Path, rows: int | None, done: int, finish: Callable[[], int]
    ) -> str | None:
        """Finish a build, which had so many parts and rows, and compare the requests of it, and the bytes; what was wrong."""
        slices = ITEMS // ROWS
        expected = 0 if rows is not None else (slices - done) * self.requests // slices
        requests = finish()
        if requests != expected:
            return f"{requests} requests, where {expected} were missing ({done} parts were there)"
        if files(where / "c") != self.calm:
            return "other bytes"
        shutil.rmtree(where)
        return None


def main(
    make: Any = Campaign, tries: int = 300, where: str = "", told: str | None = __doc__
) -> None:
    """Run a campaign of this kind, or of another that is made of a folder and a seed."""
    parser = argparse.ArgumentParser(description=told)
    parser.add_argument("--tries", type=int, default=tries)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    cut.slice_rows = lambda count, bands: ROWS
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        campaign = make(Path(name), given.seed)
        wrong = []
        for number in range(given.tries):
            found = campaign.one(number)
            if found is not None:
                wrong.append(found)
                print(f"WRONG {found}", flush=True)
    print(
        f"{given.tries} builds of {campaign.seconds:.2f} s{where}, {len(wrong)} wrong; killed: "
        + ", ".join(f"{state} {count}" for state, count in sorted(campaign.counts.items()))
    )
    if wrong:
        sys.exit(f"{len(wrong)} builds ended as none may")


if __name__ == "__main__":
    main()
