PYTHON ?= .venv/bin/python

.PHONY: protos protos-check
protos: ## Generate the gRPC stubs (newt/wire/v1) from protos/
	$(PYTHON) protos/generate.py
protos-check: ## Fail if the generated stubs are stale
	$(PYTHON) protos/generate.py --check
