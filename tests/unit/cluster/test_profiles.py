"""Cluster profiles: what is refused, and that the opened ones compute where they say."""

from __future__ import annotations

import os
import threading

import dask
import pytest
from distributed import LocalCluster

from rasteret_dask.cluster import profiles
from rasteret_dask.cluster.profiles import Address, Local, Threads
from rasteret_dask.documents import read
from rasteret_dask.errors import ConfigError
from rasteret_dask.resources import folder


@pytest.mark.parametrize("path", sorted(folder("configs/clusters").glob("*.yaml")), ids=str)
def test_shipped_profiles_are_valid(path, monkeypatch):
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    if path.stem == "kubernetes":  # plain connections are nothing that ships switched on
        with pytest.raises(ConfigError, match="insecure: true"):
            profiles.from_file(path)
        assert profiles.from_file(path, ["insecure=true"]).kind == "kubernetes"
        return
    assert not read(path).get("insecure", False)
    assert profiles.from_file(path).kind == read(path)["kind"]


@pytest.mark.parametrize(
    ("data", "path", "words"),
    [
        ({}, "kind", "missing"),
        ({"kind": "slurm"}, "(document)", "give workers, or adapt"),
        ({"kind": "slurm", "workers": 2}, "(document)", "shared_temp_directory"),
        ({"kind": "kubernetes", "workers": 2}, "(document)", "insecure: true"),
        ({"kind": "coiled", "workers": 2, "lifetime": "1h"}, "(document)", "slurm and pbs"),
        ({"kind": "coiled", "workers": 2, "adapt": {"maximum": 3}}, "(document)", "workers, or"),
        ({"kind": "ssh", "hosts": ["a", "b"]}, "(document)", "without TLS"),
        ({"kind": "lcoal"}, "kind", "no kind of cluster"),
        ({"kind": ["local"]}, "kind", "no kind of cluster"),
        ({"kind": "local", "worker": 2}, "worker", "did you mean 'workers'"),
        ({"kind": "local", "workers": 0}, "workers", "greater than or equal to 1"),
        ({"kind": "local", "host": "0.0.0.0"}, "(document)", "reached from other machines"),
        ({"kind": "local", "dashboard": ":8787"}, "(document)", "reached from other machines"),
        ({"kind": "address"}, "address", "missing"),
        ({"kind": "address", "address": "tcp://10.0.0.5:8786"}, "(document)", "insecure: true"),
        ({"kind": "address", "address": "node7:8786"}, "(document)", "insecure: true"),
        ({"kind": "address", "address": "ws://example.org"}, "(document)", "insecure: true"),
        (
            {
                "kind": "address",
                "address": "tcp://127.0.0.1:1",
                "tls": {"ca": "a", "cert": "b", "key": "c"},
            },
            "(document)",
            "not tls://",
        ),
    ],
)
def test_refused(data, path, words):
    with pytest.raises(ConfigError) as caught:
        profiles.from_mapping(data)
    assert caught.value.path == path
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        {"address": "tcp://127.0.0.1:8786"},
        {"address": "tcp://[::1]:8786"},
        {"address": "localhost:8786"},
        {"address": "tls://10.0.0.5:8786"},
        {"address": "tcp://10.0.0.5:8786", "insecure": True},
    ],
)
def test_addresses_that_are_safe_or_said_to_be(data):
    assert isinstance(profiles.from_mapping({"kind": "address", **data}), Address)


def _where() -> tuple[int, str]:
    return os.getpid(), threading.current_thread().name


def test_threads_computes_here_and_puts_the_setting_back():
    before = dask.config.get("scheduler", None)
    with profiles.open_profile(Threads(kind="threads", threads=1)) as client:
        assert client is None
        pid, _ = dask.compute(dask.delayed(_where)())[0]
    assert pid == os.getpid()
    assert dask.config.get("scheduler", None) == before


def test_local_processes_sets_allowed_failures_before_the_scheduler_is_born():
    profile = Local(kind="local", workers=1, threads=1, allowed_failures=7)
    with profiles.open_profile(profile) as client:
        assert client.submit(os.getpid).result() != os.getpid()
        assert client.cluster.scheduler.allowed_failures == 7
        assert client.dashboard_link.startswith("http://127.0.0.1:")
        # Workers that give back every freed tile at once pay for it in page faults.
        for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
            assert set(client.run(os.environ.get, name).values()) == {str(8 * 2**20)}
    assert "MALLOC_MMAP_THRESHOLD_" not in os.environ


def test_what_somebody_has_said_of_workers_memory_stands(monkeypatch):
    # Dask's nannies leave their own in this process.
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "4096")
    with (
        profiles.open_profile(Local(kind="local", workers=1, threads=1)) as client,
    ):
        assert set(client.run(os.environ.get, "MALLOC_TRIM_THRESHOLD_").values()) == {"4096"}
        assert set(client.run(os.environ.get, "MALLOC_MMAP_THRESHOLD_").values()) == {None}


@pytest.mark.parametrize(("said", "milliseconds"), [("1000ms", 600_000), ("30s", 30_000)])
def test_workers_begin_profiles_rarely_unless_somebody_says_how_often(said, milliseconds):
    """They keep a thousand of them, and each is some 100 KiB."""
    with (
        dask.config.set({"distributed.worker.profile.cycle": said}),
        profiles.open_profile(Local(kind="local", workers=1, threads=1)) as client,
    ):
        assert set(client.run(profile_cycle).values()) == {milliseconds}


@pytest.mark.parametrize(("said", "found"), [(1.1, 2.1), (1.5, 1.5), ("inf", float("inf"))])
def test_a_worker_has_two_tasks_waiting_unless_somebody_says_how_many(said, found):
    """So that their bytes come while it decodes."""
    with (
        dask.config.set({"distributed.scheduler.worker-saturation": said}),
        profiles.open_profile(Local(kind="local", workers=1, threads=1)) as client,
    ):
        assert client.run_on_scheduler(saturation) == found


def saturation(dask_scheduler):
    return dask_scheduler.WORKER_SATURATION


def profile_cycle(dask_worker):
    return dask_worker.periodic_callbacks["profile-cycle"].callback_time


def test_address_reaches_a_scheduler_that_runs():
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        profile = Address(kind="address", address=cluster.scheduler_address)
        with profiles.open_profile(profile) as client:
            assert client.submit(sum, [1, 2]).result() == 3


def test_address_without_a_scheduler_is_a_config_error():
    profile = Address(kind="address", address="tcp://127.0.0.1:1", timeout=0.5)
    with (
        pytest.raises(ConfigError, match="no scheduler answers"),
        profiles.open_profile(profile),
    ):
        pass


def test_a_client_that_fails_in_any_way_is_nobodys_default(monkeypatch):
    """Everything computed later would ask for it: one test of TLS that met a stalled machine made 800 others fail."""

    def failing(address, **options):
        dask.config.set(scheduler="dask.distributed")
        raise AssertionError("its loop did not start within ten seconds")

    monkeypatch.setattr(profiles, "Client", failing)
    profile = Address(kind="address", address="tcp://127.0.0.1:1")
    with pytest.raises(AssertionError, match="ten seconds"), profiles.open_profile(profile):
        pass
    assert dask.config.get("scheduler", None) is None
