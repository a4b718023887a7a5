"""The credential recipes that ship, by name.

``planetary-computer``
    A SAS token for each storage account and container, from the token endpoint. Options: ``endpoint``, ``hosts``. The worker's
    ``PC_SDK_SUBSCRIPTION_KEY``, if set, goes along.
``earthdata``
    A bearer token from the worker's ``EARTHDATA_TOKEN``, or one that Earthdata Login gives for the entry of its host in ``~/.netrc`` (or
    ``NETRC``). Options: ``endpoint``, ``hosts``.
``bearer``
    A bearer token from the environment or a mounted file, read anew when it is refused. Options: ``env`` or ``file``, and ``hosts``.
``aws``
    For ``s3://``. Options: ``profile``, ``unsigned``, ``requester_pays``; temporary credentials are renewed. Without ``profile`` it is the
    worker's environment, web identity or instance role.

``hosts`` are patterns (``*.example.org``, separated by commas) of those who may see the secret; others are read without it. A token in a
header goes over https, or to this machine, and never elsewhere.

State: ``_keepers`` holds the grants of this process; a forked child makes its own.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import netrc
import os
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rasteret_dask.errors import AccessError, ArgumentError, SourceError
from rasteret_dask.model import StorageOptions
from rasteret_dask.storage import http
from rasteret_dask.storage.attempts import limiter, with_retries
from rasteret_dask.storage.auth import Grant, Keeper, Recipe
from rasteret_dask.storage.ranges import RangeResponse

_keepers: dict[tuple[int, StorageOptions], Keeper] = {}


def keeper(options: StorageOptions) -> Keeper:
    """Return this process's keeper for options that name a recipe."""
    key = (os.getpid(), options)
    found = _keepers.get(key)
    if found is None:
        # Of two threads that make one at once, one is kept.
        found = _keepers.setdefault(key, Keeper(make_recipe(options)))
    return found


def make_recipe(options: StorageOptions) -> Recipe:
    """Make the recipe that options name.

    Raises
    ------
    ArgumentError
        If there is none of that name, or its parameters are wrong.
    """
    name = options.auth or ""
    if ":" in name:
        return Custom(load(name), options.auth_options)
    make = RECIPES.get(name)
    if make is None:
        raise ArgumentError(
            f"auth={name!r} is no recipe", hint=f"there is {', '.join(RECIPES)}, or module:function"
        )
    known = [p for p in inspect.signature(make).parameters if p != "storage"]
    if unknown := set(options.auth_options) - set(known):
        raise ArgumentError(f"auth={name!r} takes {', '.join(known)}, not {sorted(unknown)}")
    return make(storage=options, **options.auth_options)


def load(path: str) -> Callable[..., Any]:
    """Import ``module:function``.

    Raises
    ------
    ArgumentError
        If it is not there.
    """
    module, _, name = path.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise ArgumentError(
            f"auth={path!r} cannot be imported in this process",
            hint="the module must be installed where the workers run",
        ) from None
    return found


async def _ask(
    url: str, storage: StorageOptions, headers: Mapping[str, str], method: str = "GET"
) -> dict[str, Any]:
    """Ask a token endpoint, patiently."""

    async def attempt(*, careful: bool) -> RangeResponse:
        return await http.get_document(url, headers=headers, policy=storage.retry, method=method)

    # A gate of its own: whoever waits for a token may hold a place at the same host's gate.
    gate = limiter(storage.rate).host(f"auth:{urlsplit(url).netloc}")
    try:
        response = await with_retries(attempt, url, storage.retry, gate)
        answer = json.loads(response.data)
    except SourceError as error:
        raise AccessError(f"no token can be had: {error.message}", url=url) from None
    except ValueError:
        raise AccessError("the token endpoint answers something else than JSON", url=url) from None
    if not isinstance(answer, dict):
        raise AccessError("the token endpoint answers something else than a token", url=url)
    return answer


def _matches(url: str, hosts: str) -> bool:
    host = urlsplit(url).netloc.rpartition("@")[2].lower()
    return any(fnmatchcase(host, pattern.strip().lower()) for pattern in hosts.split(","))


def private(url: str) -> bool:
    """Whether nobody on the way can read what is sent."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")


def _bearer(token: str, expires: float | None = None) -> Grant:
    return Grant(headers={"Authorization": f"Bearer {token}"}, expires=expires)


def _secret(env: str | None, file: str | None) -> str:
    """Read a secret on the worker."""
    if file is not None:
        try:
            return Path(file).expanduser().read_text().strip()
        except OSError as error:
            raise AccessError(
                f"the file {file} with the credential cannot be read ({error.strerror})"
            ) from None
    value = os.environ.get(env or "")
    if not value:
        raise AccessError(
            f"this process has no environment variable {env}",
            hint="set it where the workers start; it is not sent to them",
        )
    return value


@dataclass(frozen=True, slots=True)
class PlanetaryComputer:
    """SAS tokens of the Planetary Computer."""

    storage: StorageOptions
    endpoint: str = "https://planetarycomputer.microsoft.com/api/sas/v1/token"
    hosts: str = "*.blob.core.windows.net"

    def scope(self, url: str) -> str | None:
        """``account/container``; none where the URL is signed already."""
        parts = urlsplit(url)
        if "sig=" in parts.query or not _matches(url, self.hosts):
            return None
        account = parts.netloc.partition(".")[0].partition(":")[0]
        return f"{account}/{parts.path.lstrip('/').partition('/')[0]}"

    async def mint(self, url: str, scope: str) -> Grant:
        """Ask the endpoint for the container's token.

        Raises
        ------
        AccessError
            The endpoint gives none.
        """
        key = os.environ.get("PC_SDK_SUBSCRIPTION_KEY")
        headers = {"Ocp-Apim-Subscription-Key": key} if key else {}
        answer = await _ask(f"{self.endpoint.rstrip('/')}/{scope}", self.storage, headers)
        try:
            expires = datetime.fromisoformat(str(answer["msft:expiry"]).replace("Z", "+00:00"))
            return Grant(query=str(answer["token"]), expires=expires.timestamp())
        except (KeyError, ValueError):
            raise AccessError("the token endpoint's answer lacks token or expiry") from None


@dataclass(frozen=True, slots=True)
class Earthdata:
    """Bearer tokens of NASA's Earthdata Login."""

    storage: StorageOptions
    endpoint: str = "https://urs.earthdata.nasa.gov"
    hosts: str = "*.earthdata.nasa.gov,*.earthdatacloud.nasa.gov"

    def scope(self, url: str) -> str | None:
        """One token serves all hosts."""
        return "earthdata" if _matches(url, self.hosts) else None

    async def mint(self, url: str, scope: str) -> Grant:
        """Take the environment's token, or ask for one in the name of netrc's user.

        Raises
        ------
        AccessError
            The login gives none, or it would be asked over plain http.
        """
        token = os.environ.get("EARTHDATA_TOKEN")
        if token:
            return _bearer(token)
        user, word = self._login()
        basic = b64encode(f"{user}:{word}".encode()).decode()
        endpoint = f"{self.endpoint.rstrip('/')}/api/users/find_or_create_token"
        if not private(endpoint):
            raise AccessError("a password is never sent over plain http")
        answer = await _ask(endpoint, self.storage, {"Authorization": f"Basic {basic}"}, "POST")
        try:
            end = datetime.strptime(str(answer["expiration_date"]), "%m/%d/%Y")
            return _bearer(str(answer["access_token"]), end.replace(tzinfo=UTC).timestamp())
        except (KeyError, ValueError):
            raise AccessError("Earthdata Login's answer lacks token or expiry") from None

    def _login(self) -> tuple[str, str]:
        host = urlsplit(self.endpoint).hostname or ""
        path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
        try:
            found = netrc.netrc(path).authenticators(host)
        except (OSError, netrc.NetrcParseError):
            found = None
        if found is None:
            raise AccessError(
                f"this process has neither EARTHDATA_TOKEN nor an entry for {host} in {path}",
                hint="set one of them where the workers start",
            )
        return found[0], found[2] or ""


@dataclass(frozen=True, slots=True)
class Bearer:
    """A bearer token from the worker's environment or a file."""

    storage: StorageOptions
    hosts: str = ""
    env: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if (self.env is None) == (self.file is None):
            raise ArgumentError("auth='bearer' needs env= (the name of a variable) or file=")
        if not self.hosts.strip():
            raise ArgumentError("auth='bearer' needs hosts=, those who may see the token")

    def scope(self, url: str) -> str | None:
        """One token serves all hosts that may see it."""
        return "bearer" if _matches(url, self.hosts) else None

    async def mint(self, url: str, scope: str) -> Grant:
        """Read the token."""
        # A file is read again each minute: whoever rotates a mounted secret writes it anew.
        expires = None if self.file is None else time.time() + 60.0
        return _bearer(_secret(self.env, self.file), expires)


@dataclass(frozen=True, slots=True)
class Aws:
    """Credentials of ``s3://``: the store takes them from :mod:`rasteret_dask.storage.stores`, so no URL needs a grant."""

    storage: StorageOptions
    profile: str | None = None
    unsigned: str = "false"
    requester_pays: str = "false"

    def scope(self, url: str) -> str | None:
        """None."""
        return None

    async def mint(self, url: str, scope: str) -> Grant:
        """Nothing to make."""
        return Grant()


@dataclass(frozen=True, slots=True)
class Custom:
    """A function of one's own: ``function(url, **parameters)`` returns a mapping with ``query``, ``headers`` and ``expires``, or None.

    It may be a coroutine function; otherwise it runs in a thread. What it returns holds for the URL's host.
    """

    function: Callable[..., Any]
    parameters: Mapping[str, str] = field(default_factory=dict)

    def scope(self, url: str) -> str | None:
        """The host."""
        return urlsplit(url).netloc

    async def mint(self, url: str, scope: str) -> Grant:
        """Call the function; what it raises is not shown, it may hold anything."""
        if inspect.iscoroutinefunction(self.function):
            call = self.function(url, **self.parameters)
        else:
            call = asyncio.to_thread(self.function, url, **self.parameters)
        answers = await asyncio.gather(call, return_exceptions=True)
        found: Any = answers[0]
        if found is None:
            return Grant(expires=time.time() + 60.0)
        if not isinstance(found, Mapping):
            raise AccessError(f"the credential recipe failed ({type(found).__name__})")
        return Grant(found.get("query", ""), found.get("headers", {}), found.get("expires"))


RECIPES: Mapping[str, Callable[..., Recipe]] = {
    "aws": Aws,
    "bearer": Bearer,
    "earthdata": Earthdata,
    "planetary-computer": PlanetaryComputer,
}
"""By the name that :class:`~rasteret_dask.model.StorageOptions` uses."""
