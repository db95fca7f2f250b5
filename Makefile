# `make env` once, then `make demo`, `make test`, `make check`; each of these makes the environment first when it is not there.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= auto

BIN := $(VENV)/bin
READY := $(VENV)/.mae-bench-ready
# Both lie in $(VENV). BUSY is there while an install runs, so one that is found at the start was cut off. OURS says that `make` made
# the environment, and so may delete it.
BUSY := $(VENV)/.mae-bench-installing
OURS := $(VENV)/.mae-bench-made

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8

.DEFAULT_GOAL := help
.PHONY: help env demo test check docs clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-14s%s\n", $$1, $$2}'
	@echo "  PYTHON=$(PYTHON)  VENV=$(VENV)  WORKERS=$(WORKERS) (test processes, at most 8)"

env: $(READY) ## the environment with every framework, in VENV (6.6 GB; again when pyproject.toml or constraints.txt change)

demo: $(READY) ## the main job on the embedded data, into demo/
	$(BIN)/mae-bench demo -o demo

test: $(READY) ## all tests
	$(PYTEST)

check: $(READY) ## format, lint, types and the quick tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(PYTEST) --quiet -m "not slow and not edge"

docs: $(READY) ## the documentation as a site, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## remove what demo, test, check and builds leave; the environment stays
	rm -rf demo build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
	find mae_bench backbones tasks results tests -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "error: $(PYTHON) is missing or older than 3.11; run: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "error: $(PYTHON) has no venv module; install it (Debian, Ubuntu: apt install python3-venv) and run make again" >&2; exit 1; }
	@if [ -n "$$(ls -A $(VENV) 2>/dev/null)" ] && [ ! -e $(VENV)/pyvenv.cfg ] && [ ! -e $(OURS) ]; then \
	  echo "error: $(VENV) exists and is no Python environment; choose another VENV" >&2; exit 1; fi
	@set -e; mkdir -p $(dir $(VENV).lock); exec 9> $(VENV).lock; \
	if command -v flock > /dev/null; then flock -n 9 || { echo "waiting for another make in $(VENV)"; flock 9; }; fi; \
	if [ -e $(READY) ] && [ $(READY) -nt pyproject.toml ] && [ $(READY) -nt constraints.txt ]; then exit 0; fi; \
	if [ -e $(BUSY) ] && [ -e $(OURS) ]; then echo "an install was cut off; starting over"; rm -rf $(VENV); fi; \
	mkdir -p $(VENV); \
	[ -x $(BIN)/python ] || touch $(OURS); \
	touch $(BUSY); rm -f $(READY); \
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV); \
	$(BIN)/python -m pip install -c constraints.txt -e '.[all,dev]'; \
	$(BIN)/mae-bench setup detection; \
	rm -f $(BUSY); touch $(READY)
