# Every command sets itself up first: a virtual environment in .venv, from pyproject.toml at the versions in
# constraints.txt. `make help` lists the commands.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
UV ?= $(shell command -v uv)
# uv, where it is installed, does the same as pip, faster (UV= : pip all the same). Its venv has pip, too, as others have.
ifeq ($(UV),)
MAKE_VENV = $(PYTHON) -m venv $(VENV)
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
else
MAKE_VENV = $(UV) venv --quiet --allow-existing --seed --python $(PYTHON) $(VENV)
PIP_INSTALL = $(UV) pip install --quiet --python $(BIN)/python
endif
PROFILE ?= laptop
FUZZ_SECONDS ?= 600
FUZZ_EXAMPLES ?= 2000
HOURS ?= 1
PROCESSES ?= 2

.PHONY: install demo studies test fuzz soak check mutants fmt ui help

install: $(INSTALLED)  ## Create or update .venv

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.12 or the like")'
	$(MAKE_VENV)
	$(PIP_INSTALL) --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)  ## Run the main study on this machine's CPU: plan, trials, table, heat maps
	$(BIN)/python -m orchestrator plan specs/k12_grid.yaml
	$(BIN)/python -m orchestrator submit specs/k12_grid.yaml

studies: $(INSTALLED)  ## Run every spec's laptop profile and write the tables of README and docs/studies.md (PROFILE=smoke: a trial run of this)
	$(BIN)/python benchmarks/studies.py --profile $(PROFILE)

test: $(INSTALLED)  ## Run all tests: in PROCESSES (2), then those on Ray alone; they start their own cluster and PostgreSQL
	@$(BIN)/python -m pytest -n $(PROCESSES) --ignore=tests/end_to_end; without_ray=$$?; \
	  $(BIN)/python -m pytest tests/end_to_end && exit $$without_ray

fuzz: $(INSTALLED)  ## Try made-up specs, checkpoints, images and archives for FUZZ_SECONDS (600), FUZZ_EXAMPLES a round
	@end=$$(($$(date +%s) + $(FUZZ_SECONDS))); while [ $$(date +%s) -lt $$end ]; do \
	  FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest tests/fuzz --exitfirst --timeout=0 || exit 1; done

soak: $(INSTALLED)  ## Kill processes of running jobs at random for HOURS (1), and the tests with many seeds (SEED=n: begin there)
	ORCHESTRATOR_SOAK_HOURS=$(HOURS) ORCHESTRATOR_SOAK_SEED=$(SEED) $(BIN)/python -m pytest -m soak -s

check: $(INSTALLED)  ## Lint, check types and the arrows between packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

mutants: $(INSTALLED)  ## Try small mistakes in the code: what do the tests notice? (MODULES="rules plan"; takes hours)
	$(PIP_INSTALL) --constraint constraints.txt --editable '.[dev,mutation]'
	$(BIN)/python tests/mutation/known_mutants.py
	$(BIN)/python tests/mutation/run.py $(MODULES)

fmt: $(INSTALLED)  ## Fix lint and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ui: $(INSTALLED)  ## Serve the MLflow UI and the Ray dashboard on loopback
	$(BIN)/python -m orchestrator ui

help:  ## Print this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10
