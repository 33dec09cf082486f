# Everything here needs only Python 3.11+ (with venv) and make. `make check` is exactly what CI runs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: setup setup-dev demo test test-parts test-whole check bench chaos clean

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

demo: setup
	$(BIN)/penstock demo $(ARGS)

# Tests of parts compute, tests of the whole mostly wait: side by side they take as long as the latter alone.
ifeq ($(strip $(ARGS)),)
test: setup-dev
	$(MAKE) --jobs=2 --output-sync=target test-parts test-whole
else
test: setup-dev
	$(BIN)/python -m pytest $(ARGS)
endif

test-parts:
	$(BIN)/python -m pytest tests/unit tests/property tests/contract

test-whole:
	$(BIN)/python -m pytest tests/integration tests/e2e

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

bench: setup-dev
	$(BIN)/python -m benchmarks $(ARGS)

chaos: setup-dev
	$(BIN)/python -m benchmarks.chaos $(ARGS)

clean:
	rm -rf $(VENV) .cache build *.egg-info
