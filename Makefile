# One virtual environment for everything, filled as far as a target needs it, and again when the pins change.
PYTHON ?= $(shell for python in python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# For two cores: for a quarter of their time tests wait, for other processes and for clocks.
PYTEST_WORKERS ?= 3

.PHONY: help setup system-packages demo test check bench reproduce serve docs audit engines engines-newer

help:
	@echo "make demo    plan the sample trace and show before and after"
	@echo "make test    run the tests"
	@echo "make check   style, types and import directions"
	@echo "make bench   run the benchmarks"
	@echo "make reproduce  re-create published tables, side by side with what was printed: docs/reproduce.md"
	@echo "make serve   serve the page and the REST interface on this machine"
	@echo "make docs    build the documentation into site/"
	@echo "make engines run the code of serving engines against ours; downloads about 500 MB, once"
	@echo "make engines-newer  say which engines have a newer release than the pinned one"
	@echo "make audit   look for known vulnerabilities in the dependencies; needs a network"

setup: $(VENV)/.ready

# The library and the command line.
$(VENV)/.base: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	@touch $@

# And the service.
$(VENV)/.service: $(VENV)/.base
	$(INSTALL) --editable ".[parquet,service]"
	@touch $@

# And what tests, checks and benchmarks need. pip 25.1 is the first that installs dependency groups.
$(VENV)/.ready: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(INSTALL) --editable ".[parquet,service]" --group dev --group s3-tests
	$(INSTALL) --group capture || \
		echo "No CPU build of PyTorch for this Python and pip: the tests that capture from models are skipped." >&2
	@touch $@

# Programs that some tests start. Where they can't be installed, those tests are skipped and say why.
system-packages:
	@missing=; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$$missing postgresql"; \
	ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$$missing faketime"; \
	test -n "$$missing" || exit 0; \
	if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
		echo "installing$$missing"; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $$missing; } \
			>/dev/null || echo "could not install$$missing: some tests will be skipped" >&2; \
	else echo "not installed:$$missing: some tests will be skipped (as root: apt-get install$$missing)" >&2; fi

demo: $(VENV)/.base
	$(BIN)/moe-placement demo

# A file stays with one worker: what its tests share is made once, and loops are compiled once rather than in each.
# Tests start hundreds of processes, which compile all of their modules again where bytecode is not kept.
test: export PYTHONDONTWRITEBYTECODE =
test: setup system-packages
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	@for script in benchmarks/[a-z]*.py; do \
		test -e "$$script" || continue; echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

# The tables of docs/reproduce.md: published figures beside what comes out here.
reproduce: $(VENV)/.base
	$(BIN)/python -m benchmarks.reproduce --write

serve: $(VENV)/.service
	$(BIN)/moe-placement serve

# Asks a database of vulnerabilities over the network, so it is not a part of the tests.
audit: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --local --progress-spinner off

# The engines' own code, without their GPU stacks, in a folder of its own; docs/engines/compatibility.md is the result.
ENGINES ?= .engines

engines:
	$(PYTHON) tests/engines/install.py $(ENGINES)
	$(PYTHON) tests/engines/run.py $(ENGINES)

engines-newer:
	@$(PYTHON) tests/engines/newer.py

docs: $(VENV)/.docs
	$(BIN)/zensical build --clean --strict

$(VENV)/.docs: $(VENV)/.ready
	$(INSTALL) --group docs
	@touch $@
