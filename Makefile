# `make` lists the targets.

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check --quiet
# Python 3.13 gets these without labmaze and mplib, which have no wheels for it: mazes and motion planners want them, and
# no task of ours does. What else they want is in pyproject.toml.
ALONE := 'dm_control; python_version >= "3.13"'
# Helm's own code, for the tests of the chart: it runs on Python 3.11 as well, which its metadata does not say.
HELM := 'helm-sdkpy; python_version < "3.12"'
ALL_ALONE := $(foreach name,mani_skill ogbench robodesk,'$(name); python_version >= "3.13"')
.DEFAULT_GOAL := help

##@ Use
.PHONY: help tour demo up down
tour: $(VENV)/.local ## Train a small agent on six tasks with all services on this machine (10 to 15 minutes)
	$(VENV)/bin/newt tour
demo: $(VENV)/.local ## The former name of `make tour`
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
	@PYTHON3=$$(scripts/find-python.sh) && export PYTHON3 && scripts/system-packages.sh && \
	echo "Making $(VENV) with $$("$$PYTHON3" --version) ..." && { "$$PYTHON3" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; }
$(VENV)/.local: pyproject.toml constraints.txt | $(PYTHON)
	@echo "Installing Newt and its simulators into $(VENV) (about 2 GB, a few minutes the first time) ..."
	$(PIP) install -c constraints.txt -e '.[local]'
	$(PIP) install --no-deps -c constraints.txt $(ALONE)
	@touch $@
$(VENV)/.all-domains: pyproject.toml constraints.txt constraints/maniskill.txt | $(PYTHON)
	@echo "Installing Newt and the simulators of all ten domains into $(VENV) ..."
	$(PIP) install -c constraints/maniskill.txt -e '.[all-domains]'
	$(PIP) install --no-deps -c constraints/maniskill.txt $(ALONE) $(ALL_ALONE)
	@PYTHON=$(PYTHON) scripts/maniskill-vulkan.sh
	@touch $@ $(VENV)/.local
$(VENV)/.dev: pyproject.toml constraints.txt constraints/maniskill.txt | $(PYTHON)
	@PYTHON3=$(PYTHON) scripts/system-packages.sh --dev
	@echo "Installing Newt, the simulators of all domains and development tools into $(VENV) ..."
	$(PIP) install -c constraints/maniskill.txt -e '.[dev]'
	$(PIP) install --no-deps -c constraints/maniskill.txt $(ALONE) $(ALL_ALONE)
	$(PIP) install --no-deps --ignore-requires-python -c constraints/maniskill.txt $(HELM)
	@PYTHON=$(PYTHON) scripts/maniskill-vulkan.sh
	@touch $@ $(VENV)/.local $(VENV)/.all-domains

$(VENV)/.bench: pyproject.toml constraints.txt constraints/maniskill.txt | $(PYTHON)
	@echo "Installing Newt, the simulators of all domains and what its benchmarks compare it with into $(VENV) ..."
	$(PIP) install -c constraints/maniskill.txt -e '.[bench]'
	$(PIP) install --no-deps -c constraints/maniskill.txt $(ALONE) $(ALL_ALONE)
	@PYTHON=$(PYTHON) scripts/maniskill-vulkan.sh
	@touch $@ $(VENV)/.local $(VENV)/.all-domains

##@ Check
.PHONY: test lint type fmt tests tests-long tests-engine test-all
test: lint type protos-check manifests-check docs-check tests ## Lint, types, generated files, tests: within half an hour
test-all: test tests-long tests-engine ## The same, and the tests that take long or need a Docker engine: what CI runs
lint: $(VENV)/.dev ## Style and formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	scripts/vendor-page.sh --check
type: $(VENV)/.dev ## Types
	$(VENV)/bin/mypy
tests: $(VENV)/.dev ## The tests alone: unit, service, end to end
	@PYTHON=$(PYTHON) scripts/run-tests.sh fast
tests-long: $(VENV)/.dev ## Every task whole, all tasks in one run, generated code, several trainers, an upgrade: a quarter of an hour
	@PYTHON=$(PYTHON) scripts/run-tests.sh long
tests-engine: $(VENV)/.dev ## Images, compose, faults: on a Docker engine
	@PYTHON3=$(PYTHON) scripts/system-packages.sh --engine
	@PYTHON=$(PYTHON) scripts/run-tests.sh engine
fmt: $(VENV)/.dev ## Format the code
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

##@ Supply chain
.PHONY: sbom audit audit-images hashes
TOOLS := .venv-supply
$(TOOLS)/.made: constraints/supply.txt | $(PYTHON)
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip --disable-pip-version-check --quiet install -r constraints/supply.txt
	@touch $@
sbom: $(VENV)/.dev $(TOOLS)/.made ## What is installed in .venv as CycloneDX: build/sbom.json
	@mkdir -p build
	$(TOOLS)/bin/cyclonedx-py environment $(VENV) --pyproject pyproject.toml --output-reproducible --of JSON -o build/sbom.json
audit: $(TOOLS)/.made ## Known vulnerabilities of the versions in constraints.txt; asks PyPI
	$(TOOLS)/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt
audit-images: ## Known vulnerabilities in the built images and those of others; needs Trivy or Grype
	scripts/audit-images.sh
hashes: $(TOOLS)/.made ## Hashes of all files of the pinned versions, from the package index: constraints/hashes.txt
	UV=$(TOOLS)/bin/uv scripts/hashes.sh

##@ Measure
.PHONY: bench bench-check soak fuzz
bench: $(VENV)/.bench ## Benchmarks beside plain implementations, into bench/results and docs/performance.md
	$(PYTHON) -m bench

bench-check: $(VENV)/.bench ## Some of them, quickly: is a ratio below what it must not lose? Five minutes
	$(PYTHON) -m bench --check

soak: $(VENV)/.bench ## More than an hour of one run on a whole stack: does anything grow? Into docs/reliability.md
	$(PYTHON) -m bench.soak
fuzz: $(VENV)/.dev ## Wrong requests to every service, ten minutes instead of the tests' one (NEWT_FUZZ_SEED, _SECONDS, _EXAMPLES)
	NEWT_FUZZ_SECONDS=$${NEWT_FUZZ_SECONDS:-120} NEWT_FUZZ_EXAMPLES=$${NEWT_FUZZ_EXAMPLES:-500} \
	$(PYTHON) -m pytest --timeout 1800 tests/service/strangers tests/service/learner/rest

##@ Generate
.PHONY: protos protos-check protos-baseline manifests manifests-check docs docs-check vendor
vendor: ## Bring another uPlot into the learner's page: make vendor VERSION=1.6.32 (needs npm)
	scripts/vendor-page.sh $(VERSION)
protos: $(VENV)/.dev ## gRPC stubs (newt/wire/v1) from protos/
	$(PYTHON) protos/generate.py
protos-check: $(VENV)/.dev ## Fail if the stubs are stale
	$(PYTHON) protos/generate.py --check
protos-baseline: $(VENV)/.dev ## At a release: what later versions must understand (protos/baseline.json)
	$(VENV)/bin/buf build protos --exclude-source-info -o protos/baseline.json
manifests: $(VENV)/.dev ## Simulators, alert rules, dashboards and the Helm chart in deploy/, which come from code
	$(PYTHON) -m deploy.generate
manifests-check: $(VENV)/.dev ## Fail if they are stale
	$(PYTHON) -m deploy.generate --check
docs: $(VENV)/.dev ## Tables in docs/ that come from the code
	$(PYTHON) -m docs.generate
docs-check: $(VENV)/.dev ## Fail if they are stale
	$(PYTHON) -m docs.generate --check
