"""YAML documents: paths, --set, ${ENV}, and errors that name the key."""

from __future__ import annotations

import pytest

from rasteret_dask.documents import (
    Strict,
    assign,
    join_path,
    parse,
    read,
    split_path,
    substitute,
    validate,
)
from rasteret_dask.errors import ConfigError


class Inner(Strict):
    size: int = 1


class Outer(Strict):
    name: str
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a", ("a",)),
        ("a.b[1].c", ("a", "b", 1, "c")),
        ("a.b[1][2]", ("a", "b", 1, 2)),
        ('query."eo:cloud.cover".lt', ("query", "eo:cloud.cover", "lt")),
        ("a-b.c_d", ("a-b", "c_d")),
    ],
)
def test_paths_go_both_ways(text, steps):
    assert split_path(text) == steps
    assert join_path(steps) == text


@pytest.mark.parametrize("text", ["", "a..b", "a.", ".", "a[", "a[x]", "a]b"])
def test_bad_paths(text):
    with pytest.raises(ConfigError):
        split_path(text)


def test_assign_types_values_and_leaves_the_original():
    data = {"cube": {"bands": ["B04", "B08"]}, "none": None}
    sets = [
        "cube.bands[1]=B03",
        "cube.bands.2=B02",
        "cube.scale=true",
        "cube.bbox=[1, 2, 3, 4.5]",
        "none.deep=x=y",
        "new.list[0].zarr=out.zarr",
        "cube.crs=null",
    ]
    assert assign(data, sets) == {
        "cube": {
            "bands": ["B04", "B03", "B02"],
            "scale": True,
            "bbox": [1, 2, 3, 4.5],
            "crs": None,
        },
        "none": {"deep": "x=y"},
        "new": {"list": [{"zarr": "out.zarr"}]},
    }
    assert data == {"cube": {"bands": ["B04", "B08"]}, "none": None}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a", "no '='"),
        ("list[5]=1", "has 2 entries"),
        ("list.x=1", "indexed by number"),
        ("text.x=1", "holds text"),
        ("a=[1", "not valid YAML"),
    ],
)
def test_assignments_that_mean_nothing(text, words):
    with pytest.raises(ConfigError, match=words.replace("[", r"\[")):
        assign({"list": [1, 2], "text": "t"}, [text])


def test_substitute():
    data = {"a": "${X}/b", "b": ["${Y:-two}", 3], "c": "$$5 ${E}", "d": "a$b", "e": "${E:-z}"}
    assert substitute(data, {"X": "one", "E": ""}) == {
        "a": "one/b",
        "b": ["two", 3],
        "c": "$5 ",
        "d": "a$b",
        "e": "",
    }


def test_substitute_names_the_key_and_cannot_add_keys():
    with pytest.raises(ConfigError) as caught:
        substitute({"outputs": [{"zarr": "${GONE}/x"}]}, {})
    assert caught.value.path == "outputs[0].zarr"
    assert "GONE" in str(caught.value)
    assert substitute({"a": "${X}"}, {"X": "{b: 1}"}) == {"a": "{b: 1}"}
    with pytest.raises(ConfigError, match="without a name"):
        substitute({"a": "${x y}"}, {"x": "1"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2", "given twice"),
        ("a: [1", "line 1"),
        ("- a", "holds a list"),
        ("", "holds nothing"),
        ("a: !!python/object/apply:os.system [true]", "not valid YAML"),
        ("a: 2023-02-31", "not valid YAML"),
        ("? [a]\n: b", "plain word"),
        ("[" * 5000, "not valid YAML"),
    ],
)
def test_yaml_that_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        parse(text)


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read(tmp_path / "gone.yaml")


def test_validate_says_where_what_and_what_else():
    with pytest.raises(ConfigError) as caught:
        validate(Outer, {"inner": {"size": "big"}, "many": [{}, {"sise": 2}]})
    error = caught.value
    assert error.path == "name"
    assert error.message == "is missing"
    assert "inner.size: must be a valid integer" in str(error)
    assert "'big'" in str(error)
    assert "many[1].sise: unknown key (did you mean 'size'?); known here: size" in str(error)
