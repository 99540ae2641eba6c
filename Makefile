# nmsat: every target sets up what it needs. `make help` lists them.
VENV ?= .venv
PY := $(VENV)/bin/python
# Debian packages: python3-venv for a bare system Python, git for provenance of checks; g++, perl and iverilog for the
# simulators that check the hardware; tcl for the scripts of the board flow; an assembler and an emulator for the
# AArch64 kernels; a browser that opens the reports.
APT := python3-venv git make g++ perl iverilog z3 tcl binutils-aarch64-linux-gnu qemu-user chromium

.PHONY: help run test slow bench lint gallery clean system
.DEFAULT_GOAL := help
J ?= 1

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

run: $(VENV)/.run ## set up and simulate a ResNet-18 training step
	$(VENV)/bin/nmsat run resnet18

test: system $(VENV)/.dev ## set up, system packages included, and run the tests
	$(PY) -m pytest -q -n 2 -m "not slow and not torch"

slow: $(VENV)/.dev ## the long checks, on J cores: make slow J=16
	$(PY) -m pytest -q -m slow -n $(J)

bench: $(VENV)/.dev ## benchmarks, all or BENCH=name, each with its bar
	@missed=0; for file in benchmarks/$(if $(BENCH),$(BENCH),*).py; do $(PY) $$file || missed=1; done; exit $$missed

lint: $(VENV)/.dev ## ruff and pyright
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(PY)

gallery: $(VENV)/.dev ## regenerate the committed gallery (reports/gallery)
	$(VENV)/bin/nmsat report --gallery reports/gallery

clean: ## remove what the targets made
	rm -rf $(VENV) .venv-oldest .venv-torch build dist out *.egg-info .pytest_cache .ruff_cache .hypothesis

# Only what is missing is installed, by apt as root or through sudo.
system:
	@missing=$$(for p in $(APT); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	if [ -n "$$missing" ] && ! command -v apt-get >/dev/null; then \
	  echo "no apt-get here: going on without having checked for:" $$missing; \
	elif [ -n "$$missing" ] && [ "$$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then \
	  echo "not root and no sudo: please install" $$missing; exit 1; \
	elif [ -n "$$missing" ]; then \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; \
	fi

$(VENV)/bin/python:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "nmsat needs Python 3.11 or newer"; exit 1; }
	@python3 -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory system
	python3 -m venv $(VENV)

$(VENV)/.run: pyproject.toml $(VENV)/bin/python
	$(PY) -m pip install -q -e .
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/bin/python
	$(PY) -m pip install -q -e ".[dev]"
	@touch $@ $(VENV)/.run
