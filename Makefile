# make demo   a training to watch, from nothing      make test   everything that is checked
# make lint   style, types, import arrows            make wheel  dist/gradwatch-*.whl
# make screenshots   docs/pictures                   make benchmark   benchmarks/hook.py
# make soak   the faults, a thousand of each kind

PYTHON ?= python3
ARGS ?=
SOAK ?= 100
VENV := .venv
RUN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test lint wheel screenshots benchmark soak clean

help: ## Say what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.demo ## Train a small model twice and watch it in the browser; ARGS="--once --steps 300 --no-browser"
	@$(RUN)/gradwatch demo $(ARGS)

test: $(VENV)/.test ## Run every check and every test
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check --quiet .
	@$(RUN)/mypy
	@$(RUN)/lint-imports
	@$(RUN)/python -m pytest $(ARGS)

lint: $(VENV)/.test ## Check style, types and import arrows only
	@$(RUN)/ruff check . && $(RUN)/ruff format --check . && $(RUN)/mypy && $(RUN)/lint-imports

wheel: $(VENV)/.test ## Build dist/gradwatch-*.whl
	@$(RUN)/python -m build --wheel --no-isolation

screenshots: $(VENV)/.test ## Take the pictures of the README from a real training
	@$(RUN)/python -m tests.end_to_end.screenshots docs/pictures

benchmark: $(VENV)/.test ## Measure the hook against torch's own clipping
	@$(RUN)/python -m benchmarks.hook $(ARGS)

soak: $(VENV)/.test ## Let everything fail a thousand times; SOAK=10 for a tenth of it (docs/faults.md)
	@GRADWATCH_SOAK=$(SOAK) $(RUN)/python -m pytest -p no:cacheprovider -s tests/faults $(ARGS)

clean: ## Take away everything that was made
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# A torch that can already be imported is used; else pip fetches the one that the tests are pinned to.
$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is missing: install Python 3.11 or later"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: $(PYTHON) is older than 3.11: name another with PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "make: Python's venv module is missing: apt install python3-venv (or your system's like)"; exit 1; }
	@site=$$($(PYTHON) -c 'import torch' 2>/dev/null && echo --system-site-packages || true); \
	  $(PYTHON) -m venv $$site $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "Setting up $(VENV) (once; fetches what is missing, torch above all) ..."
	@pinned=$$($(RUN)/python -c 'import torch' 2>/dev/null || echo "--constraint tests/constraints.txt"); \
	  $(RUN)/python -m pip install --quiet --disable-pip-version-check $$pinned --editable '.[demo]' \
	  || { echo "make: the set-up failed; pip's words stand above (is this machine online?)"; exit 1; }
	@touch $@

$(VENV)/.test: pyproject.toml tests/constraints.txt tests/oracles.txt | $(VENV)/bin/python
	@echo "Setting up $(VENV) for the tests (once) ..."
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --constraint tests/constraints.txt \
	  --editable '.[test]' \
	  && $(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement tests/oracles.txt \
	  || { echo "make: the set-up failed; pip's words stand above (is this machine online?)"; exit 1; }
	@$(RUN)/python -m tests.end_to_end.browser
	@touch $@ $(VENV)/.demo
