# The only thing expected of the machine is Python 3.12 or newer; everything else is set up in .venv from
# requirements.lock. `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --output-sync=target

VENV := .venv
PYTHON := $(VENV)/bin/python
LOCKED := $(VENV)/.locked
INSTALLED := $(VENV)/.installed
VIEWER := $(if $(wildcard tests/viewer/package-lock.json),tests/viewer/node_modules/.package-lock.json)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_ROOT_USER_ACTION := ignore
export DEBIAN_FRONTEND := noninteractive
# Two processes share the tests; one that crashes, or that the hang guard ends, ends the run. On a build machine output
# is plain text and the slowest tests are listed.
PYTEST_ARGS ?= -n 2 --dist worksteal --max-worker-restart 0 $(if $(filter true 1,$(CI)),--color=no --durations=10)

# The first that runs, is new enough and can make an environment. Shims of pyenv may exist and fail, so each is tried;
# versions that pyenv holds but does not select are looked at last.
find_python = $(shell for python in python3.12 python3.13 python3.14 python3 python \
	"$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.{12,13,14}*/bin/python; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 \
	&& { echo "$$python"; break; }; done)
no_python = Python 3.12 or newer, with its venv module, is needed: install it with "pyenv install 3.12", from \
	python.org, or as python3.12 and python3.12-venv from your distribution

# An environment whose interpreter is gone, or that was copied or moved here from elsewhere, is made anew.
ifneq ($(shell cat $(LOCKED) 2>/dev/null),$(shell $(PYTHON) -c 'import sys; print(sys.prefix)' 2>/dev/null))
$(shell rm -f $(LOCKED) $(INSTALLED))
endif

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: setup
setup: $(INSTALLED) ## make .venv with everything that is locked, and install the project into it
	@:

$(LOCKED): requirements.lock
	$(eval BASE_PYTHON := $(find_python))$(if $(BASE_PYTHON),,$(error $(no_python)))
	@rm -rf $(VENV)
	@echo "Setting up $(VENV) (once; about 1 GB)"
	@"$(BASE_PYTHON)" -m venv $(VENV)
	@$(PYTHON) -m pip install -qq --no-deps --require-hashes --only-binary=:all: -r requirements.lock
	@$(PYTHON) -c 'import sys; print(sys.prefix)' > $@

$(INSTALLED): pyproject.toml $(LOCKED)
	@$(PYTHON) -m pip install -qq --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: demo
demo: $(INSTALLED) ## build a synthetic slide, convert and validate it, and show what was made
	@$(PYTHON) -m examples.demo

.PHONY: test
test: $(INSTALLED) system $(VIEWER) ## run all tests
	@$(if $(VIEWER),if [[ -f $(VIEWER) && ! -d $(SHIPPED) ]]; then $(MAKE) viewer; fi)
	@$(PYTHON) -m pytest $(PYTEST_ARGS)

# The viewer tests need a browser and npm, those of DICOMweb Orthanc. Without them, and without the right to install them,
# they skip and say so.
.PHONY: system
system:
	@missing=(); \
	command -v chromium chromium-browser google-chrome >/dev/null || missing+=(chromium); \
	command -v npm >/dev/null || missing+=(nodejs npm); \
	PATH="$$PATH:/usr/sbin" command -v Orthanc >/dev/null || missing+=(orthanc orthanc-dicomweb); \
	if (( $${#missing[@]} == 0 )); then exit 0; fi; \
	if [[ $$(id -u) == 0 && -e /etc/debian_version ]] \
	&& { echo "Installing $${missing[*]}"; apt-get update -qq >/dev/null; } \
	&& apt-get install -qq -y --no-install-recommends "$${missing[@]}" >/dev/null; then exit 0; fi; \
	echo "Not installed, so tests that need them are skipped: $${missing[*]}"

tests/viewer/node_modules/.package-lock.json: tests/viewer/package-lock.json | system
	@if command -v npm >/dev/null; then npm ci --prefix tests/viewer --loglevel=error --no-audit --no-fund >/dev/null && touch $@; fi

# The viewer of the pages of `coverslip serve`, as npm locks it; the wheel holds what lies there when it is built.
SHIPPED := src/coverslip/server/viewer
.PHONY: viewer
viewer: $(VIEWER) ## copy dicom-microscopy-viewer into the package, for the pages of coverslip serve
	@if [[ ! -d tests/viewer/node_modules/dicom-microscopy-viewer ]]; then echo "npm is needed: apt-get install npm"; exit 1; fi
	@rm -rf $(SHIPPED) && mkdir -p $(SHIPPED)/dynamic-import
	@cd tests/viewer/node_modules && cp dicom-microscopy-viewer/dist/dicomMicroscopyViewer.bundle.min.js \
		dicom-microscopy-viewer/dist/*.LICENSE.txt dicomweb-client/build/dicomweb-client.js ../../../$(SHIPPED)/ \
		&& cp dicom-microscopy-viewer/dist/dynamic-import/*.wasm \
		dicom-microscopy-viewer/dist/dynamic-import/dataLoader.worker.min.js ../../../$(SHIPPED)/dynamic-import/

.PHONY: lint
lint: $(INSTALLED) ## check style, format and types
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m ruff format --quiet --check .
	@$(PYTHON) -m mypy --strict src

.PHONY: format
format: $(INSTALLED) ## put imports and layout in order
	@$(PYTHON) -m ruff check --quiet --fix-only .
	@$(PYTHON) -m ruff format --quiet .

.PHONY: bench
bench: $(INSTALLED) ## measure speed and memory against a peer and the limit
	@$(PYTHON) -m benchmarks

.PHONY: baseline
baseline: $(INSTALLED) ## write the pinned columns of the catalog's table of headers
	@$(PYTHON) -m tools.make_baseline_schema

.PHONY: soak
soak: $(INSTALLED) ## put 2 GB into every kind of store, take 300 slides through all stages, and kill runs 25 times
	@$(PYTHON) -m benchmarks.stores
	@$(PYTHON) -m benchmarks.pipeline soak
	@$(PYTHON) -m benchmarks.pipeline kills

.PHONY: serving
serving: $(INSTALLED) ## measure frames per second of coverslip serve beside a bare application, nginx and Orthanc
	@$(PYTHON) -m benchmarks.serve

.PHONY: lock
lock: $(INSTALLED) ## resolve the newest versions that pyproject.toml allows into requirements.lock
	@$(PYTHON) -m pip install -qq uv
	@$(PYTHON) -m uv pip compile --quiet --upgrade --universal --python-version 3.12 --all-extras --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
		--output-file requirements.lock pyproject.toml

.PHONY: clean
clean: ## remove everything that make has made
	@rm -rf $(VENV) $(SHIPPED) .demo .bench .screenshots build dist htmlcov .coverage .coverage.* .*_cache .hypothesis \
		tests/viewer/node_modules
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
