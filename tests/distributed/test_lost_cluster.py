"""A scheduler that dies under a run: the exit code says that it can go on, the record too, and it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import xarray as xr
from distributed import Client

from rasteret_dask.testing.catalog import write_demo_catalog
from rasteret_dask.testing.server import RangeServer

# Half a minute is spent on looking for a lost scheduler otherwise.
QUICK = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s"}
PIPELINE = """
version: 1
collection: {{load: {folder}/workspace/demo}}
cube: {{bands: [B04, B08], groupby: solar_day, crs: "EPSG:32633", chunks: {{time: -1, y: 32, x: 32}}}}
steps:
- expression: {{ndvi: (B08 - B04) / (B08 + B04)}}
- reduce: {{how: median}}
outputs: [{{zarr: {folder}/{name}.zarr}}]
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    write_demo_catalog(tmp_path / "scenes", size=192, dates=("2023-07-03", "2023-07-08"))
    with RangeServer(tmp_path / "scenes", latency=0.02) as running:
        yield running


@contextmanager
def cluster() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A scheduler and one worker, each a process of its own."""
    started = "Scheduler at:"
    command = [sys.executable, "-W", "ignore", "-m", "distributed.cli.dask_scheduler"]
    command += ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
    scheduler = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert scheduler.stderr is not None
    address = next(line.split()[-1] for line in scheduler.stderr if started in line)
    command = [sys.executable, "-W", "ignore", "-m", "distributed.cli.dask_worker", address]
    command += ["--nthreads", "1", "--no-dashboard", "--no-nanny"]
    worker = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | QUICK)
    try:
        yield address, scheduler
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
        scheduler.stderr.close()


def command(folder: Path, name: str, *more: str) -> list[str]:
    (folder / f"{name}.yaml").write_text(PIPELINE.format(folder=folder, name=name))
    main = "from rasteret_dask.cli import main; main()"
    return [sys.executable, "-c", main, "run", str(folder / f"{name}.yaml"), "--json", *more]


def profile(folder: Path, address: str) -> str:
    path = folder / f"{address.rpartition(':')[2]}.yaml"
    path.write_text(f"{{kind: address, address: '{address}'}}")
    return str(path)


@pytest.mark.slow  # eight processes
def test_a_run_whose_scheduler_is_killed_can_go_on(server: RangeServer, tmp_path: Path) -> None:
    build = f"""
import rasteret_dask as rd
rd.build("earthsearch/sentinel-2-l2a", static_catalog="{server.url}/catalog.json", name="demo",
         workspace_dir="{tmp_path}/workspace")
"""
    subprocess.run([sys.executable, "-c", build], check=True)
    store, record = tmp_path / "out.zarr", tmp_path / "out.zarr.run.json"
    options = {"env": os.environ | QUICK, "text": True}
    with cluster() as (address, scheduler):
        with Client(address) as client:
            client.wait_for_workers(1)
        run = subprocess.Popen(
            command(tmp_path, "out", "--cluster", profile(tmp_path, address)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )
        while len(list(Path(f"{store}.regions").glob("*.done"))) < 3:
            assert run.poll() is None, run.communicate()
            time.sleep(0.02)
        scheduler.kill()
        _, stderr = run.communicate()
    assert run.returncode == 75, stderr
    assert "scheduler was lost" in stderr
    assert "--resume" in stderr
    said = json.loads(record.read_text())
    assert (said["state"], "scheduler was lost" in said["error"]) == ("interrupted", True)
    there = len(list(Path(f"{store}.regions").glob("*.done")))
    with pytest.raises(FileNotFoundError):
        xr.open_zarr(store)
    # On threads, or on any other cluster: the regions lie in the store, not in the cluster.
    again = subprocess.run(
        command(tmp_path, "out", "--resume"), check=True, capture_output=True, **options
    )
    account = json.loads(again.stdout)
    assert account["computed"] == account["regions"] - there > 0
    server.reset()
    calm = subprocess.run(command(tmp_path, "calm"), check=True, capture_output=True, **options)
    every = json.loads(calm.stdout)
    assert account["requests"] < every["requests"] == server.counters().requests
    assert same_files(store, tmp_path / "calm.zarr")
    assert json.loads(record.read_text())["state"] == "done"
    assert "error" not in json.loads(record.read_text())


def same_files(one: Path, other: Path) -> bool:
    names = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)
