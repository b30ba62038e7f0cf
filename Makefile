PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

LOWEST = .venv-lowest
LOWEST_PYTHON ?= $(or $(shell command -v python3.11),$(PYTHON))

.PHONY: help demo check test test-random test-lowest coverage records bench docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

demo: $(VENV)/installed ## install, train on scikit-learn's digits, and sample (5 minutes)
	$(BIN)/python train.py experiment=digits logger=none run.dir=runs/digits/demo resume=auto
	$(BIN)/python sample.py ckpt=runs/digits/demo output=runs/digits/demo/drawn
	@echo runs/digits/demo/drawn/grid.png

QUICK = tests/config tests/ground tests/losses tests/runs/test_unknown_keys.py tests/spaces/test_pixels.py \
	tests/samplers/test_times.py tests/test_floors.py tests/test_schedule.py tests/test_process.py tests/test_denoiser.py \
	tests/test_clipping.py tests/test_guidance.py tests/test_pyproject.py

check: $(VENV)/installed-dev ## check style and types, and run the quick tests (a minute)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --no-loadscope-reorder $(QUICK)

test: $(VENV)/installed-dev ## install, check style and types, and run every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

SEED := $(or $(SEED),$(shell date +%s))

test-random: $(VENV)/installed-dev ## the tests with random examples or kill times, with a new seed each time (SEED=...)
	@echo "make test-random SEED=$(SEED) reproduces this"
	OMP_NUM_THREADS=1 TEST_SEED=$(SEED) $(BIN)/python -m pytest --hypothesis-profile=random \
		--hypothesis-seed=$(SEED) $$(grep -lE "hypothesis|TEST_SEED" -r tests --include=test_*.py)

test-lowest: ## every test with the lowest versions that pyproject.toml allows, in a separate environment (6 GB)
	$(LOWEST_PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install -q uv
	$(LOWEST)/bin/uv pip install -q --python $(LOWEST) --resolution lowest-direct -e '.[dev]'
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

coverage: $(VENV)/installed-dev ## every test, with a list of the lines in diffusion/ that none runs
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -n 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

records: $(VENV)/installed-dev ## quality against time, ours and peers: docs/records.md (an hour on two cores)
	$(BIN)/python benchmarks/records.py

bench: $(VENV)/installed-dev ## benchmark network, trainer, data, noise, samplers and start-up
	$(BIN)/python benchmarks/run.py

docs: $(VENV)/installed ## regenerate docs/configuration.md
	$(BIN)/python -m diffusion.commands.reference docs/configuration.md

clean: ## remove the environments
	rm -rf $(VENV) $(LOWEST)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# These stamp files are newer than pyproject.toml after installation, so a second run installs nothing.
$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@ $(VENV)/installed
