# The checkout's commands; `make help` lists them.
VENV ?= .venv
# The first Python that Trainyard runs on; a name may exist and still start nothing (pyenv's do).
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null \
	&& echo $$python && break; done)
# Further options of pip. On a machine with GPUs, or where pip's own settings do not lead to torch's build for CPUs,
# they choose where torch comes from (constraints.txt).
PIP_ARGS ?=
PYTEST_ARGS ?=
# Processes that share the tests. A test with ranks or jobs has several of its own, so more than one for each two cores
# makes them wait for each other.
TEST_PROCESSES ?= 2
pytest = $(bin)/python -m pytest -q -n $(TEST_PROCESSES) --no-loadscope-reorder $(PYTEST_ARGS)

bin := $(abspath $(VENV))/bin
# what is started from here uses this environment, whichever is active
export VIRTUAL_ENV := $(abspath $(VENV))
unexport PYTHONHOME TRAINYARD_PYTHON TRAINYARD_VENV
sudo := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help install install-dev demo test test-fast torture lint slurm-packages

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(VENV)/.installed  ## make the environment .venv and install Trainyard in it

install-dev: $(VENV)/.installed-dev  ## the same with what tests and checks need

$(VENV)/.installed: setup.py constraints.txt | $(VENV)/bin/pip
	$(bin)/python -m pip install $(PIP_ARGS) -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: setup.py constraints.txt | $(VENV)/bin/pip
	$(bin)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/bin/pip:
	@[ -n "$(PYTHON)" ] || { echo "error: no Python 3.11 or 3.12 with venv here: install one (Debian: apt-get install" \
		"python3.11-venv), or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

demo: install  ## text to a trained, stopped, resumed and writing model, in minutes on two cores
	tools/demo

test: install-dev  ## every test; those of SLURM where it is installed (make slurm-packages)
	$(pytest)

test-fast: install-dev  ## those that start no process and no server: 1,700 tests in under 90 seconds
	$(pytest) -m "not slow"

torture: install-dev  ## hundreds of random kills and full disks, thousands of hostile inputs (ROUNDS=1000, TIMES=50 for more)
	$(bin)/python -m tests.torture.checkpoints --rounds $(or $(ROUNDS),300)
	$(bin)/python -m tests.torture.sync --rounds $(or $(ROUNDS),200)
	$(bin)/python -m tests.torture.owners --rounds $(or $(ROUNDS),200)
	$(bin)/python -m tests.torture.orphans --rounds $(or $(ROUNDS),100)
	$(bin)/python -m tests.torture.orders --rounds $(or $(ROUNDS),20000)
	$(bin)/python -m tests.torture.streams --rounds $(or $(ROUNDS),5)
	$(bin)/python -m tests.torture.preprocessing --rounds $(or $(ROUNDS),20)
	$(bin)/python -m tests.torture.text_runs --rounds $(or $(ROUNDS),20)
	$(bin)/python -m tests.torture.characters
	$(bin)/python -m tests.torture.layouts
	$(bin)/python -m tests.torture.encoder
	$(bin)/python -m tests.torture.large_export
	$(bin)/python -m tests.hostile --times $(or $(TIMES),20)

lint: install-dev  ## style, types, dead code, and what documents say of files and figures
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/mypy --scripts-are-modules slurm/launch
	$(bin)/vulture
	$(bin)/python -m tools.pages.documents

slurm-packages:  ## install SLURM for the tests of the real cluster (Debian, Ubuntu)
	$(sudo) apt-get update
	$(sudo) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
		slurmctld slurmd slurm-client munge iproute2
