"""Credentials made where they are used: the right ones, for the right hosts, renewed in time, never shown."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from scripted import Answer, Asked, Scripted, part

from rasteret_dask import errors
from rasteret_dask.model import RatePolicy, RetryPolicy, StorageOptions
from rasteret_dask.storage.auth import Grant, Keeper, renewal
from rasteret_dask.storage.fetch import Fetch
from rasteret_dask.storage.http import proxy_for
from rasteret_dask.storage.loop import run
from rasteret_dask.storage.recipes import keeper, make_recipe
from rasteret_dask.storage.source import RangeRequest, read_range

CONTENT = bytes(range(256)) * 40
SECRET = "s3cr3t"
RETRY = RetryPolicy(attempts=6, base=0.01, cap=0.05)


class Account:
    """A server of files that want a token, and of the tokens; they live for ``life`` seconds."""

    def __init__(self, life: float, *, busy: int = 0) -> None:
        self.life, self.busy = life, busy
        self.minted = self.refused = 0
        self._lock = threading.Lock()
        self.server = Scripted(self.answer)

    def answer(self, asked: Asked, number: int) -> Answer:
        parts = urlsplit(asked.target)
        with self._lock:
            if parts.path.startswith("/token/"):
                if self.busy:
                    self.busy -= 1
                    return Answer(429, headers={"Retry-After": "0"})
                self.minted += 1
                end = time.time() + self.life
                body = {
                    "msft:expiry": datetime.fromtimestamp(end, UTC).isoformat(),
                    "token": f"sig={SECRET}-{end!r}&sp=r",
                }
                return Answer(200, json.dumps(body).encode())
            given = parse_qs(parts.query).get("sig", [""])[0].rpartition("-")[2]
            if not given or float(given) < time.time():
                self.refused += 1
                return Answer(403)
        return part(asked, CONTENT)

    def options(self, **more: str) -> StorageOptions:
        where = {"endpoint": f"{self.server.url}/token", "hosts": self.server.host, **more}
        return StorageOptions(
            retry=RETRY, auth="planetary-computer", auth_options=where, rate=RatePolicy(in_flight=4)
        )


def read(url: str, options: StorageOptions) -> bytes:
    return bytes(run(read_range(url, 10, 90, options=options)).data)


def test_one_token_for_each_container() -> None:
    account = Account(life=60)
    with account.server as server:
        requests = [
            RangeRequest(f"{server.url}/box{k % 2}/a b%20.tif".replace(" ", "%20"), k, k + 50)
            for k in range(40)
        ]
        found = {n: bytes(data) for n, data in Fetch(requests, account.options())}
        paths = [a.target.partition("?")[0] for a in server.asked if "token" in a.target]
    assert found == {k: CONTENT[k : k + 50] for k in range(40)}
    assert sorted(paths) == ["/token/127/box0", "/token/127/box1"]
    assert account.refused == 0


def test_tokens_that_live_for_a_second_outlast_a_long_job() -> None:
    account = Account(life=1.0)
    with account.server as server:
        options, end = account.options(), time.monotonic() + 3.5
        while time.monotonic() < end:
            assert read(f"{server.url}/box/a.tif", options) == CONTENT[10:90]
            time.sleep(0.01)
    assert account.minted >= 4
    assert account.refused == 0  # renewed before they end


def test_a_token_that_the_server_takes_back_is_asked_for_once_more() -> None:
    account = Account(life=60)
    with account.server as server:
        options, url = account.options(), f"{server.url}/box/a.tif"
        assert read(url, options) == CONTENT[10:90]
        held = keeper(options)
        _, end = held._grants["127/box"]
        held._grants["127/box"] = (
            Grant(query=f"sig={SECRET}-1.0"),
            end,
        )  # the server's clock differs
        assert read(url, options) == CONTENT[10:90]
        assert (account.minted, account.refused) == (2, 1)
        account.life = -10.0
        held.forget("127/box", held._grants["127/box"][0])
        with pytest.raises(errors.AccessError) as caught:
            read(url, options)
        assert account.refused == 3  # once, and once more
    assert SECRET not in str(caught.value) + repr(caught.value)


def test_a_busy_token_endpoint_is_asked_again() -> None:
    account = Account(life=60, busy=3)
    with account.server as server:
        assert read(f"{server.url}/box/a.tif", account.options()) == CONTENT[10:90]


def test_a_token_endpoint_that_never_answers_is_an_access_error() -> None:
    account = Account(life=60, busy=1000)
    with account.server as server, pytest.raises(errors.AccessError, match="no token can be had"):
        read(f"{server.url}/box/a.tif", account.options())


def test_signed_urls_and_other_hosts_need_no_token() -> None:
    account = Account(life=60)
    recipe = make_recipe(account.options())
    assert recipe.scope(f"http://{account.server.host}/box/a.tif") == "127/box"
    assert recipe.scope(f"http://{account.server.host}/box/a.tif?sig=x") is None
    assert recipe.scope("https://example.org/box/a.tif") is None
    real = make_recipe(StorageOptions(auth="planetary-computer"))
    assert real.scope("https://sentinel2l2a01.blob.core.windows.net/c/x.tif") == "sentinel2l2a01/c"


# --- tokens in headers ---------------------------------------------------------------------------
@pytest.fixture
def guarded() -> Iterator[Scripted]:
    def answer(asked: Asked, number: int) -> Answer:
        if asked.headers.get("Authorization") != f"Bearer {SECRET}":
            return Answer(401)
        return part(asked, CONTENT)

    with Scripted(answer) as server:
        yield server


def bearer(server: Scripted, **parameters: str) -> StorageOptions:
    return StorageOptions(
        retry=RETRY, auth="bearer", auth_options={"hosts": server.host, **parameters}
    )


def test_a_bearer_token_from_the_environment(
    guarded: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    assert read(f"{guarded.url}/a.tif", bearer(guarded, env="MY_KEY")) == CONTENT[10:90]
    with pytest.raises(errors.AccessError, match="NO_SUCH_KEY"):
        read(f"{guarded.url}/a.tif", bearer(guarded, env="NO_SUCH_KEY"))


def test_a_token_in_a_file_is_read_anew_when_refused(guarded: Scripted, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("old\n")
    options = bearer(guarded, file=str(tmp_path / "key"))
    with pytest.raises(errors.AccessError):
        read(f"{guarded.url}/a.tif", options)
    (tmp_path / "key").write_text(f"{SECRET}\n")
    assert read(f"{guarded.url}/a.tif", options) == CONTENT[10:90]


def test_a_token_goes_to_its_hosts_alone(
    guarded: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not to a host that is not named, not to one that it is sent on to, not over plain http."""
    monkeypatch.setenv("MY_KEY", SECRET)

    def move(asked: Asked, number: int) -> Answer:
        return Answer(302, headers={"Location": f"http://localhost:{other.host[10:]}/a.tif"})

    with Scripted(lambda asked, number: part(asked, CONTENT)) as other, Scripted(move) as moved:
        options = bearer(guarded, env="MY_KEY")
        assert read(f"{other.url}/a.tif", options) == CONTENT[10:90]
        assert read(f"{moved.url}/a.tif", bearer(moved, env="MY_KEY")) == CONTENT[10:90]
        assert moved.asked[0].headers["Authorization"] == f"Bearer {SECRET}"
        assert len(other.asked) == 2
        assert all("Authorization" not in asked.headers for asked in other.asked)
    plain = StorageOptions(auth="bearer", auth_options={"env": "MY_KEY", "hosts": "*.example.org"})
    with pytest.raises(errors.AccessError, match="never sent over plain http"):
        read("http://data.example.org/a.tif", plain)


def test_a_token_that_is_held_already_goes_to_no_plain_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One grant serves all hosts that a recipe names, whatever the file was that it was made for."""
    monkeypatch.setenv("MY_KEY", SECRET)
    options = StorageOptions(
        retry=RETRY, auth="bearer", auth_options={"env": "MY_KEY", "hosts": "*.example.invalid"}
    )
    run(keeper(options).grant("https://d.example.invalid/a.tif", "bearer"))
    with pytest.raises(errors.AccessError, match="never sent over plain http"):
        read("http://d.example.invalid/b.tif", options)
    assert "bearer" in keeper(options)._grants  # the next https file needs no other
    own_one = StorageOptions(
        retry=RETRY, auth=f"{__name__}:own_header", auth_options={"word": SECRET}
    )
    with pytest.raises(errors.AccessError, match="never sent over plain http"):
        read("http://d.example.invalid/b.tif", own_one)


def test_no_secret_of_any_name_is_passed_on_to_another_server() -> None:
    """On the same server it is; and one that has been lost does not come back with the way back."""
    ways = {"/here": "/b.tif", "/away": "http://localhost:{port}/back", "/round": "/round"}

    def guarded(asked: Asked, number: int) -> Answer:
        to = ways.get(asked.target)
        if to is None:
            return part(asked, CONTENT)
        return Answer(307, headers={"Location": to.format(port=away.host[10:])})

    def back(asked: Asked, number: int) -> Answer:
        return Answer(302, headers={"Location": f"{home.url}/c.tif"})

    with Scripted(guarded) as home, Scripted(back) as away:
        options = StorageOptions(
            retry=RETRY, auth=f"{__name__}:own_header", auth_options={"word": SECRET}
        )
        assert read(f"{home.url}/here", options) == CONTENT[10:90]
        assert read(f"{home.url}/away", options) == CONTENT[10:90]
        with pytest.raises(errors.SourceError, match="HTTP 307"):
            read(f"{home.url}/round", options)
    shown = {a.target: a.headers.get("X-Api-Key") for a in home.asked + away.asked}
    assert shown == {
        "/here": SECRET,
        "/b.tif": SECRET,
        "/away": SECRET,
        "/back": None,
        "/c.tif": None,
        "/round": SECRET,
    }
    assert [a.target for a in home.asked].count("/round") < 20


def test_a_token_endpoint_s_key_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", SECRET)
    account = Account(life=60)

    def move(asked: Asked, number: int) -> Answer:
        port = account.server.host[10:]
        return Answer(301, headers={"Location": f"http://localhost:{port}{asked.target}"})

    with account.server as server, Scripted(move) as moved:
        options = account.options(endpoint=f"{moved.url}/token")
        assert read(f"{server.url}/box/a.tif", options) == CONTENT[10:90]
    assert moved.asked[0].headers["Ocp-Apim-Subscription-Key"] == SECRET
    assert not any("Ocp-Apim-Subscription-Key" in asked.headers for asked in account.server.asked)


def test_earthdata_from_the_environment_and_from_netrc(
    guarded: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"{guarded.url}/a.tif"
    hosts = {"hosts": guarded.host}
    monkeypatch.setenv("EARTHDATA_TOKEN", SECRET)
    assert read(url, StorageOptions(auth="earthdata", auth_options=hosts)) == CONTENT[10:90]
    monkeypatch.delenv("EARTHDATA_TOKEN")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    def login(asked: Asked, number: int) -> Answer:
        assert (asked.method, asked.target) == ("POST", "/api/users/find_or_create_token")
        assert asked.headers["Authorization"] == "Basic bWU6cGFzcw=="
        body = {"access_token": SECRET, "expiration_date": "12/31/2099", "token_type": "Bearer"}
        return Answer(200, json.dumps(body).encode())

    with Scripted(login) as urs:
        options = StorageOptions(auth="earthdata", auth_options={**hosts, "endpoint": urs.url})
        with pytest.raises(errors.AccessError, match="neither EARTHDATA_TOKEN nor an entry"):
            read(url, options)
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password pass\n")
        (tmp_path / "netrc").chmod(0o600)
        assert read(url, options) == CONTENT[10:90]


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "localhost,.internal")
    assert proxy_for("https://h.org/a.tif") == "http://proxy.example:3128"
    assert proxy_for("https://x.internal/a.tif") is None
    assert proxy_for("http://h.org/a.tif") is None


# --- one's own -----------------------------------------------------------------------------------
def own(url: str, word: str) -> dict[str, object]:
    return {"headers": {"Authorization": f"Bearer {word}"}}


def own_header(url: str, word: str) -> dict[str, object]:
    return {"headers": {"X-Api-Key": word}}


async def own_later(url: str, word: str) -> dict[str, object]:
    await asyncio.sleep(0)
    return own(url, word)


def own_none(url: str) -> None:
    return None


def own_broken(url: str) -> dict[str, object]:
    raise KeyError(SECRET)


@pytest.mark.parametrize("name", ["own", "own_later"])
def test_a_function_of_one_s_own(guarded: Scripted, name: str) -> None:
    options = StorageOptions(auth=f"{__name__}:{name}", auth_options={"word": SECRET})
    assert read(f"{guarded.url}/a.tif", options) == CONTENT[10:90]


def test_what_a_function_of_one_s_own_raises_is_not_shown(guarded: Scripted) -> None:
    with pytest.raises(errors.AccessError, match="KeyError") as caught:
        read(f"{guarded.url}/a.tif", StorageOptions(auth=f"{__name__}:own_broken"))
    assert SECRET not in repr(caught.value) + str(caught.value)
    with pytest.raises(errors.AccessError, match="HTTP 401"):
        read(f"{guarded.url}/a.tif", StorageOptions(auth=f"{__name__}:own_none"))


# --- what is refused, and what is never told ------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"auth": "aliens"}, "no recipe"),
        ({"auth": "nowhere:at_all"}, "cannot be imported"),
        ({"auth": "bearer"}, "needs env="),
        ({"auth": "bearer", "auth_options": {"env": "X"}}, "needs hosts="),
        ({"auth": "planetary-computer", "auth_options": {"env": "X"}}, "takes endpoint, hosts"),
    ],
)
def test_recipes_that_cannot_be(options: dict[str, object], words: str) -> None:
    with pytest.raises(errors.ArgumentError, match=words):
        make_recipe(StorageOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["token", "sas_token", "Password", "aws_secret_access_key"])
def test_secrets_are_refused_as_parameters(name: str) -> None:
    with pytest.raises(errors.ArgumentError, match="looks like a secret"):
        StorageOptions(auth="bearer", auth_options={name: "x"})
    with pytest.raises(errors.ArgumentError, match="belong to a recipe"):
        StorageOptions(auth_options={"env": "x"})


def test_grants_are_neither_printed_nor_pickled() -> None:
    grant = Grant(query=f"sig={SECRET}", headers={"Authorization": SECRET})
    assert SECRET not in repr(grant) + str(grant)
    with pytest.raises(TypeError):
        pickle.dumps(grant)
    with pytest.raises(TypeError):
        copy.deepcopy(grant)


def test_renewals_come_before_the_end_and_at_different_times() -> None:
    assert renewal(Grant(), 0.0, 0.5) == float("inf")
    for life in (2.0, 100.0, 3600.0):
        times = [renewal(Grant(expires=1000.0 + life), 1000.0, k / 10) for k in range(10)]
        assert all(1000.0 + 0.8 * life <= t < 1000.0 + life for t in times)
        assert len(set(times)) == 10


def test_many_who_want_a_grant_at_once_ask_once() -> None:
    class Counting:
        minted = 0

        def scope(self, url: str) -> str:
            return "all"

        async def mint(self, url: str, scope: str) -> Grant:
            self.minted += 1
            await asyncio.sleep(0.01)
            return Grant(query="x", expires=time.time() + 60)

    async def main() -> None:
        recipe = Counting()
        kept = Keeper(recipe)
        grants = await asyncio.gather(*(kept.grant("u", "all") for _ in range(50)))
        assert recipe.minted == 1
        assert len(set(map(id, grants))) == 1
        kept.forget("all", Grant())  # another's
        assert (await kept.grant("u", "all")) is grants[0]

    asyncio.run(main())
