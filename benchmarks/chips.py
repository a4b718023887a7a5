"""W9, chips for training: ``python -m benchmarks.chips``; needs TorchGeo (``docs/torchgeo.md``).

The same random chips of the same files, by TorchGeo's own ``RasterDataset`` and by this package, each in a fresh process: from making the
dataset to the first batch, and chips a second over all batches.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.child import cpu_seconds, peak_memory
from benchmarks.data import BANDS, CORNERS, SIDE, Scene, aliases, folder, generate, scenes
from benchmarks.peers import GDAL

CASES = ("torchgeo-0", "torchgeo-2", "ours-0", "ours-2", "ours-ahead")
"""Library, and worker processes; ``ahead``: threads of the same process (``ChipLoader``)."""


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
    import pandas as pd
    from torchgeo.datasets import RasterDataset

    class Sentinel2(RasterDataset):  # type: ignore[misc]
        filename_regex = r"S2A_\d+_\w+_(?P<date>\d{8})_(?P<band>B\d\d)\.tif"
        separate_files = True
        all_bands = BANDS

        def __getitem__(self, query: Any) -> Any:
            x, y, t = query
            # An instant meets no file in TorchGeo 0.8: give it the day.
            day = pd.Timestamp(t.start).normalize()
            return super().__getitem__((x, y, slice(day, day + pd.Timedelta("1D"))))

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
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "torchgeo"))
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

    # Imports are nobody's work.
    for module in ("rasteret_dask.api", "rasteret_dask.integrations.torchgeo", "rasterio.merge"):
        importlib.import_module(module)
    library, _, how = options.child.partition("-")
    made = named(options.variant, options.scenes)
    asked = chips(made, options.chips, options.size)
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
            collate_fn=stack_samples,
        )
    first, crc = None, 0
    batches = iter(loader)
    for batch in batches:
        if first is None:
            first = time.perf_counter() - started
        if len(batch["image"]) == 0:
            break
        crc = zlib.crc32(batch["image"].float().numpy(), crc)
        last, busy = time.perf_counter() - started, cpu_seconds() - cpu
    print(
        json.dumps({"first": first, "wall": last, "cpu": busy, "rss": peak_memory(), "crc": crc}),
        flush=True,
    )


def measure(case: str, options: argparse.Namespace, root: str, where: str) -> dict[str, Any]:
    """One case in a fresh process."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.chips", "--child", case]
    for name in ("variant", "scenes", "chips", "size", "batch", "ahead"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--root", root, "--collections", where]
    environment = {**os.environ, **{name: str(value) for name, value in GDAL.items()}}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("READY"):
        raise RuntimeError(process.communicate()[1])
    options.before()
    out, error = process.communicate("\n")
    if process.returncode != 0:
        raise RuntimeError(error)
    return json.loads(out.splitlines()[-1])  # type: ignore[no-any-return]


def say(where: str, case: str, got: dict[str, Any], options: argparse.Namespace) -> None:
    rate = options.chips / got["wall"]
    print(
        f"| {where} | {case} | {got['first']:.2f} | {rate:.1f} | {got['cpu']:.1f} | "
        f"{got.get('requests', '')} | {got['rss'] / 1e6:.0f} | {got['same']} |",
        flush=True,
    )


def campaign(options: argparse.Namespace) -> None:
    import rasteret_dask as rd
    from rasteret_dask.testing.server import RangeServer

    data = folder(options.data)
    generate(data, (options.variant,))
    made = named(options.variant, options.scenes)
    print("| server | case | first batch s | chips/s | CPU s | requests | MB | pixels |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="w9-") as scratch,
        RangeServer(data, aliases=aliases(made)) as server,
    ):
        for latency in options.latency:
            local = latency < 0
            root, home = (scratch if local else server.url), f"{scratch}/c{latency}"
            if local:
                for name, file in aliases(made).items():
                    link = Path(scratch, name)
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(data / file)
            rd.build_from_items([s.stac(root) for s in made], name="w9", workspace_dir=home)
            server.configure(latency=max(0, latency) / 1000)
            options.before = server.reset
            reference = None
            for case in options.cases:
                got = measure(case, options, root, home)
                if not local:
                    got["requests"] = server.counters().requests
                reference = got["crc"] if reference is None else reference
                got["same"] = "equal" if got["crc"] == reference else "differ"
                say("local files" if local else f"{latency} ms", case, got, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data")
    parser.add_argument("--variant", default="s2")
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--chips", type=int, default=96)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--ahead", type=int, default=3)
    parser.add_argument(
        "--latency", type=int, nargs="+", default=[-1, 0, 20, 100], help="ms; -1: local files"
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    parser.add_argument("--collections", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
    else:
        campaign(options)


if __name__ == "__main__":
    main()
