"""URL and options to a store, cached for the life of the process.

State: ``_cache`` belongs to this module; its keys hold the process id, so a forked child makes its own stores. obstore does not
survive a fork after use in the parent (the child hangs), so such a child is given fsspec instead.
"""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from typing import Any

import fsspec
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from rasteret_dask.errors import ArgumentError
from rasteret_dask.model import RetryPolicy, StorageOptions
from rasteret_dask.storage import aws
from rasteret_dask.storage.urls import Location

_lock = threading.Lock()
_cache: dict[tuple[int, str, StorageOptions], Any] = {}
_state = {"used": False, "forked": False}


def object_store(location: Location, options: StorageOptions, *, writing: bool = False) -> Any:
    """Return the obstore store for a location, or None in a forked child that must do without.

    Parameters
    ----------
    location : Location
    options : StorageOptions
    writing : bool
        What is asked of it is no read: it tries again by itself, and waits for as long as a body takes to be sent.
    """
    if _state["forked"]:
        return None
    key = (os.getpid(), f"writing:{location.root}" if writing else location.root, options)
    store = _cache.get(key)
    if store is None:
        with _lock:
            store = _cache.get(key)
            if store is None:
                store = _cache[key] = _make(location, options, writing)
                _state["used"] = True
    return store


def _make(location: Location, options: StorageOptions, writing: bool) -> Any:
    # The whole-request timeout would punish big tiles on slow lines.
    client: dict[str, Any] = {
        "timeout": "1h",
        "connect_timeout": timedelta(seconds=min(10.0, options.retry.stall)),
        "pool_idle_timeout": "50s",
    }
    retry: dict[str, Any] = {"max_retries": 0}
    if writing:
        retry = _writers_patience(options.retry)
    else:
        # Retries of reads are ours (they are counted, limited and classified), so the store's own are off, and a connection is
        # given up when nothing arrives for `stall` seconds. While a body is sent, nothing does.
        client["read_timeout"] = timedelta(seconds=options.retry.stall)
    config = dict(options.options)
    endpoint = str(config.get("endpoint", ""))
    # The store's own word for it in the environment is not heard any more once it is given options.
    told = os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true"
    if told or location.root.startswith("http:") or endpoint.startswith("http:"):
        client["allow_http"] = True
    common: dict[str, Any] = {"client_options": client, "retry_config": retry}
    scheme = location.root.partition("://")[0]
    if scheme in ("http", "https"):
        return HTTPStore.from_url(location.root, **common)
    config = {name: _boolean(value) for name, value in config.items()}
    if scheme == "s3":
        extra, more = aws.store_arguments(options)
        return S3Store.from_url(location.root, config={**extra, **config}, **more, **common)
    if scheme == "gs":
        return GCSStore.from_url(location.root, config=config, **common)
    return AzureStore.from_url(location.root, config=config, **common)


def _writers_patience(policy: RetryPolicy) -> dict[str, Any]:
    """The policy as obstore has it, which retries 5xx, 429 and what breaks off."""
    first = max(policy.base, 0.01)
    return {
        "max_retries": policy.attempts - 1,
        "backoff": {
            "init_backoff": timedelta(seconds=first),
            "max_backoff": timedelta(seconds=max(policy.cap, first)),
            "base": 2,
        },
        # A request is signed once, and a signature holds for five minutes.
        "retry_timeout": timedelta(minutes=4),
    }


def _boolean(value: str) -> Any:
    return {"true": True, "false": False}.get(value.lower(), value)


def filesystem(location: Location, options: StorageOptions) -> Any:
    """Return the fsspec filesystem for a location (any protocol; synchronous, so call it from a thread)."""
    protocol = location.root.partition("://")[0] or "file"
    key = (os.getpid(), f"fsspec:{protocol}", options)
    fs = _cache.get(key)
    if fs is None:
        with _lock:
            fs = _cache.setdefault(key, _made(protocol, options))
    return fs


def _made(protocol: str, options: StorageOptions) -> Any:
    try:
        return fsspec.filesystem(protocol, **_fsspec_options(protocol, options))
    except (ValueError, ImportError) as error:
        raise ArgumentError(
            f"no filesystem for {protocol}://: {str(error)[:200]}",
            hint="fsspec must know the protocol, and its package be installed",
        ) from None


def _fsspec_options(protocol: str, options: StorageOptions) -> dict[str, Any]:
    config = dict(options.options)
    if protocol != "s3":
        return config if protocol not in ("http", "https") else {}
    out = aws.fsspec_arguments(options)
    if _boolean(config.get("skip_signature", "false")) is True:
        out["anon"] = True
    if "request_payer" in config:
        out["requester_pays"] = True
    if "endpoint" in config:
        out["endpoint_url"] = config["endpoint"]
    if "region" in config:
        out["client_kwargs"] = {"region_name": config["region"]}
    return out


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _cache.clear()
    _state["forked"] = _state["used"]


os.register_at_fork(after_in_child=_after_fork)
