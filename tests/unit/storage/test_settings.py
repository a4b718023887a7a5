"""Storage profiles: what ships is right, what is wrong is refused, and the command line uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import rasterio
from scripted import Answer, Asked, Scripted, part
from typer.testing import CliRunner

from rasteret_dask import resources
from rasteret_dask.cli.app import app
from rasteret_dask.errors import ConfigError
from rasteret_dask.model import StorageOptions
from rasteret_dask.storage import settings
from rasteret_dask.testing.catalog import write_demo_catalog

SHIPPED = resources.names(settings.FOLDER)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profiles_are_valid(name: str) -> None:
    found = settings.named(name)
    assert isinstance(found, StorageOptions)
    assert found != StorageOptions()


def test_what_they_say_is_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    pays = settings.named("requester-pays")
    assert pays is not None
    assert dict(pays.auth_options) == {"requester_pays": "true"}
    assert dict(pays.options) == {"region": "eu-north-1"}
    earthdata = settings.named("earthdata")
    assert earthdata is not None
    assert (earthdata.retry.attempts, earthdata.rate.cluster_in_flight) == (8, 128)
    assert settings.named(None) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"oauth": "aws"}, "did you mean 'auth'"),
        ({"auth": "asw"}, "is no recipe"),
        ({"auth": "aws", "auth_options": {"unsinged": "true"}}, "takes profile"),
        ({"options": {"secret_access_key": "x"}}, "looks like a secret"),
        ({"retry": {"attempts": 0}}, "at least 1"),
        ({"rate": {"in_fligth": 3}}, "did you mean 'in_flight'"),
    ],
)
def test_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings.from_mapping(data)


def test_runs_and_builds_reach_their_files_by_a_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_KEY", "w0rd")
    root = tmp_path / "files"
    catalog = write_demo_catalog(root, size=64, dates=("2023-07-03",), blocksize=64)

    def answer(asked: Asked, number: int) -> Answer:
        path = root / unquote(asked.target).lstrip("/")
        if path.suffix != ".tif":
            return Answer(200, path.read_bytes())
        if asked.headers.get("Authorization") != "Bearer w0rd":
            return Answer(401)
        return part(asked, path.read_bytes())

    with Scripted(answer) as server:
        hosts = {"env": "LAB_KEY", "hosts": server.host}
        profile = tmp_path / "lab.yaml"
        profile.write_text(json.dumps({"auth": "bearer", "auth_options": hosts}))
        where = f"{server.url}/{Path(catalog).name}"
        common = ["--workspace-dir", str(tmp_path / "ws"), "--static-catalog", where]
        command = ["build", "--name", "lab", *common, "--band", "red=red", "--json"]
        refused = CliRunner().invoke(app, command)
        assert refused.exit_code == 1
        assert "401" in refused.output
        built = CliRunner().invoke(app, [*command, "--storage", str(profile)])
        assert built.exit_code == 0, built.output
        # Credentials are no part of what was built: the same again with others, or without, is there.
        again = CliRunner().invoke(app, command)
        assert again.exit_code == 0, again.output
        assert json.loads(again.stdout)["headers"] == 0
        sets = {
            "collection.build": json.dumps(
                {
                    "dataset": "earthsearch/sentinel-2-l2a",
                    "static_catalog": where,
                    "name": "all",
                    "workspace_dir": str(tmp_path / "ws"),
                }
            ),
            "collection.subset": "null",
            "cube.bbox": "null",
            "outputs": json.dumps([{"cog": f"{tmp_path}/ndvi.tif"}]),
        }
        given = [one for key, value in sets.items() for one in ("--set", f"{key}={value}")]
        done = CliRunner().invoke(app, ["run", "ndvi_median", *given, "--storage", str(profile)])
        assert done.exit_code == 0, done.output
    with rasterio.open(tmp_path / "ndvi.tif") as result:
        assert (result.read(1, masked=True).count()) > 0
    record = (tmp_path / "ndvi.tif.run.json").read_text()
    assert str(profile) in record
    assert "w0rd" not in record
