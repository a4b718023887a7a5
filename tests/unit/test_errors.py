"""Every exception of the package comes through pickling as it went in."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
from typing import Any

import pytest
from distributed.protocol.pickle import dumps, loads
from tblib import pickling_support

import rasteret_dask
from rasteret_dask.errors import RasteretError, SourceError

for _module in pkgutil.walk_packages(rasteret_dask.__path__, "rasteret_dask."):
    if not _module.name.startswith(("rasteret_dask.integrations.", "rasteret_dask.testing._")):
        importlib.import_module(_module.name)


def tree(root: type[RasteretError]) -> list[type[RasteretError]]:
    return [root, *(c for child in root.__subclasses__() for c in tree(child))]


CLASSES = list(dict.fromkeys(tree(RasteretError)))
WHERE: dict[str, Any] = {
    "hint": "do something",
    "item": "S2A",
    "band": "red",
    "url": "https://h.org/x.tif",
    "level": 0,
    "tile": (3, 4),
    "range": (10, 20),
    "tag": "TileOffsets",
    "path": "cube.bands[1]",
}


def test_the_tree_was_walked() -> None:
    assert len(CLASSES) >= 20


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("given", [{}, WHERE], ids=["bare", "located"])
def test_every_class_survives_pickling(kind: type[RasteretError], given: dict[str, Any]) -> None:
    error = kind("what was wrong", **given)
    for back in (pickle.loads(pickle.dumps(error)), loads(dumps(error))):
        assert type(back) is kind
        assert str(back) == str(error)
        assert back.args == error.args
        for name in WHERE:
            assert getattr(back, name) == given.get(name)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: c.__name__)
def test_every_class_can_be_told_more(kind: type[RasteretError]) -> None:
    error = kind("what was wrong", url="https://h.org/x.tif", level=0)
    told = error.located(item="S2A", url="another")
    assert type(told) is kind
    # What is known already is kept, a zero included.
    assert (told.item, told.url, told.level) == ("S2A", "https://h.org/x.tif", 0)
    assert "item='S2A'" in str(told)
    assert "level=0" in str(told)


class Foreign(Exception):
    """As isal's: of a module that nobody can import."""


Foreign.__module__ = "nowhere"


def test_what_was_suppressed_does_not_travel() -> None:
    pickling_support.install()  # as distributed does for the classes that it finds

    def fail() -> None:
        try:
            raise Foreign("https://h.org/x.tif?sig=SECRET")
        except Foreign:
            raise SourceError("what was wrong") from None

    with pytest.raises(SourceError) as caught:
        fail()
    for dump in (pickle.dumps, dumps):
        data = dump(caught.value)
        assert b"SECRET" not in data
        assert type(pickle.loads(data)) is SourceError


def test_what_was_not_suppressed_is_kept() -> None:
    def fail() -> None:
        try:
            raise KeyError("cause")
        except KeyError:
            raise SourceError("what was wrong")  # noqa: B904

    with pytest.raises(SourceError) as caught:
        fail()
    assert isinstance(caught.value.__context__, KeyError)
