# Everything here works with Python 3.11 or newer and pip; nothing else has to be installed.

PYTHON ?= python3
VENV   ?= .venv
SAMPLE ?= docs/samples/the-lamplighters-ledger.md
ARGS   ?=

BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCK := $(BIN)/uv --no-config --quiet pip compile pyproject.toml --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --custom-compile-command "make lock"

# A copied or moved clone brings a virtual environment that points to where it was: install it again.
$(shell test "$$(cat $(VENV)/installed 2>/dev/null)" = "$(CURDIR)" || rm -f $(VENV)/installed $(VENV)/installed-dev $(VENV)/installed-bench)

.DEFAULT_GOAL := help
.PHONY: help install install-dev run test lint bench bench-streams chaos fuzz format lock clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/installed ## Make the virtual environment and install what running needs
	@echo "install | ready in $(VENV)"

install-dev: $(VENV)/installed-dev ## The same, and what testing and checking need
	@echo "install | ready in $(VENV), with the tools for tests"

run: install ## Start everything here and put the sample through it (ONCE=1: stop after the report)
	@began=$$(date +%s); \
	echo "run     | ledgerline up"; \
	$(BIN)/ledgerline up --sample $(SAMPLE) $(if $(ONCE),--once); status=$$?; \
	echo "run     | ended after $$(( $$(date +%s) - began )) s"; \
	exit $$status

# A file's tests stay together and share what they set up; the files go in their order, which has the longest early.
test: install-dev ## Run the tests, a few processes at once (ARGS="-k chapters" for some of them, ARGS="-n 0" for one)
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: install-dev ## Check style, types and which floor imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

# The peers stay out of the environment that runs and tests the program.
chaos: install-dev ## Kill, freeze and cut things under thousands of jobs (SEED=7 JOBS=20000 FAULTS=1000)
	PYTHONPATH=.:tests $(BIN)/python -m chaos.run \
	  $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) $(if $(FAULTS),--faults $(FAULTS)) $(ARGS)

bench-streams: install-dev ## Hold a thousand live streams open, and measure how soon events arrive (STREAMS=1000)
	PYTHONPATH=.:tests $(BIN)/python -m bench.streams

fuzz: install-dev ## Call the API in every way its document allows, and in many it does not (EXAMPLES=200 SEED=7)
	FUZZ_EXAMPLES=$(or $(EXAMPLES),200) $(if $(SEED),FUZZ_SEED=$(SEED)) $(BIN)/python -m pytest tests/test_api_fuzz.py --timeout=7200 $(ARGS)

bench: ## Measure against peers (ONLY=one,pickup PEERS=celery,dbos ROUNDS=3 JOBS=2000 FULL=1)
	@$(MAKE) --no-print-directory .venv-bench/installed-bench VENV=.venv-bench
	PYTHONPATH=tests .venv-bench/bin/python -m bench

format: install-dev ## Let ruff set the code and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: install-dev ## Write requirements*.txt from pyproject.toml (ARGS=--upgrade for newer versions)
	$(LOCK) --extra build -o requirements.txt $(ARGS)
	$(LOCK) --extra build --extra dev --constraint requirements.txt -o requirements-dev.txt $(ARGS)
	$(LOCK) --extra build --extra bench --constraint requirements.txt -o requirements-bench.txt $(ARGS)

clean: ## Remove the virtual environment and caches; keeps the data in .ledgerline
	rm -rf $(VENV) .venv-bench build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The stamp files hold the folder they were made for.
$(VENV)/installed: requirements.txt pyproject.toml
	$(call install,requirements.txt)
	@echo "$(CURDIR)" > $@

$(VENV)/installed-dev: requirements-dev.txt requirements.txt pyproject.toml
	$(call install,requirements-dev.txt)
	@echo "$(CURDIR)" | tee $(VENV)/installed > $@

$(VENV)/installed-bench: requirements-bench.txt pyproject.toml
	$(call install,requirements-bench.txt)
	@echo "$(CURDIR)" | tee $(VENV)/installed > $@

define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Ledgerline needs Python 3.11 or newer, and '$(PYTHON)' is not. Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@began=$$(date +%s); \
	test -x $(BIN)/python || { \
	  echo "install | making a virtual environment in $(VENV)"; \
	  $(PYTHON) -m venv $(VENV) || { \
	    rm -rf $(VENV); \
	    echo "Python could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }; }; \
	echo "install | installing $(1), as locked"; \
	$(PIP) install --require-hashes -r $(1) && \
	$(PIP) install --no-deps --no-build-isolation --editable . && \
	echo "install | took $$(( $$(date +%s) - began )) s"
endef
