# Every target does its own set-up, in a virtual environment of its own.
PYTHON ?= python3
SEED ?= 0
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test slow thorough bench configs lint format docs gallery clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## train REINFORCE on CartPole-v1 and plot how it learns; make demo SEED=3 takes another seed
	@$(BIN)/python examples/demo.py --seed $(SEED)

# Collecting first lets one process compile what three would otherwise compile each for itself.
test: $(READY) ## run the test suite but for slow tests; make test ARGS="-k returns" runs a part of it
	@test -e $(VENV)/compiled || { $(BIN)/python -m pytest --collect-only -qq > /dev/null; touch $(VENV)/compiled; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal -m "not slow and not thorough" $(ARGS)

slow: $(READY) ## run the slow tests: installed plug-ins, benchmarks in small, every shipped configuration, learning
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal -m "slow and not thorough" $(ARGS)

thorough: $(READY) ## run what is left of the tests: long ones that widen what others cover, for before a release
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal -m thorough $(ARGS)

bench: $(READY) ## compare speed and short trainings with what was recorded: fifteen minutes on an idle machine
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/guard.py $(ARGS)

configs: $(READY) ## train and play every shipped configuration for a few steps, through the command line
	@OMP_NUM_THREADS=1 $(BIN)/python tests/zoo/run_every_entry.py

lint: $(READY) ## check style, types and the layers of the package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## bring the code into the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## build the site into docs/_build/html; every warning is an error
	$(BIN)/python -m sphinx -b html -W --keep-going -q -d docs/_build/doctrees docs docs/_build/html

gallery: $(READY) ## run every example of the gallery and every notebook in full, and keep what comes out
	for example in examples/gallery/[a-z]*.py; do OMP_NUM_THREADS=1 $(BIN)/python $$example || exit 1; done
	OMP_NUM_THREADS=1 $(BIN)/python examples/notebooks.py

clean: ## remove the virtual environment and everything else that was made
	rm -rf $(VENV) demo_logs docs/_build build dist *.egg-info
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An older pip takes twice as long. torch comes first, on its own: the constraint picks the build for this machine before
# other packages ask for one. Nothing is compiled here: Python keeps the bytecode of what it imports, a quarter of all.
$(READY): setup.cfg setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "sb3_pg_ext needs Python 3.10 or newer, not $$($(PYTHON) --version 2>&1): try make PYTHON=python3.11"; exit 1; }
	@echo "Setting up $(VENV), which takes minutes the first time"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --no-compile --upgrade 'pip>=25'
	@$(BIN)/pip install --quiet --no-compile --constraint constraints.txt setuptools torch
	@$(BIN)/pip install -qq --no-compile --constraint constraints.txt --no-build-isolation --editable '.[dev,zoo,mujoco,box2d,envpool,ray,compiled,docs]'
	@touch $@
