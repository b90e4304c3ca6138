# make search   set up and run the default comparison
# make test     set up and run the tests (10 to 15 minutes on 2 cores)
# make help     the rest

.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Tests of test-all alone, by their markers (pyproject.toml).
LONG := server or browser or cluster or fault or whole
# What is installed beside the packages that everything needs: dev, or cluster on the hosts of one.
EXTRA ?= dev
STAMP := $(VENV)/.installed$(patsubst %,-%,$(filter-out dev,$(EXTRA)))

# The first Python from 3.11 to 3.13 that runs and has venv; PYTHON=... names another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)

.PHONY: help install search test test-all lint docs clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | column -t -s '	'

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: needs Python 3.11, 3.12 or 3.13 with venv (Debian: apt install python3-venv); or make PYTHON=/path/to/python"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRA)]'
	touch $@

install: $(STAMP) ## A virtual environment in .venv, with everything

search: install ## The default comparison (rooms, 7 to 12 minutes on 2 cores); ARGS="--preset smoke" for another
	$(BIN)/python -m ms_automl.search $(ARGS)

test: install ## The tests
	$(BIN)/python -m pytest -m "not ($(LONG))" --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-all: test ## The tests, and those with faults, a server, a browser and a cluster (what they need: .ci/run)
	$(BIN)/python -m pytest -m "$(LONG)" --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: install ## Format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install ## The tables of README.md, docs/ and benchmarks/, from what is committed of runs
	$(BIN)/python benchmarks/documents.py
	$(BIN)/python benchmarks/publish.py
	$(BIN)/python -m benchmarks.reliability --table

clean: ## Take the virtual environment and caches away; results stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis *.egg-info
