"""Commits, and the create-if-absent that they rest on."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from rasteret_dask.errors import ArgumentError, CollectionError, CommitConflictError
from rasteret_dask.index.commit import Commit, Part, parse_commit, read_commit, write_commit
from rasteret_dask.index.place import Place


def commit(number: int = 1, **changes: object) -> Commit:
    values: dict[str, object] = {
        "number": number,
        "name": "c",
        "identity": "i",
        "arguments": {"bbox": [1, 2]},
        "directory": "data/00000001",
        "document": {"schema_version": 1, "bands": []},
        "parts": (Part("000000-abc-def", 3, 5, "00", {"bbox": None}),),
    }
    return Commit(**{**values, **changes})  # type: ignore[arg-type]


def with_part(place: Place) -> Place:
    place.create("_rasteret/parts/000000-abc/def.part", b"12345")
    return place


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_of_many_writers_one_wins(kind: str, tmp_path: Path) -> None:
    place = Place(str(tmp_path) if kind == "disk" else "memory://race")
    rounds, writers = (300, 4) if kind == "disk" else (3, 1)
    for number in range(rounds):
        barrier = threading.Barrier(writers)
        won: list[int] = []

        def write(
            who: int,
            name: str = f"f/{number}",
            gate: threading.Barrier = barrier,
            winners: list[int] = won,
        ) -> None:
            gate.wait()
            if place.create(name, bytes([who]) * 1000):
                winners.append(who)

        threads = [threading.Thread(target=write, args=(i,)) for i in range(writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert place.read(f"f/{number}") == bytes(won) * 1000
    if kind == "disk":
        assert not os.listdir(tmp_path / "_rasteret" / "drafts")


def test_a_commit_comes_back(tmp_path: Path) -> None:
    place = with_part(Place(str(tmp_path)))
    written = write_commit(place, commit())
    assert read_commit(place) == written
    assert read_commit(place, 1) == written
    assert read_commit(place, 2) is None
    assert (tmp_path / "data" / "00000001" / "000000-abc-def.parquet").read_bytes() == b"12345"


def test_the_second_builder_is_told(tmp_path: Path) -> None:
    place = with_part(Place(str(tmp_path)))
    write_commit(place, commit())
    write_commit(place, commit())  # the same commit is no conflict
    with pytest.raises(CommitConflictError, match="first"):
        write_commit(place, commit(identity="other"))
    assert read_commit(place) == commit()


def test_an_older_commit_does_not_take_the_pointer_back(tmp_path: Path) -> None:
    place = with_part(Place(str(tmp_path)))
    write_commit(place, commit())
    write_commit(place, commit(2, directory="data/00000002"))
    write_commit(place, commit())
    assert b"data/00000002" in (place.read("_rasteret/current.json") or b"")


def test_other_protocols_need_a_promise() -> None:
    with pytest.raises(ArgumentError, match="single_writer"):
        Place("ftp://127.0.0.1/x").create("x", b"")


def test_what_is_no_commit_is_refused() -> None:
    for data in (b"", b"[]", b'{"format": "other"}', b"\xff"):
        with pytest.raises(CollectionError):
            parse_commit(data, "u")


def test_what_a_killed_writer_left_is_swept_away_after_a_day(tmp_path: Path) -> None:
    place = with_part(Place(str(tmp_path)))
    drafts = tmp_path / "_rasteret" / "drafts"
    for name, age in (("old", 90_000), ("new", 60)):
        (drafts / name).write_bytes(b"half")
        moment = time.time() - age
        os.utime(drafts / name, (moment, moment))
    write_commit(place, commit())
    assert os.listdir(drafts) == ["new"]


def test_a_pointer_that_an_older_commit_moved_back_is_moved_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second builder commits and publishes between the first one's look and its move."""
    place = with_part(Place(str(tmp_path)))
    replace = Place.replace
    raced: list[int] = []

    def slow(self: Place, name: str, data: bytes) -> None:
        if not raced:
            raced.append(1)
            write_commit(place, commit(2, directory="data/00000002"))
        replace(self, name, data)

    monkeypatch.setattr(Place, "replace", slow)
    write_commit(place, commit())
    assert b"data/00000002" in (place.read("_rasteret/current.json") or b"")
    assert (tmp_path / "data" / "00000002" / "000000-abc-def.parquet").exists()
