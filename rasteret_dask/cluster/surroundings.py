"""What a cluster's processes need to know of where they run: proxies, certificate authorities, the cloud region."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import dask
from distributed import Client
from distributed.diagnostics.plugin import WorkerPlugin
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from rasteret_dask.documents import Strict
from rasteret_dask.storage.regions import CONFIG

_HERE = ("localhost", "127.0.0.1", "::1")
_AUTHORITIES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Python and obstore, requests (STAC searches), botocore, GDAL: each reads its own."""


class Network(Strict):
    """How processes of the cluster, and this one, reach the outside."""

    proxy: str | None = Field(default=None, description="http://host:port, without a password.")
    no_proxy: tuple[str, ...] = Field(
        default=(), description="Hosts and .domains reached directly."
    )
    ca_file: str | None = Field(
        default=None, description="PEM file of authorities, at the same place on every machine."
    )

    @field_validator("proxy")
    @classmethod
    def _no_password(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).password is not None:
            raise PydanticCustomError(
                "key_conflict",
                "a password in a profile would travel to the scheduler; set HTTPS_PROXY where the "
                "workers start",
            )
        return value

    def variables(self) -> dict[str, str]:
        """As the environment variables that everybody reads."""
        found: dict[str, str] = {}
        if self.proxy is not None:
            direct = ",".join(dict.fromkeys((*self.no_proxy, *_HERE)))
            for name, value in (
                ("HTTP_PROXY", self.proxy),
                ("HTTPS_PROXY", self.proxy),
                ("NO_PROXY", direct),
            ):
                found |= {name: value, name.lower(): value}
        if self.ca_file is not None:
            found |= dict.fromkeys(_AUTHORITIES, self.ca_file)
        return found


class Surroundings(Strict):
    """What profiles of every kind may say."""

    region: str | None = Field(
        default=None, description="Cloud region, as us-west-2; data elsewhere gives a warning."
    )
    network: Network | None = None


class Variables(WorkerPlugin):
    """Sets environment variables on workers, later joiners too, before anything is read there.

    Parameters
    ----------
    variables : mapping of str to str
    """

    name = "rasteret-dask-variables"

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = dict(variables)

    def setup(self, worker: Any) -> None:
        """Set them."""
        os.environ.update(self.variables)


@contextmanager
def exported(wanted: Mapping[str, str]) -> Iterator[None]:
    """Environment variables of this process and of those that it starts, for as long as the block lasts."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def surrounded(profile: Surroundings) -> Iterator[None]:
    """This process as the profile says, for as long as the block lasts."""
    wanted = {} if profile.network is None else profile.network.variables()
    options: Mapping[str, Any] = getattr(profile, "options", {})
    region = profile.region or options.get("region")
    with exported(wanted), dask.config.set({} if region is None else {CONFIG: region}):
        yield


def tell_workers(client: Client, profile: Surroundings) -> None:
    """Give workers what the profile says of the network."""
    if profile.network is not None:
        client.register_plugin(Variables(profile.network.variables()))
