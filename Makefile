# Each target makes .venv itself; a second call does not reinstall. TensorFlow, which test-all asks,
# wants other versions of numpy and protobuf: it has an environment of its own.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 \
	"$$HOME"/.pyenv/versions/3.1[1-3]*/bin/python; do \
	"$$p" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
SNAKEMAKE = PATH="$(CURDIR)/$(BIN):$$PATH" snakemake
# Two processes: more would each wait for the one with the small run of the workflow.
PARALLEL := --numprocesses 2
CORES ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: help demo test test-all test-gpu lint format clean

help:
	@echo "make demo      everything once, on generated data: results_demo/report.html"
	@echo "make test      the tests           make test-all  the slow ones too"
	@echo "make test-gpu  trainings on this machine's GPU, held against the CPU's"
	@echo "make lint      ruff, snakefmt, snakemake --lint"
	@echo "make format    most of what lint asks for"
	@echo "make clean     removes .venv, and the demo's data and results"

.venv/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed and none starts:" \
		"install one or name it with 'make PYTHON=/path/to/python'" >&2; exit 1; }
	@echo "installing the packages, some 2 GB, into .venv: a few minutes"
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@

.venv/installed-slow: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test,slow]"
	touch $@

.venv/tao-protos/installed: envs/tao-protos.txt | .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target $(@D) --requirement $<
	touch $@

.venv-tensorflow/installed: tests/tensorflow/requirements.txt | .venv/installed
	$(BIN)/python -m venv .venv-tensorflow
	.venv-tensorflow/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@

data/demo: | .venv/installed
	$(BIN)/python -m scenes data/demo

demo: .venv/installed data/demo
	$(SNAKEMAKE) all deploy_local --cores $(CORES) --configfile config/demo.yaml
	$(SNAKEMAKE) report --cores $(CORES) --configfile config/demo.yaml

test: .venv/installed
	$(BIN)/python -m pytest $(PARALLEL)

test-all: .venv/installed-slow .venv/tao-protos/installed .venv-tensorflow/installed
	$(BIN)/python -m pytest -m "slow or not slow" $(PARALLEL)

test-gpu: .venv/installed
	TEST_DEVICE=cuda $(BIN)/python -m pytest tests/detectnet_v2/test_gpu.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(SNAKEMAKE) --lint

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

clean:
	rm -rf .venv .venv-tensorflow .snakemake results_demo data/demo
