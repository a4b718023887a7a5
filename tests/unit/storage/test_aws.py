"""What reaches an S3 endpoint: whose signature, who pays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted import Asked, Scripted, part

from rasteret_dask.errors import AccessError, ArgumentError
from rasteret_dask.model import StorageOptions
from rasteret_dask.storage import aws
from rasteret_dask.storage.loop import run
from rasteret_dask.storage.source import read_range

CONTENT = bytes(range(256))


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted(lambda asked, number: part(asked, CONTENT)) as found:
        yield found


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(
        "[lab]\naws_access_key_id = AKLAB\naws_secret_access_key = labsecret\n"
        "[passing]\naws_access_key_id = AKTMP\naws_secret_access_key = x\naws_session_token = TMPTOKEN\n"
    )
    (tmp_path / "config").write_text("[profile lab]\nregion = eu-north-1\n")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "envsecret")


def ask(server: Scripted, **auth: str) -> Asked:
    options = StorageOptions(
        options={"endpoint": server.url, "virtual_hosted_style_request": "false"},
        auth="aws",
        auth_options=auth,
    )
    found = run(read_range("s3://bucket/a.tif", 10, 20, options=options))
    assert bytes(found.data) == CONTENT[10:20]
    return server.asked[-1]


def test_the_environment_signs(server: Scripted) -> None:
    assert "Credential=AKENV/" in ask(server).headers["Authorization"]


def test_a_profile_signs_for_its_region(server: Scripted) -> None:
    signature = ask(server, profile="lab").headers["Authorization"]
    assert "Credential=AKLAB/" in signature
    assert "/eu-north-1/s3/" in signature


def test_temporary_credentials_bring_their_token(server: Scripted) -> None:
    asked = ask(server, profile="passing")
    assert asked.headers["X-Amz-Security-Token"] == "TMPTOKEN"
    assert "Credential=AKTMP/" in asked.headers["Authorization"]


def test_unsigned(server: Scripted) -> None:
    assert "Authorization" not in ask(server, unsigned="true").headers


def test_requester_pays(server: Scripted) -> None:
    asked = ask(server, requester_pays="true", profile="lab")
    assert asked.headers["X-Amz-Request-Payer"] == "requester"


def test_s3fs_is_told_the_same() -> None:
    options = StorageOptions(auth="aws", auth_options={"profile": "lab", "requester_pays": "true"})
    assert aws.fsspec_arguments(options) == {"profile": "lab", "requester_pays": True}
    anonymous = StorageOptions(auth="aws", auth_options={"unsigned": "true"})
    assert aws.fsspec_arguments(anonymous) == {"anon": True}
    assert aws.fsspec_arguments(StorageOptions()) == {}


def test_a_profile_that_is_not_there(server: Scripted) -> None:
    with pytest.raises(AccessError) as caught:
        ask(server, profile="nobody")
    assert "nobody" in str(caught.value)
    assert server.asked == []


@pytest.mark.parametrize("bad", [{"profil": "x"}, {"profile": "x", "unsigned": "true"}])
def test_parameters_that_mean_nothing(server: Scripted, bad: dict[str, str]) -> None:
    with pytest.raises(ArgumentError):
        ask(server, **bad)
