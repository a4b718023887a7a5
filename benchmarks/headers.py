"""What W6 is made of: ``python -m benchmarks.headers [--latency MS] [--rounds N]``.

Each stage by itself, in turns, in one process that has done all of it before: the least CPU time of some rounds. The floor's
requests are bare sockets and threads; everything else is this package's own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rasteret_dask as rd
from benchmarks import floor
from benchmarks.data import aliases, folder, generate
from benchmarks.workloads import make
from rasteret_dask.index import schema
from rasteret_dask.index.place import Place
from rasteret_dask.ingest.build import make_document
from rasteret_dask.ingest.choice import BandChoice
from rasteret_dask.ingest.cut import cut
from rasteret_dask.ingest.headers import FIRST_READ, fetch_headers
from rasteret_dask.ingest.parts import make_table, write_part
from rasteret_dask.ingest.records import sort_records
from rasteret_dask.ingest.slices import header_band
from rasteret_dask.storage.loop import run
from rasteret_dask.storage.source import read_range
from rasteret_dask.testing.server import RangeServer
from rasteret_dask.tiff.header import Segments, parse


def stages(root: str, scratch: Path) -> dict[str, Callable[[], Any]]:
    """Every stage, ready to be run alone."""
    work = make("W6")
    items = [scene.stac(root) for scene in work.scenes]
    urls = [asset["href"] for item in items for asset in item["assets"].values()]
    choice = BandChoice()
    infos = choice.infos(items)

    async def requests() -> list[Any]:
        found, waiting = [], iter(urls)

        async def some() -> None:
            for url in waiting:
                found.append(await read_range(url, 0, FIRST_READ))

        await asyncio.gather(*(some() for _ in range(64)))
        return found

    answers = run(requests())
    headers = dict(zip(urls, run(fetch_headers(urls)), strict=True))
    records = sort_records(choice.records(items, infos))
    document = make_document("w6", None, infos)
    made = schema.make_schema([band.name for band in infos], document)

    def rows() -> Any:
        bands = {
            (record.id, ref.band): header_band(headers[ref.url], ref.index)
            for record in records
            for ref in record.assets
        }
        return make_table(records, made, bands)

    table = rows()

    def write() -> None:
        with tempfile.TemporaryDirectory(dir=scratch) as where:
            write_part(Place(where), "part", table, {})

    def names() -> None:
        sorted(json.dumps(item, sort_keys=True, default=str) for item in items)
        cut(records, infos, document)

    def whole() -> None:
        with tempfile.TemporaryDirectory(dir=scratch) as where:
            rd.build_from_items(items, name="w6", workspace_dir=where)

    floor_job = floor.prepare(work, root)
    return {
        "the floor: bare sockets, nothing parsed": floor_job.run,
        "requests (checked, counted, limited, retried)": lambda: run(requests()),
        "requests and headers": lambda: run(fetch_headers(urls)),
        "items to records": lambda: sort_records(choice.records(items, choice.infos(items))),
        "names of slices and of the build": names,
        "rows": rows,
        "Parquet": write,
        "the whole build": whole,
        "(480 headers parsed one by one)": lambda: [
            parse(Segments(((0, bytes(a.data)),), a.size)) for a in answers
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0, help="ms a request")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--data", default=None)
    options = parser.parse_args()
    data = folder(options.data)
    generate(data)
    best: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory() as scratch,
        RangeServer(data, aliases=aliases([*make("W6").scenes])) as server,
    ):
        server.configure(latency=options.latency / 1000)
        jobs = stages(server.url, Path(scratch))
        jobs["the whole build"]()
        for _ in range(options.rounds):
            for name, job in jobs.items():
                gc.collect()
                cpu, wall = time.process_time(), time.perf_counter()
                job()
                took = time.process_time() - cpu, time.perf_counter() - wall
                best[name] = [min(a, b) for a, b in zip(best.get(name, took), took, strict=True)]
    told = ("requests and headers", "items to records", "names of slices and of the build")
    rest = best["the whole build"][0] - sum(best[n][0] for n in (*told, "rows", "Parquet"))
    print("| stage | CPU ms | wall ms |\n|---|---|---|")
    for name, (cpu, wall) in best.items():
        print(f"| {name} | {cpu * 1e3:.0f} | {wall * 1e3:.0f} |")
        if name == "Parquet":
            print(f"| Dask, commit and what is left | {rest * 1e3:.0f} | |")


if __name__ == "__main__":
    main()
