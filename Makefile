# `make` lists the targets.

PYTHON3 ?= python3.11
VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check --quiet
export PYTHON3
.DEFAULT_GOAL := help

##@ Use
.PHONY: help demo up down
demo: $(VENV)/.local ## Train a small agent on ten tasks with all services on this machine (about 10 minutes)
	$(VENV)/bin/newt demo
up: $(VENV)/.local ## Start all services on this machine
	$(VENV)/bin/newt up
down: ## Stop them
	$(VENV)/bin/newt down
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {print "\n" substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Set up
.PHONY: setup all-domains
setup: $(VENV)/.dev ## Virtual environment with everything for development
all-domains: $(VENV)/.all-domains ## Simulators of all ten domains, side by side
$(PYTHON):
	@scripts/system-packages.sh
	$(PYTHON3) -m venv $(VENV)
$(VENV)/.local: pyproject.toml constraints.txt | $(PYTHON)
	@echo "Installing Newt and its simulators into $(VENV) (about 2 GB, a few minutes the first time) ..."
	$(PIP) install -c constraints.txt -e '.[local]'
	@touch $@
$(VENV)/.all-domains: pyproject.toml constraints.txt constraints/maniskill.txt | $(PYTHON)
	@echo "Installing Newt and the simulators of all ten domains into $(VENV) ..."
	$(PIP) install -c constraints/maniskill.txt -e '.[all-domains]'
	@PYTHON=$(PYTHON) scripts/maniskill-vulkan.sh
	@touch $@ $(VENV)/.local
$(VENV)/.dev: pyproject.toml constraints.txt constraints/maniskill.txt | $(PYTHON)
	@scripts/system-packages.sh --dev
	@echo "Installing Newt, the simulators of all domains and development tools into $(VENV) ..."
	$(PIP) install -c constraints/maniskill.txt -e '.[dev]'
	@PYTHON=$(PYTHON) scripts/maniskill-vulkan.sh
	@touch $@ $(VENV)/.local $(VENV)/.all-domains

$(VENV)/.bench: pyproject.toml constraints.txt constraints/maniskill.txt | $(PYTHON)
	@echo "Installing Newt, the simulators of all domains and what its benchmarks compare it with into $(VENV) ..."
	$(PIP) install -c constraints/maniskill.txt -e '.[bench]'
	@PYTHON=$(PYTHON) scripts/maniskill-vulkan.sh
	@touch $@ $(VENV)/.local $(VENV)/.all-domains

##@ Check
.PHONY: test lint type fmt tests
test: lint type protos-check manifests-check docs-check tests ## Everything CI checks: lint, types, generated files, all tests
lint: $(VENV)/.dev ## Style and formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
type: $(VENV)/.dev ## Types
	$(VENV)/bin/mypy
tests: $(VENV)/.dev ## The tests alone: unit, service, end to end
	@status=0; \
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist loadfile -m "not docker" || status=$$?; \
	$(PYTHON) -m pytest -m docker || status=$$?; \
	exit $$status
fmt: $(VENV)/.dev ## Format the code
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

##@ Measure
.PHONY: bench
bench: $(VENV)/.bench ## Benchmarks beside plain implementations, into bench/results and docs/performance.md
	$(PYTHON) -m bench

##@ Generate
.PHONY: protos protos-check manifests manifests-check docs docs-check
protos: $(VENV)/.dev ## gRPC stubs (newt/wire/v1) from protos/
	$(PYTHON) protos/generate.py
protos-check: $(VENV)/.dev ## Fail if the stubs are stale
	$(PYTHON) protos/generate.py --check
manifests: $(VENV)/.dev ## Simulators, alert rules and dashboards in deploy/ that come from code
	$(PYTHON) -m deploy.generate
manifests-check: $(VENV)/.dev ## Fail if they are stale
	$(PYTHON) -m deploy.generate --check
docs: $(VENV)/.dev ## Tables in docs/ that come from the code
	$(PYTHON) -m docs.generate
docs-check: $(VENV)/.dev ## Fail if they are stale
	$(PYTHON) -m docs.generate --check
