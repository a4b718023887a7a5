"""Whom our own connections believe, where the system has authorities and where not: each in a process, since OpenSSL reads the
environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rasteret_dask.testing.server import RangeServer

CONTENT = bytes(range(250)) * 4
READ = """
import sys
from rasteret_dask.model import RetryPolicy, StorageOptions
from rasteret_dask.storage.loop import run
from rasteret_dask.storage.source import read_range
options = StorageOptions(retry=RetryPolicy(attempts=1))
print(bytes(run(read_range(sys.argv[1], 0, 9, options=options)).data).hex())
"""


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ({"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}, True),  # no authority at all: certifi's
        ({"SSL_CERT_FILE": "other.pem", "SSL_CERT_DIR": ""}, False),  # what is said stands
        ({"SSL_CERT_FILE": "", "SSL_CERT_DIR": "full"}, False),
        ({}, False),  # the system's own, which do not know this server
    ],
)
def test_certifi_stands_in_where_the_system_has_nobody(
    said: dict[str, str], heard: bool, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.bin").write_bytes(CONTENT)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "0a1b2c3d.0").touch()
    with RangeServer(files, tls=True) as server, RangeServer(files, tls=True) as other:
        # A certifi that knows this server alone, so that it is seen who is asked.
        made = tmp_path / "certifi"
        made.mkdir()
        (made / "__init__.py").write_text(f"def where():\n    return {str(server.certificate)!r}\n")
        (tmp_path / "other.pem").write_bytes(Path(str(other.certificate)).read_bytes())
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SSL_CERT_")}
        if not said and not Path("/etc/ssl/certs/ca-certificates.crt").exists():
            pytest.skip("this system has no authorities")
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", READ, server.url_of("a.bin")],
            cwd=tmp_path,
            env={**environment, **said, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode == 0) == heard, done.stderr[-1000:]
    if heard:
        assert done.stdout.strip() == CONTENT[:9].hex()
    else:
        assert "CertVerif" in done.stderr
