"""How catalogues are asked: again while they are busy, not for ever, and without a word of secrets in links."""

from __future__ import annotations

import json
import socket
from typing import Any

import numpy as np
import pytest
import urllib3
from scripted import Answer, Asked, Scripted
from stacapi import StacApi, item

from rasteret_dask.errors import (
    AccessError,
    EmptySelectionError,
    NotFoundError,
    SourceError,
    TransientError,
)
from rasteret_dask.ingest import asking
from rasteret_dask.ingest.stac import Search, search_api, search_static


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between attempts."""
    monkeypatch.setattr(asking, "RETRIES", asking.RETRIES.new(backoff_factor=0.0))


@pytest.mark.usefixtures("impatient")
def test_a_search_is_made_again_while_the_api_is_busy() -> None:
    search = Search.of(None, None, None, {})
    rng = np.random.default_rng(1)
    with StacApi([item(k, "x.tif", rng, interval=False) for k in range(10)], page=5) as api:
        api.refusals = [503, 502]
        assert len(search_api(api.url, search)) == 10
        assert len(api.asked) == 2 + 2
        api.status = 503
        with pytest.raises(TransientError, match="answered 503"):
            search_api(api.url, search)
        assert len(api.asked) == 4 + 6


def test_an_api_that_is_silent_or_not_there_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And its address is shown without what may be a secret."""
    monkeypatch.setattr(asking, "RETRIES", asking.RETRIES.new(total=0))
    monkeypatch.setattr(asking, "_TIMEOUT", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        for _ in range(2):
            with pytest.raises(TransientError, match="cannot be reached") as caught:
                search_api(f"{address}?k=SECRET", Search.of(None, None, None, {}))
            assert "SECRET" not in str(caught.value)
            assert caught.value.url == address
            silent.close()


@pytest.mark.parametrize(
    ("asked", "wait"), [("3", 3), ("3600", None), (None, None), ("0.5", 0.5), ("soon", 0)]
)
def test_patience_has_an_end(asked: str | None, wait: float | None) -> None:
    answer = urllib3.HTTPResponse(headers={} if asked is None else {"Retry-After": asked})
    assert asking.RETRIES.get_retry_after(answer) == wait


def document(**more: Any) -> Answer:
    catalogue = {"type": "Catalog", "id": "c", "stac_version": "1.0.0", "description": "x"}
    return Answer(200, json.dumps({**catalogue, **more}).encode())


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("rel", ["root", "child", "item"])
@pytest.mark.parametrize(
    ("status", "error"),
    [(404, NotFoundError), (403, AccessError), (400, SourceError), (500, TransientError)],
)
def test_documents_that_cannot_be_had_are_named_without_their_signature(
    rel: str, status: int, error: type[Exception]
) -> None:
    def answer(asked: Asked, number: int) -> Answer:
        if rel == "root" or asked.target.startswith("/inner.json"):
            return Answer(status)
        return document(links=[{"rel": rel, "href": f"{server.url}/inner.json?sig=SECRET"}])

    with Scripted(answer) as server:
        url = f"{server.url}/catalog.json?sig=SECRET"
        with pytest.raises(error) as caught:
            search_static(url, Search())
    assert "SECRET" not in str(caught.value)
    assert caught.value.url == f"{server.url}/{'catalog' if rel == 'root' else 'inner'}.json"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("impatient")
def test_a_static_catalogue_is_asked_again_while_its_server_is_busy() -> None:
    def answer(asked: Asked, number: int) -> Answer:
        return Answer(503) if number < 2 else document(links=[])

    with Scripted(answer) as server, pytest.raises(EmptySelectionError):
        search_static(f"{server.url}/catalog.json", Search())
    assert len(server.asked) >= 3


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_not_there_and_a_text_that_is_no_catalogue() -> None:
    with Scripted(lambda asked, number: Answer(200, b"<html>")) as server:
        url = f"{server.url}/catalog.json?sig=SECRET"
        with pytest.raises(SourceError, match="cannot be read") as caught:
            search_static(url, Search())
        assert "SECRET" not in str(caught.value)
    with pytest.raises(TransientError, match=r"cannot be read \(NewConnectionError\)") as caught:
        search_static(url, Search())
    assert "SECRET" not in str(caught.value)


def test_what_answers_and_is_no_api_is_named_without_secrets() -> None:
    collection = {
        "type": "Collection",
        "id": "c",
        "stac_version": "1.0.0",
        "description": "x",
        "license": "none",
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [[None, None]]},
        },
        "links": [],
    }
    for said in (collection, {"message": "no"}):
        answer = Answer(200, json.dumps(said).encode(), {"Content-Type": "application/json"})
        with (
            Scripted(lambda *_, answer=answer: answer) as server,
            pytest.raises(SourceError, match="no STAC API") as caught,
        ):
            search_api(f"{server.url}?api_key=SECRET", Search.of(None, None, None, {}))
        assert "landing page" in str(caught.value.hint)
        assert "SECRET" not in str(caught.value)
