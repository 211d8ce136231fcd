# The only entry anyone must know. `make quickstart` and `make test` need nothing but Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: quickstart test check format reliability bench clean

quickstart: $(INSTALLED)  ## set up, train the embedded digits, print the table, write the report
	$(BIN)/normlab run quickstart
	$(BIN)/normlab report quickstart

test: $(INSTALLED)  ## set up and run the tests
	$(BIN)/python -m pytest

check: $(INSTALLED)  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

reliability: $(INSTALLED)  ## cause every fault, the long soaks too, and write docs/reliability.md
	$(BIN)/python -m pytest -m fault --reliability docs/reliability.md

bench: $(INSTALLED) .venv-peers/.installed  ## whole studies against what people would use instead, interleaved; over an hour
	$(BIN)/python -m benchmarks.study --peers .venv-peers/bin/python

.venv-peers/.installed: benchmarks/peers/requirements.txt constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers/requirements.txt torch==$(shell sed -n 's/^torch==//p' constraints.txt)
	touch $@

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "normlab needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis
