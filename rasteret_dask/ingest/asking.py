"""How catalogues are asked: patiently, with an end to waiting, and without a word of the links in what is told of failures.

A link may be signed, and the texts of pystac, pystac-client and requests name it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pystac
import pystac_client
import requests
import urllib3
from pystac.stac_io import DefaultStacIO
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from urllib3.exceptions import HTTPError, LocationValueError

from rasteret_dask.errors import SourceError, TransientError
from rasteret_dask.model import RetryPolicy
from rasteret_dask.storage.retry import from_status, parse_retry_after
from rasteret_dask.storage.urls import public

DOCUMENTS: Final = 16
"""Documents of a static catalogue under way at once."""

_TIMEOUT: Final = (10.0, 60.0)
"""Seconds to connect, and without a byte of an answer: searches of large catalogues think for a while."""
_BUSY: Final = (408, 425, 429, 500, 502, 503, 504)
_PATIENCE: Final = RetryPolicy().patience


class Patient(urllib3.Retry):
    """Obeys ``Retry-After`` unless it asks for more than patience has."""

    def get_retry_after(self, response: Any) -> float | None:
        """Seconds that are asked for; None for the usual pause."""
        wait = super().get_retry_after(response)
        return wait if wait is None or wait <= _PATIENCE else None

    def parse_retry_after(self, retry_after: str) -> float:
        """Seconds; 0, the usual pause, for what makes no sense."""
        return parse_retry_after(retry_after, time.time())


RETRIES: Final = Patient(
    total=5,
    connect=3,  # of a name with a typo one wants to hear soon
    other=3,
    backoff_factor=0.5,
    status_forcelist=_BUSY,
    allowed_methods=None,  # a search changes nothing, though it is a POST
    raise_on_status=False,
)


def open_api(url: str) -> Any:
    """A STAC API, as `pystac_client` has it.

    Raises
    ------
    APIError
        It cannot be had; see `api_errors`.
    """
    io = StacApiIO(max_retries=RETRIES)
    return pystac_client.Client.open(url, stac_io=io, timeout=_TIMEOUT)


@contextmanager
def api_errors(url: str) -> Iterator[None]:
    """What an API answers with, as errors of ours.

    Raises
    ------
    SourceError
        The API failed; `TransientError` when trying again may help.
    """
    try:
        yield
    except APIError as error:
        raise api_error(getattr(error, "status_code", None), str(error), url) from None
    except (requests.RequestException, pystac.STACError, json.JSONDecodeError) as error:
        raise SourceError(f"the STAC API failed: {type(error).__name__}", url=public(url)) from None
    except (ClientTypeError, pystac.STACTypeError) as error:
        raise SourceError(
            f"what answers is no STAC API ({type(error).__name__})",
            url=public(url),
            hint="the URL is that of an API's landing page, not of one of its collections",
        ) from None


def api_error(status: int | None, text: str, url: str) -> SourceError:
    """What an answer means; without a status there was none, and the text is not the API's own."""
    if status is None:
        return TransientError("the STAC API cannot be reached", url=public(url))
    kind = TransientError if status in _BUSY else SourceError
    return kind(f"the STAC API answered {status}: {text[:300]}", url=public(url))


class Documents(DefaultStacIO):
    """Documents of a static catalogue.

    Parameters
    ----------
    pool : urllib3.PoolManager
        By which those are asked for that are far away.
    """

    def __init__(self, pool: urllib3.PoolManager) -> None:
        super().__init__()
        self._pool = pool

    def read_text_from_href(self, href: str) -> str:
        """Read a document.

        Raises
        ------
        SourceError
            It is far away and cannot be had.
        """
        if "://" not in href or href.startswith("file:"):
            near: str = super().read_text_from_href(href)
            return near
        try:
            answer = self._pool.request(
                "GET",
                href,
                headers={"User-Agent": "rasteret-dask"},
                timeout=urllib3.Timeout(connect=_TIMEOUT[0], read=_TIMEOUT[1]),
                retries=RETRIES,
            )
        except HTTPError as error:
            # What it was in the end lies within the one that speaks of all attempts.
            why = type(getattr(error, "reason", None) or error).__name__
            kind = SourceError if isinstance(error, LocationValueError) else TransientError
            said = f"the STAC catalogue cannot be read ({why})"
            raise kind(said, url=public(href)) from None
        if answer.status >= 400:
            raise from_status(answer.status, public(href))
        return answer.data.decode("utf-8")


UNREADABLE: Final = (
    OSError,
    json.JSONDecodeError,
    UnicodeDecodeError,
    pystac.STACError,
    pystac.STACTypeError,
)
"""What comes of a document that is none, or not there."""


def unreadable(error: BaseException, url: str) -> SourceError:
    """What is wrong with a static catalogue.

    Parameters
    ----------
    error : Exception
        Of `UNREADABLE`; pystac wraps what went wrong with a link into one of its own, which names the link.
    url : str
        Of the catalogue.
    """
    while isinstance(error, pystac.STACError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, SourceError):
        return error
    plain = isinstance(error, (OSError, json.JSONDecodeError, UnicodeDecodeError))
    said = str(error) if plain else type(error).__name__
    return SourceError(f"the STAC catalogue cannot be read: {said}", url=public(url))
