PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# One torch thread for each of the two test workers: with more they compete for the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: setup demo test test-fast test-slow lint docs map clean

setup: .venv/.ready ## create .venv and install the package with pinned dependencies

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup ## run main.py with its defaults
	$(BIN)/python main.py

test: setup ## the complete suite; browser tests run if a Chromium is found
	$(PYTEST) -n 2

test-fast: setup ## the tests that need neither torch nor MLflow
	$(PYTEST) -m "not slow" -n 2

test-slow: setup ## the studies that train models for minutes
	$(BIN)/python -m pytest -m long -o addopts="-ra"

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup ## build the documentation into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

map: setup ## write the package map of docs/architecture.md
	$(BIN)/python -m tests.helpers.architecture_map --write

clean:
	rm -rf .venv outputs mlruns site
