#!/usr/bin/env bash
# What is published: a wheel and an sdist with sound metadata, and the demo from the wheel in an empty environment.
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-python3}"
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
unset PYTHONPATH VIRTUAL_ENV || true

step() { printf '\n== %s\n' "$*"; }

step "build"
"$python" -m venv "$place/tools"
"$place/tools/bin/python" -m pip install --quiet build twine
"$place/tools/bin/python" -m build --outdir "$place/dist" "$here" >"$place/build.log" 2>&1 || { cat "$place/build.log"; exit 1; }
ls "$place/dist"

step "metadata and contents"
"$place/tools/bin/python" -m twine check --strict "$place"/dist/*
"$place/tools/bin/python" - "$place"/dist/*.whl "$place"/dist/*.tar.gz <<'PY'
import sys, tarfile, zipfile

wheel, sdist = sys.argv[1:]
names = set(zipfile.ZipFile(wheel).namelist())
for wanted in ("rasteret_dask/py.typed", "rasteret_dask/_data/pipelines/ndvi_median.yaml", "rasteret_dask/_data/configs/clusters/local.yaml"):
    assert wanted in names, f"the wheel lacks {wanted}"
assert any(name.endswith("licenses/LICENSE") for name in names), "the wheel lacks its licence"
assert not [name for name in names if not name.startswith("rasteret_dask")], "the wheel holds what is not ours"
inside = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
for wanted in ("README.md", "LICENSE", "CITATION.cff", "pyproject.toml", "pipelines/ndvi_median.yaml", "tests/conftest.py"):
    assert wanted in inside, f"the sdist lacks {wanted}"
print(f"{len(names)} files in the wheel, {len(inside)} in the sdist")
PY

step "the wheel, in an empty environment"
"$python" -m venv "$place/empty"
"$place/empty/bin/python" -m pip install --quiet "$place"/dist/*.whl
cd "$place"
"$place/empty/bin/rasteret-dask" demo --output "$place/out"
test -s "$place/out/ndvi.tif" -a -s "$place/out/ndvi.png" -a -s "$place/out/ndvi.zarr/zarr.json"

step "the sdist, over it"
"$place/empty/bin/python" -m pip install --quiet --no-deps --force-reinstall "$place"/dist/*.tar.gz
"$place/empty/bin/rasteret-dask" validate ndvi_median
printf '\nBoth can be published.\n'
