PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Two workers with a thread each: with two threads each they wait for one another, and torch is five times slower.
BY_TWO := OMP_NUM_THREADS=1 $(BIN)/python

.PHONY: setup demo test test-fast test-slow lint clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup ## the main job on its defaults
	$(BIN)/python main.py

test: setup ## the whole suite; the browser tests run where a Chromium is found
	$(BY_TWO) -m pytest -n 2

test-fast: setup ## what needs neither torch nor MLflow
	$(BY_TWO) -m pytest -m "not slow" -n 2

test-slow: setup ## the long studies: planted taste on and off
	$(BIN)/python -m pytest -m long -o addopts="-ra"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv outputs mlruns
