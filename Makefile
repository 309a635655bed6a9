# Every verb does its own set-up: a machine needs python3 (3.11 or newer, with venv) and make, nothing else.
#
#   make demo STRIPS=30                                stop after 30 strips instead of at Ctrl-C
#   make test TESTS=tests/config                       some of the tests
#   make test JOBS=1                                   one after the other: most of them wait, so 3 at once suit 2 cores
#   make soak SOAK_SHARE=0.1                           a tenth of the repetitions
#   make test TORCH_PIP_OPTIONS='--index-url URL'      where pip gets torch alone from (a CPU build is enough)

PYTHON ?= python3
STRIPS ?=
TESTS ?=
TORCH_PIP_OPTIONS ?=
JOBS ?= 3
SOAK_SHARE ?= 1
SOAK_LIMIT_SECONDS ?= 9000

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak reliability lint format docs clean

help: ## list the verbs
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /make \1	/' | expand -t 14

setup: $(VENV)/.develop ## everything for demo, test, lint and docs, in .venv

demo: $(VENV)/.runtime ## broker, cameras, service and a live table; heatmaps in ./demo-run
	$(BIN)/strip-agent demo --folder demo-run $(if $(STRIPS),--strips $(STRIPS))

test: lint ## style, types and tests, under 10 minutes on 2 cores
	$(BIN)/python -m pytest -m "not soak" --numprocesses $(JOBS) --dist loadfile $(TESTS)

soak: $(VENV)/.develop ## the longer runs: power cuts, outages, leaks; ends by itself
	SOAK_SHARE=$(SOAK_SHARE) timeout --kill-after=30 $(SOAK_LIMIT_SECONDS) $(BIN)/python -m pytest -m soak --timeout=$(SOAK_LIMIT_SECONDS) $(TESTS)

reliability: $(VENV)/.develop ## try every fault, two hours, and write docs/reliability.md
	rm -rf build/reliability
	$(BIN)/python -m pytest --timeout=$(SOAK_LIMIT_SECONDS) tests/faults tests/e2e
	$(BIN)/python tools/make_reliability.py

lint: $(VENV)/.develop ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.develop ## put the source into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.develop ## write the pages of docs/ that are made from the source
	$(BIN)/python tools/make_docs.py

clean: ## remove .venv, caches and the demo's files
	rm -rf $(VENV) demo-run build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find agent tools tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "strip-agent needs Python 3.11 or newer; say which one with make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps are written last, so an interrupted installation is done again.
$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the agent and its demo into $(VENV) (once, about a minute)"
	$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.develop: $(VENV)/.runtime
	@echo "installing the exporter, torch and the test tools into $(VENV) (once, some minutes)"
	$(if $(TORCH_PIP_OPTIONS),$(PIP) $(TORCH_PIP_OPTIONS) torch)
	$(PIP) --editable '.[demo,export,dev]'
	@touch $@
