# The two commands are `make demo` and `make test`; everything else is for developers.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: setup demo test test-all test-torchgeo clusters check format matrix parity bench bench-quick faults docs dist newcomer clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@echo "Making $(VENV): about 1 GB of packages, some minutes, once."
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip
	$(PIP) install -e ".[dev]"
	touch $(STAMP)

demo: setup
	$(BIN)/rasteret-dask demo --output demo-output

test: setup
	$(BIN)/python -m pytest -m "not slow and not network" tests

# --- checks -------------------------------------------------------------------
check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# --- longer campaigns, each a command of its own ------------------------------
test-all: setup
	$(BIN)/python -m pytest -m "not network" tests

test-torchgeo:
	$(PYTHON) tests/torchgeo/run.py

clusters:
	$(PYTHON) tests/clusters.py

matrix:
	$(PYTHON) tests/matrix.py

parity: setup
	$(BIN)/python tests/parity/rasteret.py

bench: setup
	$(PIP) install -e ".[bench]"
	PEERS="$$($(BIN)/python -m benchmarks.environments $(VENV)-peers)" && \
	$(BIN)/python -m benchmarks.quick --minutes 120 --json bench.json --page --python "$$PEERS"

bench-quick: setup
	$(PIP) install -e ".[bench]"
	$(BIN)/python -m benchmarks.quick --minutes 12 --settings s2 --tools floor,rasterio-16,odc-stac,ours,ours-numpy,ours-cluster

faults: setup
	$(BIN)/python -W ignore -m benchmarks.faults

docs: setup
	$(PIP) install -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

dist:
	bash tests/distribution.sh

newcomer:
	bash tests/newcomer.sh

clean:
	rm -rf $(VENV) build dist site demo-output
