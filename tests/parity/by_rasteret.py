"""What rasteret reads from a collection: run in an interpreter of its own, which has rasteret 0.4.1.

The first argument is the folder of the collection, the second a JSON file of questions, the third where the answers go (a pickle of
plain values and arrays). The fourth is a static catalogue, and the fifth a folder for what rasteret builds of it; the sixth is a table of
multi-band files, and a folder of that name with ``-built`` behind it takes what rasteret builds of that; the seventh a collection that we
built of that table, with its own columns.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np


def answer(collection: Any, question: dict[str, Any]) -> Any:
    """The answer to one question; an error is an answer too."""
    import shapely  # noqa: PLC0415

    how = dict(question["how"])
    if "wkt" in how:
        how[question["what"]] = shapely.from_wkt(how.pop("wkt"))
    if "bbox" in how:
        how["geometries"] = tuple(how.pop("bbox"))
    if "points" in how:
        how["points"] = [shapely.Point(p) for p in how["points"]]
    try:
        found = getattr(collection, question["method"])(**how)
    except Exception as error:  # noqa: BLE001 -- whatever it raises is the answer
        return {"error": f"{type(error).__name__}: {error}"}
    if isinstance(found, np.ndarray):
        return found
    if hasattr(found, "to_pylist"):
        return found.to_pylist()
    plain = found.drop(columns=["geometry"])
    rows = plain.to_dict("records")
    return [{k: tuple(v)[:6] if k == "transform" else v for k, v in row.items()} for row in rows]


def main(
    folder: str, questions: str, answers: str, catalogue: str, built: str, files: str, owned: str
) -> None:
    import rasteret  # noqa: PLC0415

    collection = rasteret.load(folder)
    asked = json.loads(Path(questions).read_text())
    elsewhere = ("embeddings", "train")
    here = {name: question for name, question in asked.items() if name not in elsewhere}
    found = {name: answer(collection, question) for name, question in here.items()}
    rasteret.build_from_stac(
        name="theirs",
        stac_api=catalogue,
        static_catalog=True,
        collection="sentinel-2-l2a",
        data_source="earthsearch/sentinel-2-l2a",
        band_map={"B04": "red", "SCL": "scl"},
        bbox=(14, 45, 17, 48),
        date_range=("2023-08-01", "2023-08-31"),
        workspace_dir=built,
    )
    embeddings = rasteret.build_from_table(
        files,
        name="embeddings",
        data_source="aef/v1-annual",
        workspace_dir=f"{files}-built",
        column_map={"fid": "id", "when": "datetime"},
        href_column="path",
        band_index_map={f"A{i:02d}": i for i in range(64)},
        enrich_cog=True,
    )
    found["embeddings"] = answer(embeddings, asked["embeddings"])
    found["train"] = answer(rasteret.load(owned).select_split("train"), asked["train"])
    Path(answers).write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
