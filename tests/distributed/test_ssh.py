"""A cluster reached by SSH: a real sshd on loopback, with a configuration and keys of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client

from rasteret_dask.cluster import profiles
from rasteret_dask.testing.server import write_certificate

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
            return line.recv(8).startswith(b"SSH-")
    except OSError:
        return False


@pytest.fixture(scope="module")
def connect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What reaches the daemon, for asyncssh."""
    pytest.importorskip("asyncssh")
    if SSHD is None:
        pytest.skip("there is no sshd (apt-get install openssh-server)")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where a daemon of root drops its privileges
    folder, port = tmp_path_factory.mktemp("sshd"), free_port()
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    (folder / "config").write_text(CONFIG.format(port=port, folder=folder))
    host = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host}\n")
    daemon = subprocess.Popen(
        [SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.PIPE, text=True
    )
    try:
        while not answers(port):
            if daemon.poll() is not None:
                assert daemon.stderr is not None
                pytest.skip(f"sshd does not start here: {daemon.stderr.read()[-200:]}")
            time.sleep(0.05)
        yield {
            "port": port,
            "username": getpass.getuser(),
            "client_keys": [str(folder / "user")],
            "known_hosts": str(folder / "known"),
            "config": [],
            "agent_path": None,
        }
    finally:
        daemon.terminate()
        daemon.wait()


@pytest.mark.parametrize("secure", [True, False], ids=["tls", "plain"])
def test_workers_are_started_by_ssh(secure: bool, connect: dict[str, Any], tmp_path: Path) -> None:
    tls = None
    if secure:
        certificate, key = write_certificate(tmp_path)
        tls = {"ca": str(certificate), "cert": str(certificate), "key": str(key)}
    profile = profiles.from_mapping(
        {
            "kind": "ssh",
            "hosts": ["127.0.0.1", "127.0.0.1"],
            "connect": connect,
            "worker": {"nthreads": 1, "local_directory": str(tmp_path)},
            "tls": tls,
            "allowed_failures": 7,
        }
    )

    def listening() -> set[str]:
        """Addresses on which a process and its parent wait for somebody."""
        me = psutil.Process()
        lines = [line for one in (me, me.parent()) for line in one.net_connections("tcp")]
        return {line.laddr.ip for line in lines if line.status == psutil.CONN_LISTEN}

    with profiles.open_profile(profile) as client:
        assert client is not None
        client.wait_for_workers(1, timeout=120)
        pid, parent = client.submit(lambda: (os.getpid(), os.getppid())).result(timeout=120)
        assert len({pid, parent, os.getpid(), os.getppid()}) == 4
        # By value: the scheduler on the other side has no tests.
        failures = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures)
        assert failures == 7
        if not secure:  # the worker and its nanny, the scheduler and the daemon, dashboards too
            assert client.submit(listening).result(timeout=120) == {"127.0.0.1"}
            assert client.run_on_scheduler(listening) == {"127.0.0.1"}
        address = client.scheduler.address
        assert address.startswith("tls://" if secure else "tcp://127.0.0.1:")
        if secure:
            plain = address.replace("tls://", "tcp://")
            with pytest.raises((OSError, RuntimeError, TypeError)):
                Client(plain, timeout=1.5, set_as_default=False)
