"""The profiles of batch systems, with stand-ins for the systems' own commands: each job is a process of this machine."""

from __future__ import annotations

import os
import stat
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from rasteret_dask.cluster import profiles
from rasteret_dask.cluster.remote import Remote
from rasteret_dask.resources import folder

SUBMIT = """#!/bin/sh
# The last argument is the script of the job.
for script; do :; done
cp "$script" "$HERE/job-$$"
setsid sh "$HERE/job-$$" > "$HERE/log-$$" 2>&1 &
echo $! > "$HERE/pid-$$"
echo "Submitted batch job $$"
"""
CANCEL = """#!/bin/sh
for job; do :; done
kill -TERM -- "-$(cat "$HERE/pid-$job")"
"""


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with sbatch, scancel, qsub and qdel, and what they were given."""
    tools = tmp_path / "bin"
    tools.mkdir()
    texts = {"sbatch": SUBMIT, "scancel": CANCEL, "qsub": SUBMIT, "qdel": CANCEL}
    for name, text in texts.items():
        (tools / name).write_text(text)
        (tools / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everywhere() -> set[int]:
    """Ports of this process, its children and the jobs that other machines reach."""
    me = psutil.Process()
    lines = [
        line
        for process in (me, *me.children(recursive=True), *jobs())
        for line in process.net_connections("tcp")
    ]
    heard = [line.laddr for line in lines if line.status == psutil.CONN_LISTEN]
    return {address.port for address in heard if address.ip != "127.0.0.1"}


def jobs() -> list[psutil.Process]:
    """They are in sessions of their own, and so no children."""
    found = []
    for file in Path(os.environ["HERE"]).glob("pid-*"):
        job = psutil.Process(int(file.read_text()))
        found += [job, *job.children(recursive=True)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "line"), [("slurm", "#SBATCH -p normal"), ("pbs", "#PBS -q workq")]
)
def test_the_shipped_profile_starts_workers_that_speak_tls(
    kind: str, line: str, batch: Path
) -> None:
    if find_spec("dask_jobqueue") is None:  # to import it would change what Ctrl-C does here
        pytest.skip("dask-jobqueue is not installed")
    path = folder("configs/clusters") / f"{kind}.yaml"
    profile = profiles.from_file(
        path, ["adapt=null", "workers=1", "options.cores=1", "options.memory=2GiB"]
    )
    assert isinstance(profile, Remote)
    with profiles.open_profile(profile) as client:
        assert client is not None
        assert client.scheduler.address.startswith("tls://")
        assert client.submit(os.getpid).result(timeout=120) != os.getpid()
        assert client.cluster.scheduler.allowed_failures == 10
        told = client.scheduler_info(n_workers=-1)["workers"]
        assert [address.partition("://")[0] for address in told] == ["tls"]
        speak = [client.scheduler.address, *told, *(one["nanny"] for one in told.values())]
        assert everywhere() == {int(address.rpartition(":")[2]) for address in speak}
    (script,) = batch.glob("job-*")
    text = script.read_text()
    assert line in text
    assert "--lifetime 55m --lifetime-stagger 4m" in text
    keys = [p for p in batch.rglob("*") if p.is_file() and b"PRIVATE KEY" in p.read_bytes()]
    # The keys lie where only their owner reads, and in no job's script.
    assert {p.parent.name for p in keys} <= {".rasteret-dask-tls"}
    assert all(stat.S_IMODE(p.stat().st_mode) & 0o077 == 0 for p in keys)
