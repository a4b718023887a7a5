"""A cluster's budget is divided as workers come and go; workers of other versions are named, later joiners too."""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster

from rasteret_dask.cluster import plugins
from rasteret_dask.errors import RasteretWarning
from rasteret_dask.model import RatePolicy, RetryPolicy, StorageOptions
from rasteret_dask.storage.fetch import Fetch
from rasteret_dask.storage.limiter import Share
from rasteret_dask.storage.source import RangeRequest
from rasteret_dask.testing.server import Fault, RangeServer


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as found,
    ):
        yield plugins.prepare(plugins.prepare(found))


def shares() -> list[float]:
    return list(importlib.import_module("rasteret_dask.storage.attempts")._shares.values())


def eventually(what: Callable[[], bool]) -> bool:
    for _ in range(200):
        try:
            if what():
                return True
        except OSError:
            pass  # A worker that was asked is just going.
        time.sleep(0.05)
    return what()


def everyone(client: Client, share: float) -> bool:
    return all(found == [pytest.approx(share)] for found in client.run(shares).values())


def made_use_of(host: str) -> list[float]:
    """What this process asks of a host, as its gates know it."""
    limiters = importlib.import_module("rasteret_dask.storage.attempts")._limiters
    return [
        limiter.host(host).share.value for limiter in limiters.values() if host in limiter._hosts
    ]


def fetch(url: str, options: StorageOptions, first: int = 0, count: int = 40) -> int:
    ranges = [RangeRequest(url, k * 10, k * 10 + 10) for k in range(first, first + count)]
    return sum(len(data) for _, data in Fetch(ranges, options))


def test_the_budget_follows_the_number_of_workers(client: Client, tmp_path) -> None:
    assert eventually(lambda: everyone(client, 1.0))
    client.cluster.scale(3)
    client.wait_for_workers(3)
    assert eventually(lambda: everyone(client, 1 / 3))
    (tmp_path / "a.bin").write_bytes(np.random.default_rng(0).bytes(1000))
    with RangeServer(tmp_path, latency=0.02) as server:
        for budget, most in [(6, 6), (None, 120)]:
            options = StorageOptions(rate=RatePolicy(cluster_in_flight=budget))
            server.reset()
            url = server.url_of("a.bin")
            done = client.map(
                lambda _, url, options: fetch(url, options),
                range(3),
                url=url,
                options=options,
                workers=None,
                pure=False,
            )
            assert client.gather(done) == [400] * 3
            peak = server.counters().peak_in_flight
            assert peak <= most
        assert peak > 6
        rate = StorageOptions(rate=RatePolicy(per_second=150.0))
        begin = time.monotonic()
        client.gather(
            [
                client.submit(fetch, server.url_of("a.bin"), rate, workers=[w], pure=False)
                for w in client.scheduler_info(n_workers=-1)["workers"]
            ]
        )
        assert time.monotonic() - begin >= 39 / 50 - 0.1
    client.cluster.scale(1)
    assert eventually(lambda: len(client.run(shares)) == 1 and everyone(client, 1.0))


@pytest.fixture
def three(client: Client) -> Iterator[list[str]]:
    """Addresses of three workers, each of which knows that they are three."""
    client.cluster.scale(3)
    client.wait_for_workers(3)
    assert eventually(lambda: len(client.run(shares)) == 3 and everyone(client, 1 / 3))
    yield list(client.scheduler_info(n_workers=-1)["workers"])
    client.cluster.scale(1)
    assert eventually(lambda: len(client.run(shares)) == 1 and everyone(client, 1.0))


def peaks(server: RangeServer, count: int) -> list[int]:
    """How many requests of each worker were under way at once, where each has read `count` ranges of its own."""
    events: list[tuple[float, int, int]] = []
    for entry in server.log():
        worker = entry.start // (10 * count)
        events += [(entry.t_start, 1, worker), (entry.t_end, -1, worker)]
    now, most = [0, 0, 0], [0, 0, 0]
    for _, step, worker in sorted(events):
        now[worker] += step
        most[worker] = max(most[worker], now[worker])
    return most


@pytest.mark.parametrize("status", [429, 503])
def test_each_worker_that_is_refused_halves_its_share_and_recovers_slowly(
    client: Client, three: list[str], tmp_path: Path, status: int
) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(2000))
    options = StorageOptions(rate=RatePolicy(cluster_in_flight=48), retry=RetryPolicy(base=0.01))
    expected = Share(48 // 3)
    with RangeServer(tmp_path, latency=0.05, log=True) as server:
        url, host = server.url_of("a.bin"), server.url.removeprefix("http://")

        def everywhere(count: int) -> None:
            server.reset()
            done = [
                client.submit(fetch, url, options, k * count, count, workers=[one], pure=False)
                for k, one in enumerate(three)
            ]
            assert client.gather(done) == [10 * count] * 3
            found = client.run(made_use_of, host)
            assert [found[one] for one in three] == [[expected.value]] * 3

        everywhere(40)
        assert max(peaks(server, 40)) <= 16
        server.configure(faults=[Fault("status", status=status, first=1)])
        expected.refused(0.0)
        expected.served()
        everywhere(1)  # each is refused once, and then has its range
        assert server.counters().statuses == {status: 3, 206: 3}
        assert expected.value == 8.125
        server.configure(faults=[])
        for count, most in [(12, 9), (40, 13), (60, 16)]:
            for _ in range(count):
                expected.served()
            everywhere(count)
            assert max(peaks(server, count)) <= most
        assert expected.value == 16


def test_a_server_that_bears_less_is_asked_for_less(
    client: Client, three: list[str], tmp_path: Path
) -> None:
    """A quarter of what the workers may ask for: it would refuse seven of ten requests if they went on asking for that."""
    (tmp_path / "a.bin").write_bytes(bytes(10_000))
    options = StorageOptions(
        rate=RatePolicy(cluster_in_flight=48), retry=RetryPolicy(attempts=20, base=0.01, cap=0.5)
    )
    with RangeServer(tmp_path, latency=0.05, bears=12) as server:
        url = server.url_of("a.bin")
        done = [
            client.submit(fetch, url, options, k * 300, 300, workers=[one], pure=False)
            for k, one in enumerate(three)
        ]
        assert client.gather(done) == [3000] * 3
        statuses = server.counters().statuses
    assert statuses[206] == 900
    assert statuses[429] < 450, statuses


def test_workers_of_other_versions_are_named(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RasteretWarning)
        plugins.prepare(client)
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(plugins, "tell", lambda worker, differs: told.append((worker, differs)))
    client.register_plugin(plugins.SameVersions({**plugins.installed(), "numpy": "1.0"}))
    assert eventually(lambda: len(told) == 1)
    client.cluster.scale(2)  # a later joiner
    assert eventually(lambda: len(told) == 2)
    assert all(differs == f"numpy {np.__version__} (here 1.0)" for _, differs in told)
    assert len({worker for worker, _ in told}) == 2


def test_the_warning_says_who_and_what() -> None:
    with pytest.warns(RasteretWarning, match=r"tcp://w differs .* numpy missing \(here 2\)"):
        plugins.tell("tcp://w", plugins.difference({"numpy": "2"}, {}))
    assert plugins.difference({"a": "1", "b": None}, {"a": "1", "b": None}) == ""
