"""Environments for peers that cannot share this one: ``python -m benchmarks.environments [FOLDER]``.

Makes what is missing below the folder, and prints what ``--python`` of the campaigns takes. A peer that cannot be installed is said to be
missing and left out. Needs Python 3.12 or later beside the one that runs this.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMON = ("imagecodecs", "numpy", "psutil", "pyproj", "tifffile")
"""What the benchmark itself needs of memory, disk and images."""

PEERS = {
    "async-geotiff": ("async-geotiff>=0.5", "obstore"),
    "lazycogs": (
        # DuckDB inside rustac is 1.5.5, and so must its extensions be.
        "lazycogs==0.7.0", "rustac==0.9.17", "duckdb-extension-spatial==1.5.5",
        "duckdb-extension-icu==1.5.5", "duckdb-extension-parquet==1.5.5",
        "dask",  # which reads its chunks
    ),
    "rasteret": ("rasteret==0.4.1",),
    "virtual-tiff": ("virtualizarr", "virtual-tiff", "obspec-utils", "obstore", "zarr"),
}  # fmt: skip
PYTHONS = ("python3.12", "python3.13")
STAMP = ".installed"


def install(home: Path, packages: tuple[str, ...], python: str) -> bool:
    """Make an environment, unless it is there; False when pip could not."""
    stamp, wanted = home / STAMP, "\n".join(packages)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return True
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages]
    for command in ([python, "-m", "venv", str(home)], pip):
        # What pip says is not what `--python` takes.
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
            return False
    stamp.write_text(wanted, encoding="utf-8")
    return True


def _runs(python: str) -> bool:
    """Whether there is such an interpreter: a version manager leaves names behind that only say it is not chosen."""
    if shutil.which(python) is None:
        return False
    asked = subprocess.run([python, "-c", ""], stderr=subprocess.DEVNULL, check=False)
    return asked.returncode == 0


def with_torchgeo() -> Path | None:
    """The environment that ``make test-torchgeo`` has made, if it has: what our chips need (W9)."""
    found = sorted(ROOT.glob(".venv-torchgeo-*/bin/python"))
    return found[-1] if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".venv-peers")
    parser.add_argument("--interpreter", default=next(filter(_runs, PYTHONS), None))
    options = parser.parse_args()
    made = []
    for tool, packages in PEERS.items():
        home = options.folder.resolve() / tool
        python = options.interpreter
        if python and install(home, (*COMMON, *packages), python):
            made.append(f"{tool}={home}/bin/python")
        else:
            print(f"{tool} is left out: pip could not, or there is no Python 3.12", file=sys.stderr)
    torchgeo = with_torchgeo()
    if torchgeo is not None:
        made.append(f"ours@W9={torchgeo}")
    print(",".join(made))


if __name__ == "__main__":
    main()
