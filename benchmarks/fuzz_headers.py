"""Mutated TIFF headers must end in a value or in one of our own exceptions, within bounds.

    python benchmarks/fuzz_headers.py --cases 20000

Real files (of a folder, or generated ones) are damaged at random and read: the header, and one tile of
each level. A child process does it under a limit of 256 MiB beyond what the imports take, and some seconds
for each case; whatever is not a header, an array or a RasteretError is printed with the seed that makes it
again, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio

from rasteret_dask.errors import RasteretError
from rasteret_dask.tiff.codecs import decode_tile
from rasteret_dask.tiff.header import MAX_ROUNDS, NeedBytes, Segments, parse
from rasteret_dask.tiff.model import TiffHeader

MEMORY = 256 * 1024 * 1024
SECONDS = 10
LARGEST_SEED = 400_000
LARGEST_TILE = 32 * 1024 * 1024

# Values at which counts and offsets go wrong.
EDGES = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000,
         0xFFFFFFFF, 0x100000000, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)  # fmt: skip
TAGS = (254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325,
        330, 338, 339, 347, 530, 33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113, 50674)  # fmt: skip


class Stuck(BaseException):
    """A case that took too long."""


def seeds(folder: Path | None) -> list[bytes]:
    """Return the files to damage."""
    found = []
    if folder is not None:
        for path in sorted(folder.rglob("*.tif*")):
            if path.stat().st_size <= LARGEST_SEED:
                found.append(path.read_bytes())
    return found or generated()


def generated() -> list[bytes]:
    """Make a few files of different kinds."""
    found = []
    options: tuple[dict[str, Any], ...] = (
        {"compress": "deflate", "predictor": 2, "tiled": True, "blockxsize": 16, "blockysize": 16},
        {"compress": "lzw", "BIGTIFF": "YES", "endianness": "BIG"},
        {
            "compress": "zstd",
            "interleave": "band",
            "tiled": True,
            "blockxsize": 32,
            "blockysize": 16,
        },
        {"compress": "jpeg", "dtype": "uint8"},
        {"nbits": 12, "compress": "packbits"},
        {"compress": "lerc_deflate"},
        {"driver": "COG", "blocksize": 128, "dtype": "uint8"},
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, option in enumerate(options):
            path = Path(folder) / f"{number}.tif"
            profile = {"driver": "GTiff", "dtype": "uint16", "count": 3, "nodata": 0, **option}
            size = 300 if profile["driver"] == "COG" else 50
            profile |= {"height": size, "width": size, "crs": "EPSG:32633"}
            transform = rasterio.Affine(10, 0, 5e5, 0, -10, 5.2e6)
            array = np.arange(3 * size * size).reshape(3, size, size) % 255
            with rasterio.open(path, "w", transform=transform, **profile) as sink:
                sink.write(array.astype(profile["dtype"]))
            found.append(path.read_bytes())
    return found


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Damage a file in one to eight places, most of them in its directories."""
    out = bytearray(data)
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    head = min(len(out), 4096)
    for _ in range(rng.randint(1, 8)):
        kind = rng.random()
        place = rng.randrange(head) if rng.random() < 0.8 else rng.randrange(len(out))
        if kind < 0.3:
            out[place] = rng.randrange(256)
        elif kind < 0.5:
            out[place] ^= 1 << rng.randrange(8)
        elif kind < 0.75:
            width = rng.choice((2, 4, 8))
            value = rng.choice((*EDGES, len(out), len(out) - 1, len(out) + 1)) % (1 << (8 * width))
            out[place : place + width] = value.to_bytes(width, order)
        elif kind < 0.9:
            # A tag where there was none, often in the place of another.
            found = out.find(rng.choice(TAGS).to_bytes(2, order), 4, head)
            if found > 0:
                out[found : found + 2] = rng.choice(TAGS).to_bytes(2, order)
        elif kind < 0.95:
            other = rng.randrange(head)
            out[place : place + 12] = out[other : other + 12]
        else:
            del out[rng.randrange(8, len(out)) :]
        if len(out) < 16:
            break
        head = min(len(out), 4096)
    return bytes(out)


def read_header(data: bytes, rng: random.Random) -> TiffHeader:
    """Parse as a remote file is parsed: a first range, then what is asked for."""
    size = len(data) if rng.random() < 0.7 else None
    first = rng.choice((16, 512, 32768))
    segments = Segments(((0, data[:first]),), size)
    for _ in range(MAX_ROUNDS):
        found = parse(segments)
        if not isinstance(found, NeedBytes):
            return found
        for start, stop in found.ranges:
            piece = data[start:stop]
            if len(piece) < stop - start:
                size = len(data)
            segments = segments.add(start, piece, size)
    raise RasteretError("the header was not complete in time")


def one_case(data: bytes, rng: random.Random) -> str:
    """Read a damaged file; return the name of how it ended."""
    try:
        header = read_header(data, rng)
        for level in (*header.levels, *(mask for mask in header.masks if mask is not None)):
            layout = level.layout
            size = layout.width * layout.height * layout.samples * np.dtype(layout.dtype).itemsize
            if size > LARGEST_TILE or not len(level.offsets):
                continue
            start, count = int(level.offsets[0]), int(level.counts[0])
            if count:
                decode_tile(data[start : start + count], layout)
    except RasteretError as error:
        return type(error).__name__
    return "value"


def campaign(cases: int, seed: int, folder: Path | None) -> int:
    """Run the cases in this process; return the number of failures."""
    files = seeds(folder)
    warm_up(files)
    limit_memory()
    signal.signal(signal.SIGALRM, _stuck)
    outcomes: Counter[str] = Counter()
    failures, slowest = 0, 0.0
    for number in range(cases):
        rng = random.Random(f"{seed}/{number}")
        data = mutate(rng.choice(files), rng)
        signal.alarm(SECONDS)
        started = time.perf_counter()
        try:
            outcome = one_case(data, rng)
        except (Exception, Stuck) as error:
            failures += 1
            outcome = f"FAILED {type(error).__name__}"
            if failures <= 20:
                print(f"seed {seed}, case {number}: {type(error).__name__}: {error}", flush=True)
        finally:
            signal.alarm(0)
        slowest = max(slowest, time.perf_counter() - started)
        outcomes[outcome] += 1
    summary = ", ".join(f"{name} {count}" for name, count in outcomes.most_common())
    print(f"{cases} cases of {len(files)} files: {summary}; slowest {slowest:.2f} s")
    return failures


def warm_up(files: list[bytes]) -> None:
    """Load what is loaded on first use (codecs, PROJ's database) before memory is limited."""
    for data in files:
        one_case(data, random.Random(0))


def limit_memory() -> None:
    """Allow this process 256 MiB of data beyond what it has now."""
    status = Path("/proc/self/status")
    if not status.exists():
        return
    used = next(line for line in status.read_text().splitlines() if line.startswith("VmData"))
    limit = int(used.split()[1]) * 1024 + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _stuck(*_: object) -> None:
    raise Stuck(f"took more than {SECONDS} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="real files to damage")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return 1 if campaign(arguments.cases, arguments.seed, arguments.folder) else 0
    # A crash or a hang inside a codec must not take the watchdog with it.
    allowed = 60 + arguments.cases * 0.5
    done = subprocess.run(
        [sys.executable, __file__, "--child", *sys.argv[1:]],
        timeout=allowed,
        check=False,
        env={**os.environ, "CPL_LOG": os.devnull},
    )
    if done.returncode < 0:
        print(f"the child was ended by signal {-done.returncode}")
    return 0 if done.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
