# Everything here needs only Python 3.11+ (with venv) and make. `make check` is exactly what CI runs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: setup setup-dev demo test check bench chaos clean

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

# Each file's tests in one process, and on each core a process with a Kafka of its own.
test: setup-dev
	$(BIN)/python -m pytest $(or $(strip $(ARGS)),--numprocesses=auto --maxprocesses=4 --dist=loadfile)

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
