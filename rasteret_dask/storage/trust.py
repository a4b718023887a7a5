"""Whom our own connections believe: the system's authorities, or certifi's where the system has none.

Interpreters that bring their own OpenSSL look for a file of authorities where they were built, which may not be there; a
slim container may have none at all. obstore brings its own list, so without this small ranges would fail where large ones work.

State: ``_contexts`` holds each process's settings; they belong to the event loop's thread.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import certifi

_contexts: dict[int, ssl.SSLContext] = {}


def context() -> ssl.SSLContext:
    """This process's trust: ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, else the system's, else certifi's. Reading it takes some 20 ms."""
    pid = os.getpid()
    found = _contexts.get(pid)
    if found is None:
        found = _contexts[pid] = ssl.create_default_context()
        found.set_alpn_protocols(["http/1.1"])
        if _nobody(found):
            found.load_verify_locations(certifi.where())
    return found


def _nobody(made: ssl.SSLContext) -> bool:
    """Whether a context believes nobody, and nobody has said that it should be so."""
    paths = ssl.get_default_verify_paths()
    if os.environ.get(paths.openssl_cafile_env) or os.environ.get(paths.openssl_capath_env):
        return False
    if made.cert_store_stats()["x509_ca"]:
        return False
    # Those of a folder are read when they are needed, and not counted before.
    return paths.capath is None or not any(Path(paths.capath).iterdir())
