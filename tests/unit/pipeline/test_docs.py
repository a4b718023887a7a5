"""What the documents say is true: their pipelines are valid, their commands and names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import rasteret_dask
from rasteret_dask import errors, resources
from rasteret_dask.cli.app import app
from rasteret_dask.documents import parse
from rasteret_dask.pipeline import check, config
from rasteret_dask.pipeline.indices import INDICES
from rasteret_dask.pipeline.sources import Cube

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}


def test_the_pipeline_of_the_readme():
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT["README.md"], re.S)
    check.check(config.from_mapping(parse(block)))


def test_every_command_is_documented_and_exists():
    known = {info.name or info.callback.__name__ for info in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    said = set()
    for page, text in TEXT.items():
        if page != "docs/formats.md":  # whose formats are called "rasteret-dask commit" and so on
            said |= set(re.findall(r"(?:`|^ {4})rasteret-dask ([a-z]+)\b", text, re.M))
    assert len(said) > 5
    assert said <= known
    table = TEXT["docs/pipelines.md"].split("## Commands")[1]
    assert all(f"`{name}" in table for name in known)


def test_every_key_step_and_index_is_documented():
    page = TEXT["docs/pipelines.md"]
    assert all(f"`{key}`" in page for key in Cube.model_fields)
    assert all(re.search(rf"\b{name}\b", page) for name in INDICES)
    assert all(f"`{name}`" in page for name in resources.names("pipelines"))
    assert all(name in page for name in resources.names("configs/clusters"))


def test_errors_and_functions_of_the_pages_exist():
    for name in set(re.findall(r"`(\w+Error)`", "".join(TEXT.values()))):
        assert hasattr(errors, name), name
    for name in set(re.findall(r"\brd\.(\w+)", "".join(TEXT.values()))):
        assert hasattr(rasteret_dask, name) or name == "concat", name


@pytest.mark.parametrize("page", sorted(TEXT))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", TEXT[page]):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


def test_the_citation_has_the_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert f'version = "{cited["version"]}"' in (ROOT / "pyproject.toml").read_text()
