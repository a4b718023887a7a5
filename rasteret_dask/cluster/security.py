"""Who may reach a cluster."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from distributed.security import Security

from rasteret_dask.documents import Strict


class Tls(Strict):
    """Files of a TLS connection; who has a certificate of this authority may run code on the cluster."""

    ca: str
    cert: str
    key: str

    def security(self) -> Security:
        """For Dask's clients and clusters; nothing but TLS is spoken."""
        return Security(
            tls_ca_file=self.ca,
            tls_client_cert=self.cert,
            tls_client_key=self.key,
            tls_scheduler_cert=self.cert,
            tls_scheduler_key=self.key,
            tls_worker_cert=self.cert,
            tls_worker_key=self.key,
            require_encryption=True,
        )

    def settings(self) -> dict[str, Any]:
        """The same, as Dask's configuration."""
        pair = {"cert": self.cert, "key": self.key}
        return {
            "distributed.comm.require-encryption": True,
            "distributed.comm.tls.ca-file": self.ca,
            "distributed.comm.tls.scheduler": pair,
            "distributed.comm.tls.worker": pair,
            "distributed.comm.tls.client": pair,
        }


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`: localhost, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(address: str) -> str:
    """``tcp://host:port``, ``host:port``, ``:port`` → the host ('' when there is none)."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    return parts.hostname or ""
