"""Profiles of clusters that other libraries start: their options fit the classes that take them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest
from distributed import SSHCluster

from rasteret_dask.cluster import profiles
from rasteret_dask.cluster.remote import (
    Remote,
    Ssh,
    arguments,
    check_arguments,
    cluster_class,
    ssh_arguments,
)
from rasteret_dask.errors import ConfigError
from rasteret_dask.resources import folder

KINDS = ("slurm", "pbs", "kubernetes", "coiled", "gateway")


@pytest.mark.parametrize("kind", KINDS)
def test_shipped_options_fit_the_library(kind: str) -> None:
    try:
        cls = cluster_class(kind)
    except ConfigError as error:
        pytest.skip(str(error))
    said = ["insecure=true"] if kind == "kubernetes" else []
    profile = profiles.from_file(folder("configs/clusters") / f"{kind}.yaml", said)
    assert isinstance(profile, Remote)
    given = arguments(profile)
    check_arguments(kind, cls, given)
    inspect.signature(cls).bind(**given)
    if kind == "gateway":  # further options are its administrator's
        assert set(given) <= set(inspect.signature(cls).parameters)
    else:
        with pytest.raises(ConfigError, match="takes no 'wrokers'"):
            check_arguments(kind, cls, {**given, "wrokers": 1})


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(ConfigError, match="pip install dask-jobqueue") as caught:
        cluster_class("slurm")
    assert caught.value.path == "kind"


LOOK = """
import signal
from rasteret_dask.cluster.remote import cluster_class
from rasteret_dask.errors import ConfigError
before = signal.getsignal(signal.SIGINT)
try:
    cluster_class("slurm")
except ConfigError:
    pass  # not installed
assert signal.getsignal(signal.SIGINT) is before
"""


def test_ctrl_c_does_what_it_did() -> None:
    """Importing dask-jobqueue turns it into a silent end with exit code 0, where a run that can go on has 75."""
    # In a process of its own, where nothing has imported it before.
    subprocess.run([sys.executable, "-c", LOOK], check=True)


class Job:
    def __init__(self, cores: int, **more: Any) -> None: ...


class SlurmJob(Job):
    def __init__(self, *args: Any, queue: str = "", **more: Any) -> None: ...


class Cluster:
    job_cls = SlurmJob

    def __init__(self, n_workers: int = 0, **job_kwargs: Any) -> None: ...


def test_options_of_the_class_of_its_jobs_and_of_their_base() -> None:
    check_arguments("slurm", Cluster, {"n_workers": 1, "queue": "x", "cores": 4})
    with pytest.raises(ConfigError, match="takes no 'quue'") as caught:
        check_arguments("slurm", Cluster, {"quue": "x"})
    assert caught.value.path == "options.quue"
    assert "queue" in (caught.value.hint or "")


def profile(**given: Any) -> dict[str, Any]:
    found = profiles.from_mapping(given)
    return ssh_arguments(found) if isinstance(found, Ssh) else arguments(found)  # type: ignore[arg-type]


def test_what_batch_systems_are_told() -> None:
    given = profile(
        kind="slurm",
        workers=2,
        lifetime="55m",
        options={"cores": 2, "shared_temp_directory": "/x", "worker_extra_args": ["--resources"]},
    )
    assert given["security"] is True
    assert given["scheduler_options"] == {"dashboard_address": "127.0.0.1:0"}
    extra = ["--resources", "--dashboard-address", "127.0.0.1:0"]
    assert given["worker_extra_args"] == [*extra, "--lifetime", "55m", "--lifetime-stagger", "4m"]
    open_ = profile(kind="pbs", workers=2, insecure=True, options={"cores": 2})
    assert "security" not in open_


@pytest.mark.parametrize(("kind", "key"), [("kubernetes", "env"), ("coiled", "environ")])
def test_allowed_failures_reach_schedulers_elsewhere(kind: str, key: str) -> None:
    given = profile(
        kind=kind, workers=1, insecure=True, allowed_failures=7, options={key: {"A": "b"}}
    )
    expected = {"A": "b", "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "7"}
    assert given[key] == expected


def test_ssh_speaks_tls_to_other_machines() -> None:
    files = {"ca": "/c/ca.pem", "cert": "/c/cert.pem", "key": "/c/key.pem"}
    given = profile(kind="ssh", hosts=["a", "b"], tls=files, worker={"nthreads": 2})
    here = {"dashboard_address": "127.0.0.1:0"}
    assert given["worker_options"] == {"protocol": "tls", **here, "nthreads": 2}
    assert given["scheduler_options"]["protocol"] == "tls"
    assert given["security"].require_encryption is True
    inspect.signature(SSHCluster).bind(**given)


def test_a_cluster_that_does_not_start_is_an_error_of_the_profile() -> None:
    pytest.importorskip("asyncssh")
    found = profiles.from_mapping(
        {"kind": "ssh", "hosts": ["127.0.0.1", "127.0.0.1"], "connect": {"port": 1}}
    )
    with (
        pytest.raises(ConfigError, match="does not start"),
        profiles.open_profile(found),
    ):
        pass
