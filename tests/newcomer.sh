#!/usr/bin/env bash
# The path of someone who comes for the first time: a clean clone, a fresh home, no caches, and what the README says, line by line.
#   bash tests/newcomer.sh            all of it
#   bash tests/newcomer.sh --quick    without the tests
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
place="${NEWCOMER:-$(mktemp -d)}"

# Nothing of this user, but for where packages come from.
keep=()
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CONFIG_FILE PIP_CERT SSL_CERT_FILE REQUESTS_CA_BUNDLE \
            HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy RASTERET_TEST_DATA; do
    [ -n "${!name:-}" ] && keep+=("$name=${!name}")
done
if [ -z "${NEWCOMER:-}" ]; then
    mkdir "$place/home"
    exec env -i PATH="$PATH" LANG=C.UTF-8 HOME="$place/home" TMPDIR="${TMPDIR:-/tmp}" NEWCOMER="$place" PIP_NO_CACHE_DIR=1 \
        ${keep[@]+"${keep[@]}"} bash "$0" "$@"
fi
trap 'rm -rf "$place"' EXIT

step() { printf '\n== %s\n' "$*"; }

step "1. clone"
git clone --quiet "$here" "$place/rasteret-dask"
cd "$place/rasteret-dask"

step "2. make demo (makes the environment first)"
make demo
for result in ndvi.tif ndvi.png ndvi.zarr/zarr.json; do test -s "demo-output/$result"; done

step "3. the same without make: pip install ., demo"
python3 -m venv "$place/elsewhere"
"$place/elsewhere/bin/python" -m pip install --quiet .
cd "$place"
PATH="$place/elsewhere/bin:$PATH"
rasteret-dask demo --output out
test -s out/ndvi.png

step "4. the README's pipeline, on the demo's catalogue"
sed -n '/^```yaml$/,/^```$/p' rasteret-dask/README.md | sed '/^```/d' >ndvi.yaml
rasteret-dask validate ndvi.yaml
mkdir work && cd work
run() {
    rasteret-dask "$@" --set collection.build.static_catalog="$place/out/catalog" --set collection.build.bbox=null \
        --set collection.build.date_range=null --set collection.subset.cloud_cover_lt=60 --set cube.resolution=20
}
run explain ../ndvi.yaml
run run ../ndvi.yaml --cluster local
run run ../ndvi.yaml --cluster local --resume
rasteret-dask report ndvi.tif.run.json
test -s ndvi.tif -a -s ndvi.png -a -s ndvi.tif.run.html

step "5. the README's Python, on the demo's catalogue"
cat >../stand-in.py <<'PY'
# The README's own block, with the search turned to the catalogue at hand.
import re, sys
from functools import partial

import rasteret_dask as rd

text = open("../rasteret-dask/README.md", encoding="utf-8").read()
(block,) = re.findall(r"```python\n(.*?)```", text, re.S)
plain = rd.build
rd.build = lambda dataset, name, bbox, date_range: plain(dataset, name=name, static_catalog=f"{sys.argv[1]}/out/catalog")
block = re.sub(r"box = .*", "box = (11.97, 47.18, 12.03, 47.22)", block)
exec(compile(block, "README.md", "exec"))
assert float(ndvi.mean()) > 0
PY
python ../stand-in.py "$place"
test -s ndvi.tif

if [ "${1:-}" != "--quick" ]; then
    step "6. make test"
    cd "$place/rasteret-dask"
    make test
fi
printf '\nAll of it works.\n'
