# `make` alone lists the targets. Everything runs in .venv, which `setup` makes.
VENV_PYTHON := .venv/bin/python
# One process a core, each with its own part of the tests; a process may need 2 GB.
IN_PARALLEL := -n auto --maxprocesses 8 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup quickstart benchmark benchmark-speed test test-all matrix lint clean distclean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## create or complete .venv (PYTHON=python3.11 picks the interpreter, OPS=compiled builds mmcv)
	@bash tools/setup_env.sh "$(PYTHON)"

quickstart: setup  ## make the data, train and evaluate a detector and a segmentor, show the table
	$(VENV_PYTHON) tools/quickstart.py

benchmark: setup  ## train the nano size of every family on the built-in data and compare them
	$(VENV_PYTHON) tools/analysis_tools/accuracy_benchmark.py

benchmark-speed: setup  ## time and memory of every family against the plain formulas; call again to go on
	$(VENV_PYTHON) tools/analysis_tools/benchmark.py --suite targets

test: setup  ## run the tests that CI runs
	$(VENV_PYTHON) -m pytest -m "not slow" $(IN_PARALLEL)

test-all: setup  ## run every test, the long ones too
	$(VENV_PYTHON) -m pytest $(IN_PARALLEL)

matrix: setup  ## set up and test with every Python here, the oldest and newest torch, and the fork
	$(VENV_PYTHON) tools/misc/matrix.py

lint: setup  ## check the code and its layout with ruff
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .

clean:  ## remove .venv and build products; data/ and work_dirs/ stay
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## clean, and remove what quickstart made in data/ and work_dirs/ as well
	rm -rf data/digit_scenes work_dirs/quickstart
