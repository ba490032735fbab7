# `make demo` runs the main job, `make test` the tests; each installs what it needs into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
OUTPUT ?= runs/demo

# Spinning OpenMP threads starve each other on a busy machine; waiting ones do not.
export OMP_WAIT_POLICY ?= passive
export GOMP_SPINCOUNT ?= 0

.DEFAULT_GOAL := help
.PHONY: help demo test check format figures bench bench-smoke install clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "infalign needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[lm,report]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.demo

# Other training engines as released, unpacked without anything they need: the tests run their
# loaders. One wheel is for one Python; no compiled code of it is used.
$(VENV)/.released: $(BIN)/python constraints.txt
	rm -rf $(VENV)/released
	$(PIP) install --quiet --constraint constraints.txt --target $(VENV)/released --no-deps \
	  --only-binary :all: --python-version 3.11 --platform manylinux1_x86_64 --platform any verl openrlhf
	@touch $@

demo: $(VENV)/.demo  ## align a real language model for best-of-4, measure it, write the report
	$(BIN)/infalign demo --output $(OUTPUT)

install: $(VENV)/.dev $(VENV)/.released  ## everything a developer needs, in .venv

test: $(VENV)/.dev $(VENV)/.released  ## all tests, the real embedded model included; those of the page need chromium
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.dev  ## style, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

figures: $(VENV)/.dev  ## compute the figures and tables of the documents anew
	$(BIN)/python docs/figures.py
	$(BIN)/python docs/choosing.py --write

bench: $(VENV)/.dev $(VENV)/.released  ## measure every claim, hours; interrupted, it goes on (benchmarks/README.md)
	$(BIN)/python -m benchmarks.bench

bench-smoke: $(VENV)/.dev $(VENV)/.released  ## run every benchmark in small, minutes
	$(BIN)/python -m benchmarks.bench --smoke

format: $(VENV)/.dev  ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and what runs left behind
	rm -rf $(VENV) runs build dist *.egg-info
