# Every command does its own set-up: a virtual environment in .venv, from pyproject.toml at the versions in constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check fmt ui install

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.12 or the like")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)  ## The main job on this machine's CPU: plan, run, table, heat maps
	$(BIN)/python -m orchestrator plan specs/k12_grid.yaml
	$(BIN)/python -m orchestrator submit specs/k12_grid.yaml

test: $(INSTALLED)  ## All tests; they bring their own Ray cluster and PostgreSQL
	$(BIN)/python -m pytest

check: $(INSTALLED)  ## Lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ui: $(INSTALLED)  ## MLflow UI and Ray dashboard on loopback
	$(BIN)/python -m orchestrator ui
