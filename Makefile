# The only entry anyone must know. `make quickstart` and `make test` need nothing but Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TORCH := torch==2.13.0
PIP := -m pip --quiet --disable-pip-version-check
# What a module compiles to is kept, whatever the machine's settings: every worker imports torch anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: quickstart test check format reliability bench lock audit clean

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
	$(BIN)/python -m pytest -m fault --reliability=docs/reliability.md

bench: $(INSTALLED) .venv-peers/.installed  ## against the machine's limit, in a large store, and against peers; hours
	! $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || $(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.limit --profile
	$(BIN)/python -m benchmarks.images
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.study --peers .venv-peers/bin/python

.venv-peers/.installed: benchmarks/peers/requirements.txt Makefile
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python $(PIP) install -r benchmarks/peers/requirements.txt $(TORCH)
	touch $@

lock: .venv-tools/.installed  ## resolve the newest versions that pyproject.toml allows and write them with their hashes
	.venv-tools/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --no-annotate --no-header \
	  --python-version 3.11 --extra dev --group locked pyproject.toml --output-file requirements.lock

audit: .venv-tools/.installed $(INSTALLED)  ## known vulnerabilities of what is locked; needs the advisories of the package index
	$(BIN)/python $(PIP) check
	.venv-tools/bin/pip-audit --strict --requirement requirements.lock --disable-pip

.venv-tools/.installed:
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python $(PIP) install uv pip-audit
	touch $@

# All but torch by hash; of torch, pip finds the build that fits the machine. What is never imported is never compiled,
# which halves the time of the set-up.
$(INSTALLED): pyproject.toml requirements.lock Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "normlab needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) install --no-compile --require-hashes -r requirements.lock
	$(BIN)/python $(PIP) install --no-compile $(TORCH)
	$(BIN)/python $(PIP) install --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) .venv-peers .venv-tools .mypy_cache .ruff_cache .pytest_cache .hypothesis
