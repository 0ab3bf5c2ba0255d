# Everything a contributor or CI runs. `make test` is the loop; `make help` lists the rest.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest

# A command may exist and still not run (a version manager's shim), so each one is tried.
USABLE = import sys, venv, ensurepip; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, $(1))))
find_python = $(shell for p in $(2); do \
	if command -v $$p >/dev/null 2>&1 && $$p -c "$(call USABLE,$(1))" >/dev/null 2>&1; then \
	command -v $$p; break; fi; done)

PYTHON ?= $(call find_python,99,python3.13 python3.12 python3.11 python3 python)
# The oldest supported JAX has wheels up to Python 3.13.
PYTHON_OLDEST ?= $(call find_python,13,python3.11 python3.12 python3.13 python3 python)

PIP := -m pip install --quiet --disable-pip-version-check

# Shapes and types in the annotations can be checked at run time while the tests run (`make test-typed`).
TYPECHECK := --jaxtyping-packages=pcx,conftest.beartyped
PYTEST := $(BIN)/python -m pytest
# The tests of one file share compiled functions, so a file stays in one process. A test that hangs ends its
# process (see pyproject.toml) and is tried once more.
PARALLEL ?= -n auto --dist loadfile --max-worker-restart 1

.DEFAULT_GOAL := help
.PHONY: help demo test coverage test-typed test-slow test-oldest tutorials bench-smoke lint format types docs \
	install-hooks clean

help:
	@echo "make demo         train a classifier, print its test accuracy, write plots"
	@echo "make test         the test suite"
	@echo "make coverage     the same, with coverage of pcx/ (a third slower)"
	@echo "make test-typed   the same, with every annotation checked at run time"
	@echo "make test-slow    the tests marked slow, XLA optimising as it does for users"
	@echo "make test-oldest  the tests of everything that calls JAX, on the oldest supported dependencies"
	@echo "make lint         ruff: lint and format check  (make format: apply them)"
	@echo "make types        mypy"
	@echo "make docs         build the site, warnings are errors"
	@echo "make tutorials    execute every tutorial"
	@echo "make bench-smoke  every benchmark once, at a tiny size"

demo: $(VENV)/.examples
	$(BIN)/python examples/classify.py

test: $(VENV)/.dev
	$(PYTEST) $(PARALLEL) --durations=30

coverage: $(VENV)/.dev
	$(PYTEST) $(PARALLEL) --cov=pcx --cov-report=term --cov-fail-under=95

test-typed: $(VENV)/.dev
	$(PYTEST) $(PARALLEL) $(TYPECHECK)

test-slow: $(VENV)/.dev
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(PYTEST) $(PARALLEL) -m slow -o faulthandler_timeout=1800

# without docs, oracles, data and benchmarks, which no version of JAX changes; and without doctests, conformance,
# analyses and examples, which call only what the others test: with them it took 19 minutes
test-oldest: $(OLDEST)/.test
	$(OLDEST)/bin/python -m pytest $(PARALLEL) tests --ignore=tests/docs --ignore=tests/oracles \
		--ignore=tests/data --ignore=tests/benchmarks --ignore=tests/analysis \
		--ignore=tests/conformance --ignore=tests/training/test_examples.py

tutorials: $(VENV)/.dev
	$(PYTEST) -n auto tests/test_tutorials.py -m tutorials --durations=0 --durations-min=1 \
		-o faulthandler_timeout=1800

bench-smoke: $(VENV)/.dev
	$(BIN)/python -m benchmarks.run --smoke
	$(BIN)/python -m benchmarks.accelerator --smoke

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict --quiet

install-hooks: $(VENV)/.dev
	$(BIN)/pre-commit install

clean:
	rm -rf $(VENV) $(OLDEST) site .coverage .mypy_cache .pytest_cache .ruff_cache

# Stamps make a second install cost nothing. The environment is not a prerequisite of the stamps by
# itself (a directory's time changes whenever something is written into it); its pyvenv.cfg is.
$(VENV)/pyvenv.cfg:
	@if [ -z "$(PYTHON)" ]; then echo "pcx needs Python 3.11 or newer with the venv and ensurepip modules;" \
	"none of python3.13, python3.12, python3.11, python3 is one. Install one" \
	"(on Debian also its -venv package), or name it: make PYTHON=/path/to/python3" >&2; exit 1; fi
	$(PYTHON) -m venv $(VENV)

$(VENV)/.examples: pyproject.toml $(VENV)/pyvenv.cfg
	$(BIN)/python $(PIP) -e ".[examples]"
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/pyvenv.cfg
	$(BIN)/python $(PIP) -e ".[dev]"
	@touch $@ $(VENV)/.examples

$(OLDEST)/pyvenv.cfg:
	@if [ -z "$(PYTHON_OLDEST)" ]; then echo "The oldest supported JAX needs Python 3.11, 3.12 or 3.13;" \
	"none was found. Name one: make PYTHON_OLDEST=/path/to/python3.11" >&2; exit 1; fi
	$(PYTHON_OLDEST) -m venv $(OLDEST)

$(OLDEST)/.test: pyproject.toml .ci/constraints-oldest.txt $(OLDEST)/pyvenv.cfg
	$(OLDEST)/bin/python $(PIP) -e ".[test]" --constraint .ci/constraints-oldest.txt
	@touch $@
