#!/usr/bin/env bash
# The path of someone who comes for the first time: a clean clone, a fresh home, no caches, and what the README says.
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
export HOME="$place/home" PIP_NO_CACHE_DIR=1 XDG_CACHE_HOME="$place/cache" XDG_CONFIG_HOME="$place/config"
unset PYTHONPATH VIRTUAL_ENV RASTERET_DASK_WORKSPACE RASTERET_DASK_CATALOG || true
mkdir -p "$HOME"

step() { printf '\n== %s\n' "$*"; }

step "1. clone"
git clone --quiet "$here" "$place/rasteret-dask"
cd "$place/rasteret-dask"

step "2. make demo (creates the environment first)"
make demo
test -s demo-output/ndvi.png || ls -R demo-output

step "3. the wheel, in an empty environment, outside the checkout"
.venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir "$place/wheels" .
python3 -m venv "$place/elsewhere"
"$place/elsewhere/bin/python" -m pip install --quiet "$place"/wheels/*.whl
cd "$place"
"$place/elsewhere/bin/rasteret-dask" datasets list
"$place/elsewhere/bin/rasteret-dask" demo --output "$place/out"

step "4. make test"
cd "$place/rasteret-dask"
make test
printf '\nAll of it works.\n'
