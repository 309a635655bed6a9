# Every verb does its own set-up: a machine needs python3 (3.11 or newer, with venv) and make, nothing else.
#
#   make demo STRIPS=30                                stop after 30 strips instead of at Ctrl-C
#   make test TESTS=tests/config                       some of the tests
#   make test JOBS=1                                   one after the other: most of them wait, so 4 at once suit 2 cores
#   make soak SOAK_SHARE=0.1                           a tenth of the repetitions
#   make soak SOAK_JOBS=1                              one after the other: most of them wait, so 3 at once suit 2 cores
#   make soak SOAK_BEGIN_SECONDS=1800                  half an hour after its start no further test is begun
#   make reliability TESTS=tests/faults/test_load.py   try some faults again; the others keep their rows and days
#   make test TORCH_PIP_OPTIONS='--index-url URL'      where pip gets torch alone from (a CPU build is enough)

PYTHON ?= python3
STRIPS ?=
TESTS ?=
TORCH_PIP_OPTIONS ?=
JOBS ?= 4
SOAK_SHARE ?= 1
SOAK_JOBS ?= 3
SOAK_BEGIN_SECONDS ?= inf
export SOAK_SHARE SOAK_BEGIN_SECONDS
BENCH ?=
ARCH ?= x86_64
SOAK_LIMIT_SECONDS ?= 9000

# The tests start hundreds of processes: where this is set (in containers) each of them compiles all of the source again.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-peers test-web soak reliability bench bundle deb test-system wheels-lock lint format docs clean

help: ## list the verbs
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /make \1	/' | expand -t 18

setup: $(VENV)/.develop ## everything for demo, test, lint and docs, in .venv

demo: $(VENV)/.runtime ## broker, cameras, service and a live table; heatmaps in ./demo-run
	$(BIN)/strip-agent demo --folder demo-run $(if $(STRIPS),--strips $(STRIPS))

test: lint ## style, types and tests, 10 minutes on 2 cores, on slow ones more
	$(BIN)/python -m pytest -m "not soak and not peers and not browser" --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

test-peers: $(VENV)/.develop ## programs of others read and talk with the agent, at most 15 minutes
	$(BIN)/python tools/install_peers.py
	timeout --kill-after=30 720 $(BIN)/python -m pytest -m peers --timeout=600 tests/peers

test-web: $(VENV)/.develop ## the pages on the box in a real browser, needs Chromium and npm
	$(BIN)/python tools/install_peers.py axe
	timeout --kill-after=30 900 $(BIN)/python -m pytest -m browser --timeout=600 tests/browser

soak: $(VENV)/.develop ## the longer runs: power cuts, outages, leaks; ends by itself
	timeout --kill-after=30 $(SOAK_LIMIT_SECONDS) $(BIN)/python -m pytest -m soak -v --timeout=$(SOAK_LIMIT_SECONDS) --numprocesses $(SOAK_JOBS) --dist loadfile $(TESTS)

reliability: $(VENV)/.develop ## try every fault, two hours, and write docs/reliability.md
	rm -rf build/reliability
	$(BIN)/python -m pytest --timeout=$(SOAK_LIMIT_SECONDS) $(or $(TESTS),tests/faults tests/e2e tests/models/test_intake.py)
	$(BIN)/python tools/make_reliability.py

bench: $(VENV)/.develop ## speed and memory, 20 minutes, on a slow machine more; BENCH=--quick for 3
	$(BIN)/python tools/bench.py all $(BENCH)

bundle: $(VENV)/.runtime ## one file that installs the agent on a box without internet, in dist/; ARCH=aarch64 for ARM
	$(BIN)/python tools/packaging/bundle.py build --arch $(ARCH)

deb: $(VENV)/.runtime ## the same as a Debian package, for apt install ./dist/strip-agent_*.deb
	$(BIN)/python tools/packaging/bundle.py build --deb --arch $(ARCH)

test-system: $(VENV)/.develop ## root, on Debian: a box without network, installed, upgraded, cut off, taken back, removed
	$(BIN)/python -m pytest --timeout=$(SOAK_LIMIT_SECONDS) -m soak tests/system

wheels-lock: $(VENV)/.runtime ## after constraints.txt changed: the hash of every wheel that a bundle may contain
	$(BIN)/python tools/packaging/bundle.py lock

lint: $(VENV)/.develop ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2

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
	$(PIP) --editable '.[demo,web]'
	@touch $@

$(VENV)/.develop: $(VENV)/.runtime
	@echo "installing the exporter, torch and the test tools into $(VENV) (once, some minutes)"
	$(if $(TORCH_PIP_OPTIONS),$(PIP) $(TORCH_PIP_OPTIONS) torch)
	$(PIP) --editable '.[demo,export,metrics,web,openvino,dev]'
	@touch $@
