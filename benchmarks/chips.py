"""W9, chips for training: ``python -m benchmarks.chips``; needs TorchGeo (``docs/torchgeo.md``).

The same random chips of the same files, by TorchGeo's own ``RasterDataset`` and by this package, each in a fresh process: from making the
dataset to the first batch, and chips a second over all batches.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.child import cpu_seconds, peak_memory
from benchmarks.data import BANDS, CORNERS, SIDE, Scene, aliases, folder, generate, scenes
from benchmarks.measure import Got, finish, wait
from benchmarks.peers import GDAL
from benchmarks.record import Key, Record

NAMES = {
    "torchgeo-0": "`RasterDataset`",
    "torchgeo-2": "`RasterDataset`, 2 workers",
    "ours-0": "this package",
    "ours-2": "this package, 2 workers",
    "ours-ahead": "`ChipLoader`",
}
CASES = tuple(NAMES)
"""Library, and worker processes; ``ahead``: threads of the same process (``ChipLoader``)."""

HELP = str(Path(__file__).resolve().parents[1] / "tests" / "torchgeo")
IMPORTED = (
    "rasteret_dask.api",
    "rasteret_dask.integrations.torchgeo",
    "rasterio.merge",
    "benchmarks.raster_dataset",
)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "torchgeo.md"
MARKS = ("<!-- W9 -->", "<!-- /W9 -->")


def named(variant: str, count: int) -> list[Scene]:
    """Scenes whose files have names in which TorchGeo finds date and band."""
    return [
        replace(scene, paths={band: f"w9/{variant}/{scene.id}_{band}.tif" for band in BANDS})
        for scene in scenes(variant, count)
    ]


def chips(made: list[Scene], count: int, size: int) -> list[Any]:
    """Random chips on whole pixels, as queries."""
    import pandas as pd

    random = np.random.default_rng(9)
    left, top = CORNERS[32633]
    out = []
    for _ in range(count):
        row, col = random.integers(0, SIDE - size, 2)
        when = pd.Timestamp(made[random.integers(len(made))].when)
        x, y = left + 10.0 * col, top - 10.0 * row
        out.append((slice(x, x + 10.0 * size), slice(y - 10.0 * size, y), slice(when, when)))
    return out


def torchgeo_dataset(root: str, made: list[Scene]) -> Any:
    """TorchGeo's own, GDAL tuned for the cloud."""
    from benchmarks.raster_dataset import Sentinel2

    remote = root.startswith("http")
    first = [scene.paths[BANDS[0]] for scene in made]
    return Sentinel2([f"/vsicurl/{root}/{p}" if remote else f"{root}/{p}" for p in first])


def load_torchgeo() -> None:
    """Import it; beside a CPU build of torch that takes the tests' help.

    Raises
    ------
    ModuleNotFoundError
        Naming what is not installed.
    """
    sys.path.insert(0, HELP)
    importlib.import_module("vision")
    importlib.import_module("torchgeo.datasets")


def ours_dataset(collections: str) -> Any:
    import rasteret_dask as rd
    from rasteret_dask.integrations.torchgeo import to_torchgeo_dataset

    return to_torchgeo_dataset(rd.load("w9", workspace_dir=collections), list(BANDS))


def child(options: argparse.Namespace) -> None:
    """Measure one case in this process."""
    load_torchgeo()
    from torch.utils.data import DataLoader
    from torchgeo.datasets import stack_samples

    from rasteret_dask.integrations.chiploader import ChipLoader

    # Imports are nobody's work, in workers neither.
    for module in IMPORTED:
        importlib.import_module(module)
    # Forked from this process, two workers would share the connections that GDAL opened for the index, and read each other's answers.
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["vision", *IMPORTED])
    warm = start.Process(target=int)
    warm.start()
    warm.join()
    library, _, how = options.child.partition("-")
    made = named(options.variant, options.scenes)
    asked = chips(made, options.chips, options.size)
    # Nothing is done again in between: this work takes seconds, a slow start milliseconds.
    for _ in ("loaded", "memory touched"):
        print("READY", flush=True)
        sys.stdin.readline()
    cpu, started = cpu_seconds(), time.perf_counter()
    if library == "ours":
        dataset = ours_dataset(options.collections)
    else:
        dataset = torchgeo_dataset(options.root, made)
    if how == "ahead":
        loader: Any = ChipLoader(dataset, asked, options.batch, ahead=options.ahead)
    else:
        loader = DataLoader(
            dataset,
            sampler=asked,
            batch_size=options.batch,
            num_workers=int(how),
            multiprocessing_context=start if int(how) else None,
            collate_fn=stack_samples,
        )
    first, crc = None, 0
    batches = iter(loader)
    for batch in batches:
        if first is None:
            first = time.perf_counter() - started
        crc = zlib.crc32(batch["image"].float().numpy(), crc)
        last, busy = time.perf_counter() - started, cpu_seconds() - cpu
    print(
        json.dumps({"first": first, "wall": last, "cpu": busy, "rss": peak_memory(), "crc": crc}),
        flush=True,
    )


def measure(case: str, options: argparse.Namespace, root: str, home: str, server: Any) -> Got:
    """One case in a fresh process; a string says why there is no measurement."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.chips", "--child", case]
    for name in ("variant", "scenes", "chips", "size", "batch", "ahead"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--root", root, "--collections", home]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            **{name: str(value) for name, value in GDAL.items()},
            "PYTHONPATH": os.pathsep.join([HELP, os.environ.get("PYTHONPATH", "")]),
        },
        # A DataLoader's workers end with it.
        start_new_session=True,
    )
    try:
        why = wait(process)
        return why if why is not None else finish(server, process, "W9", options.limit)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def campaign(record: Record, options: argparse.Namespace) -> None:
    """Round after round, case after case, so that all meet the same weather; goes on where the record ends."""
    import rasteret_dask as rd
    from rasteret_dask.testing.server import RangeServer

    data = folder(options.data)
    generate(data, (options.variant,))
    made = named(options.variant, options.scenes)
    with (
        tempfile.TemporaryDirectory(prefix="w9-") as scratch,
        RangeServer(data, aliases=aliases(made)) as server,
    ):
        for name, file in aliases(made).items():
            link = Path(scratch, name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(data / file)
        roots = {latency: scratch if latency < 0 else server.url for latency in options.latency}
        for latency, root in roots.items():
            items = [scene.stac(root) for scene in made]
            rd.build_from_items(items, name="w9", workspace_dir=f"{scratch}/c{latency}")
        turns = [
            (n, at, case) for n in range(options.rounds) for at in roots for case in options.cases
        ]
        for turn, latency, case in turns:
            key = Key(options.variant, "W9", latency, case)
            if len(record.of(key)) > turn:
                continue
            server.configure(latency=max(0, latency) / 1000)
            got = measure(case, options, roots[latency], f"{scratch}/c{latency}", server)
            record.add(key, got)
            told = got if isinstance(got, str) else f"{options.chips / got['wall']:.1f} chips/s"
            print(f"round {turn + 1}, {place(latency)}, {case}: {told}", flush=True)


def place(latency: int) -> str:
    """Where the files are."""
    return "local files" if latency < 0 else f"HTTP, {latency} ms"


def table(record: Record, chips: int) -> str:
    """Medians over the rounds; a factor is chips a second over TorchGeo's in one process."""
    lines = [
        "| files | | first batch, s | chips/s | | CPU, s | requests | MB | memory, MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    keys = [key for key in record.cells() if key.workload == "W9"]
    crcs = {got["crc"] for key in keys for got in record.of(key) if isinstance(got, dict)}
    for latency in dict.fromkeys(key.latency for key in keys):
        rows = [key for key in keys if key.latency == latency]
        theirs = record.median(replace(rows[0], tool=CASES[0]), "wall")
        for number, key in enumerate(rows):
            lines.append(_row(record, key, chips, theirs, place(latency) if number == 0 else ""))
    rounds = max((len(record.of(key)) for key in keys), default=0)
    same = "Pixels of all cases are equal." if len(crcs) == 1 else "**Pixels differ.**"
    said = f"{record.where}; {chips} chips, medians of {rounds} round{'s' * (rounds > 1)}. {same}"
    return "\n".join([*lines, "", said, *_failures(record, keys)])


def _failures(record: Record, keys: list[Key]) -> list[str]:
    found = []
    for key in keys:
        said = [got for got in record.of(key) if isinstance(got, str)]
        if said:
            many = f"{len(said)} of {len(record.of(key))} rounds failed"
            found.append(f"- {NAMES[key.tool]}, {place(key.latency)}: {many} ({said[0]})")
    return ["", *found] if found else []


def _row(record: Record, key: Key, chips: int, theirs: float | None, where: str) -> str:
    wall = record.median(key, "wall")
    if wall is None:
        return f"| {where} | {NAMES[key.tool]} | – | – | | | | | |"
    numbers = {n: record.median(key, n) or 0 for n in ("first", "cpu", "requests", "bytes", "rss")}
    factor = f"{theirs / wall:.1f} ×" if theirs else ""
    asked = (
        f"{numbers['requests']:.0f} | {numbers['bytes'] / 1e6:.0f}"
        if numbers["requests"]
        else " | "
    )
    return (
        f"| {where} | {NAMES[key.tool]} | {numbers['first']:.2f} | {chips / wall:.1f} | {factor} | "
        f"{numbers['cpu']:.1f} | {asked} | {numbers['rss'] / 1e6:.0f} |"
    )


def write(text: str) -> None:
    """Put the table into the page, between its marks."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    PAGE.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="where the images are")
    parser.add_argument("--variant", default="s2")
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--chips", type=int, default=96)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--ahead", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one measurement")
    parser.add_argument(
        "--latency", type=int, nargs="+", default=[-1, 0, 20, 100], help="ms; -1: local files"
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--json", type=Path, help="keep the numbers here, and go on from them")
    parser.add_argument("--page", action="store_true", help=f"write the table into {PAGE.name}")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    parser.add_argument("--collections", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    record = Record.at(options.json, "python -m benchmarks.chips")
    campaign(record, options)
    text = table(record, options.chips)
    print(f"\n{text}")
    if options.page:
        write(text)


if __name__ == "__main__":
    main()
