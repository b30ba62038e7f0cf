PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

LOWEST = .venv-lowest
LOWEST_PYTHON ?= $(or $(shell command -v python3.11),$(PYTHON))

.PHONY: help demo check test test-random test-lowest coverage bench docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

demo: $(VENV)/installed ## install, train on the digits that scikit-learn brings, and draw samples (5 minutes)
	$(BIN)/python train.py experiment=digits logger=none run.dir=runs/digits/demo resume=auto
	$(BIN)/python sample.py ckpt=runs/digits/demo output=runs/digits/demo/drawn
	@echo runs/digits/demo/drawn/grid.png

QUICK = tests/config tests/ground tests/losses tests/spaces/test_pixels.py tests/test_floors.py tests/test_schedule.py \
	tests/test_process.py tests/test_denoiser.py tests/test_guidance.py tests/samplers/test_times.py tests/test_pyproject.py

check: $(VENV)/installed-dev ## the style, the types, and the tests that are quick (a minute)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --no-loadscope-reorder $(QUICK)

test: $(VENV)/installed-dev ## install, check the style and the types, and run every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

SEED := $(or $(SEED),$(shell date +%s))

test-random: $(VENV)/installed-dev ## the tests that draw examples or kill at random, from another seed each time (SEED=...)
	@echo "make test-random SEED=$(SEED) repeats this"
	OMP_NUM_THREADS=1 TEST_SEED=$(SEED) $(BIN)/python -m pytest --hypothesis-profile=random \
		--hypothesis-seed=$(SEED) $$(grep -lE "hypothesis|TEST_SEED" -r tests --include=test_*.py)

test-lowest: ## every test with the lowest versions that pyproject.toml admits, in an environment of its own (6 GB)
	$(LOWEST_PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install -q uv
	$(LOWEST)/bin/uv pip install -q --python $(LOWEST) --resolution lowest-direct -e '.[dev]'
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

coverage: $(VENV)/installed-dev ## every test, and which lines of diffusion/ none of them ran
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -n 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

bench: $(VENV)/installed-dev ## measure network, trainer, data, noise, samplers and start-up against their peers
	$(BIN)/python benchmarks/run.py

docs: $(VENV)/installed ## write docs/configuration.md anew
	$(BIN)/python -m diffusion.commands.reference docs/configuration.md

clean: ## remove the environments
	rm -rf $(VENV) $(LOWEST)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The stamps are younger than pyproject.toml once it is installed, so that a second run installs nothing.
$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@ $(VENV)/installed
