# make demo and make test set up everything they need; a second run sets up nothing again.
#   PYTHON=python3.12 make setup      another interpreter (3.10 to 3.13); remove .venv first
#   make demo SCALE=small             a longer demo (smoke, small, full)
#   make test-slow                    what make test leaves out, see its line in make help
#   make setup TORCH_INDEX=URL        an extra package index, e.g. one with CPU builds of torch

SUPPORTED = import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
ifndef PYTHON
# The first that is supported and can make a virtual environment; python3 may be newer.
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3.10 python3; do \
	if $$p -c 'import ensurepip, venv; $(SUPPORTED)' >/dev/null 2>&1; then echo $$p; break; fi; done)
endif

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.edge-screen-setup
SCALE ?= smoke
OUT ?= runs/demo
TORCH_INDEX ?=
PIP_INSTALL = $(BIN)/python -m pip install -qq --disable-pip-version-check \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow fuzz faults check wheel wheel-matrix wheel-aarch64 clean

help:  ## this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 15

setup: $(STAMP)  ## create .venv and install everything at the pinned versions

$(STAMP): pyproject.toml edge_runtime/pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.10 to 3.13 with venv found: install Python 3.11 \
	with venv, or name one: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c '$(SUPPORTED)' || { \
	echo "$(PYTHON) is not Python 3.10 to 3.13: name another, make setup PYTHON=python3.11" >&2; \
	exit 1; }
	@echo "setup 1/3: creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@echo "setup 2/3: installing the build tools"
	@$(PIP_INSTALL) hatchling
	@echo "setup 3/3: installing edge-screen and the packages of constraints.txt (a few minutes)"
	@$(PIP_INSTALL) --no-build-isolation -e '.[dev]'
	@touch $(STAMP)
	@echo "setup: done, $(BIN)/edge-screen is ready"

demo: $(STAMP)  ## the whole chain on synthetic eyes: runs/demo/report.html
	$(BIN)/edge-screen demo --scale $(SCALE) --out $(OUT)

check: $(STAMP)  ## style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check  ## check, then the fast tests
	$(BIN)/python -m pytest

test-slow: $(STAMP)  ## the slow tests: a whole demo, both wheels, the camera's install (needs a package index)
	$(BIN)/python -m pytest -m slow

fuzz: $(STAMP)  ## 110,000 damaged pictures: none crashes, hangs or becomes no_refer (two processes, about an hour)
	$(BIN)/python -m pytest -m fuzz --full

faults: $(STAMP)  ## bombs, hostile bundles, leaks between pictures, threads, at the promised counts (half an hour)
	$(BIN)/python -m pytest -m faults --full

wheel: $(STAMP)  ## both wheels into dist/: edge_screen and edge_screen_runtime
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .
	$(BIN)/python -m build --wheel --no-isolation --outdir dist edge_runtime

wheel-matrix: $(STAMP)  ## the device wheel at work under Python 3.10 to 3.13, as far as they are found (needs a package index)
	$(BIN)/python -m pytest -v -rs -m slow tests/test_wheel_matrix.py

wheel-aarch64: $(STAMP)  ## the device wheel on emulated aarch64 (needs root, qemu-user-static, debootstrap, the demo, two registries)
	$(BIN)/python -u tests/aarch64_emulation.py --bundle $(OUT)/bundle --images $(OUT)/data/camera

clean:  ## remove what was built; keeps .venv and runs/
	rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
