"""A scheduler that speaks TLS: who has the files computes, who has not is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster
from distributed.security import Security

from rasteret_dask.cluster import profiles
from rasteret_dask.cluster.security import Tls
from rasteret_dask.errors import ConfigError
from rasteret_dask.testing.server import write_certificate

COMMAND = (sys.executable, "-m", "distributed.cli.dask_worker")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    certificate, key = write_certificate(tmp_path_factory.mktemp("tls"))
    return {"ca": str(certificate), "cert": str(certificate), "key": str(key)}


def test_a_plain_client_and_a_stranger_are_refused(files: dict[str, str], tmp_path: Path) -> None:
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        protocol="tls",
        security=Tls(**files).security(),
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        address = cluster.scheduler_address
        assert address.startswith("tls://")
        trusted = profiles.from_mapping({"kind": "address", "address": address, "tls": files})
        with profiles.open_profile(trusted) as client:
            assert client is not None
            assert client.submit(os.getpid).result() != os.getpid()
        with pytest.raises((OSError, RuntimeError, TypeError)):
            Client(address.replace("tls://", "tcp://"), timeout=1.5, set_as_default=False)
        with pytest.raises((OSError, RuntimeError, TypeError)):
            Client(address, timeout=1.5, set_as_default=False)  # no certificate at all
        certificate, key = write_certificate(tmp_path)
        stranger = {"ca": str(certificate), "cert": str(certificate), "key": str(key)}
        other = profiles.from_mapping(
            {"kind": "address", "address": address, "tls": stranger, "timeout": 1.5}
        )
        with pytest.raises(ConfigError, match="no scheduler answers"):  # noqa: SIM117
            with profiles.open_profile(other):
                pass
    assert dask.config.get("scheduler", None) is None  # what runs without a client still can


def test_a_plain_worker_is_refused(files: dict[str, str]) -> None:
    with LocalCluster(
        n_workers=0,
        protocol="tls",
        security=Tls(**files).security(),
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        plain = cluster.scheduler_address.replace("tls://", "tcp://")
        worker = subprocess.run(
            [*COMMAND, plain, "--nthreads", "1", "--no-nanny", "--death-timeout", "2"],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert worker.returncode != 0 or b"Registered" not in worker.stderr
        assert not cluster.scheduler.workers


def test_the_same_files_as_configuration(files: dict[str, str]) -> None:
    tls = Tls(**files)
    wanted = tls.security().get_connection_args("client")
    assert wanted["require_encryption"] is True
    settings = tls.settings()
    assert settings["distributed.comm.require-encryption"] is True
    assert settings["distributed.comm.tls.worker"] == {"cert": files["cert"], "key": files["key"]}
    assert isinstance(tls.security(), Security)
