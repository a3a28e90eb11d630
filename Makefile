# `make run` sets everything up and runs the whole method, small; `make test` sets up and passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Threads that wait without spinning: several times faster on shared machines, a little slower on idle ones.
export OMP_WAIT_POLICY ?= passive

.PHONY: run test lint types pytest samples clean

run: $(READY)
	$(BIN)/metricanything quickstart $(ARGS)

test: lint types pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

pytest: $(READY)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n auto $(ARGS)

# torch first: the constraints pin a version, so that nothing else can pull another build of it.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "the pinned versions need Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[colmap,readers,keypoints,train,ray,dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis build dist
