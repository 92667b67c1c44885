# Everything from nothing: `make run` and `make test` make the environment first, and only once.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup run test check bench lab kernel lambda clean
RECIPE ?= cpu
OUT ?= runs/$(shell date +%Y%m%d-%H%M%S)
SEED ?= 0
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# The tested torch, from pyproject.toml. Without an NVIDIA GPU on Linux: PyTorch's CPU build, for the usual one brings
# gigabytes of CUDA. (macOS has one build only.)
TORCH ?= $(shell sed -n 's/^tested = \["\(torch==[^"]*\)"\]/\1/p' pyproject.toml)$(CPU)
CPU := $(shell [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && echo +cpu)
CPU_INDEX := $(if $(CPU),--extra-index-url https://download.pytorch.org/whl/cpu --timeout 15 --retries 1)

help:  ## list these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv and install everything into it (once)

$(STAMP): pyproject.toml
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break || python=; done; \
	if [ -z "$$python" ]; then echo "Python 3.11 or newer is needed, and none was found: install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; fi; \
	$$python -m venv $(VENV) || { echo "$$python cannot make a virtual environment. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PY) -m pip install --quiet --upgrade 'pip>=25'
	@echo "Installing $(TORCH) and the rest: a few minutes, once."
	@$(PY) -m pip install --quiet --no-deps $(CPU_INDEX) '$(TORCH)' || { \
	  echo "The CPU build of torch could not be fetched. The usual build, on Linux some gigabytes of CUDA: make setup TORCH=$(TORCH:+cpu=)" >&2; exit 1; }
	@$(PY) -m pip install --quiet --no-compile -e '.[all]'
	@touch $@

run: $(STAMP)  ## the whole tutorial with a real model on this machine, and a report (RECIPE=cpu OUT=runs/... SEED=0)
	$(PY) -m rlvr_kit notebooks --recipe $(RECIPE) --out $(OUT) --seed $(SEED)

test: $(STAMP)  ## every test, and every notebook executed on a tiny model (under 10 minutes on two cores)
	$(PY) -m pytest -n 2

check: $(STAMP)  ## the quick loop: lint, format, types, and that notebooks are clean and small
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest -q tests/test_notebooks.py -k static

bench: $(STAMP)  ## time training and evaluation against their plain counterparts
	$(PY) -m rlvr_kit bench

lab: $(STAMP)  ## open JupyterLab on the notebooks
	$(PY) -m jupyterlab notebooks

kernel: $(STAMP)  ## register this environment as the Jupyter kernel "rlvr_kit" (for SageMaker Studio)
	$(PY) -m ipykernel install --user --name rlvr_kit --display-name "Python (rlvr_kit)"

lambda: $(STAMP)  ## build the AWS Lambda reward as a zip file
	$(PY) -m rlvr_kit.lambda_reward

clean:  ## remove what runs and tools left (runs/ and caches; .venv stays)
	rm -rf runs build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
