"""Where a URL leads: pure string work, decided once and tested without a network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, unquote, unquote_plus, urlsplit, urlunsplit

from rasteret_dask.errors import ArgumentError

Kind = Literal["file", "object", "fsspec"]

_OBJECT_STORES = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "az",
    "abfs": "az",
    "abfss": "az",
}

# No escapes, no query, and no segment that is empty or begins with a dot.
_SIMPLE = re.compile(
    r"(https?://([A-Za-z0-9.:-]+))/((?:[A-Za-z0-9_~-][A-Za-z0-9_.~-]*/)*[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)"
)
_UNESCAPED = re.compile(r"[A-Za-z0-9_.~/-]*")
_SIGNATURES = {"sig", "x-amz-signature", "x-goog-signature", "signature", "token"}
_KEYS = {
    "access_key",
    "access_token",
    "accesstoken",
    "api-key",
    "api_key",
    "apikey",
    "auth_token",
    "authorization",
    "jwt",
    "password",
    "subscription-key",
    "x-api-key",
}


@dataclass(frozen=True, slots=True)
class Location:
    """A URL taken apart.

    Parameters
    ----------
    kind : {"file", "object", "fsspec"}
        Who reads it: the operating system, obstore, or fsspec.
    root : str
        What one store serves: ``https://host:port``, ``s3://bucket``; empty for local files.
    path : str
        The file within the root, percent-decoded for HTTP, as it stands for buckets; the local path for files; the whole URL for fsspec.
    host : str
        What limits are counted against.
    """

    kind: Kind
    root: str
    path: str
    host: str

    @property
    def web(self) -> bool:
        """Whether it is reached by HTTP."""
        return self.root.startswith("http")


def locate(url: str) -> Location:
    """Take a URL apart.

    Parameters
    ----------
    url : str
        A local path, or a URL of any protocol that obstore or fsspec serves.

    Returns
    -------
    Location

    Raises
    ------
    ArgumentError
        If the URL is empty.
    """
    simple = _SIMPLE.fullmatch(url)
    if simple is not None:  # most are; the rest of this takes five times as long
        return Location("object", simple[1], simple[3], simple[2])
    if not url:
        raise ArgumentError("an empty URL leads nowhere")
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if "://" not in url and (len(scheme) <= 1 or not url.startswith("file:")):
        return Location("file", "", str(Path(url)), "")
    if scheme == "file":
        return Location("file", "", unquote(parts.path), "")
    host = parts.netloc
    if scheme in _OBJECT_STORES:
        # A key is taken as it stands: "%20" and "#" are characters of it, as for every S3 tool.
        path = url.split("?", 1)[0].partition("://")[2].partition("/")[2].lstrip("/")
    else:
        path = unquote(parts.path).lstrip("/")
    # obstore has no notion of query strings, and refuses empty or dotted path segments.
    escaped = scheme in ("http", "https") and "%2f" in parts.path.lower()  # no separator
    plain = not (parts.query or escaped) and all(s not in ("", ".", "..") for s in path.split("/"))
    if scheme in ("http", "https") and plain:
        return Location("object", f"{scheme}://{host}", path, host)
    if scheme in _OBJECT_STORES and plain and "@" not in host:
        return Location("object", f"{_OBJECT_STORES[scheme]}://{host}", path, host)
    return Location("fsspec", scheme, url, host or scheme)


def public(url: str) -> str:
    """Return the URL without user information and query: what may be logged, stored and shown."""
    if "?" not in url and "@" not in url:
        return url  # Every request asks, and mostly there is nothing to take out.
    parts = urlsplit(url)
    host = _host(parts)
    # A password may stand without a user; and what has no scheme is no URL.
    if not parts.scheme or "://" not in url or not (parts.query or host != parts.netloc):
        return url
    return f"{parts.scheme}://{host}{parts.path}"


def _host(parts: SplitResult) -> str:
    """Without a user; Azure's abfs://container@account is a place, and has none."""
    person = parts.scheme in ("http", "https") or parts.password is not None
    return parts.netloc.rpartition("@")[2] if person else parts.netloc


def unsigned(url: str) -> str:
    """A URL without user, signature and key: a collection holds no secret, and a signature soon
    ends anyway.

    Of a signature all of the query is part; beside a key there may be what names the file.
    """
    if "://" not in url or ("?" not in url and "@" not in url):
        return url
    parts = urlsplit(url)
    pieces = parts.query.split("&")
    named = {piece: unquote_plus(piece.partition("=")[0]).lower() for piece in pieces}
    kept = [] if _SIGNATURES & set(named.values()) else [p for p in pieces if named[p] not in _KEYS]
    host = _host(parts)
    if host == parts.netloc and len(kept) == len(pieces):
        return url
    return urlunsplit(parts._replace(netloc=host, query="&".join(kept)))


def simple(path: str) -> bool:
    """Whether a path goes over the wire as it stands."""
    return _UNESCAPED.fullmatch(path) is not None
