# Every target does its own set-up. PYTHON is the interpreter that .venv is made from (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: install demo test test-slow check format soak bench install-pybench lock clean help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

install: $(VENV)/.installed  ## create .venv and install the runner with locked versions

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "$(PYTHON) is older than Python 3.11; name a newer one: make install PYTHON=python3.12"; exit 1; }
	@echo "installing into $(VENV) (about a minute) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	@echo "installing the test tools ..."
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.installed-pybench: requirements-pybench.lock $(VENV)/.installed
	@echo "installing what PyBench's tasks import ..."
	@$(PIP) --require-hashes -r requirements-pybench.lock
	@touch $@

install-pybench: $(VENV)/.installed-pybench  ## add the packages that PyBench's tasks import

demo: install  ## run and score the built-in benchmark with its reference solutions
	@run=runs/demo-$$(date +%Y%m%d-%H%M%S) && \
	$(BIN)/python -m runner --run-dir $$run && $(BIN)/python -m scoring $$run

test: $(VENV)/.installed-dev  ## run the test suite
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.installed-dev  ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.installed-dev  ## ruff, ruff format, mypy strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev  ## apply ruff's fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: $(VENV)/.installed-dev  ## 10,000 sandboxes, 100,000 cells: no leak, no output lost (some 15 minutes)
	KERNELFLEET_SOAK_CYCLES=10000 KERNELFLEET_SOAK_CELLS=100000 \
	$(BIN)/python -m pytest -m slow tests/sandbox_pool/test_soak.py -o log_cli=true -o log_cli_level=INFO

bench: $(VENV)/.installed-dev  ## measure a turn beside a bare loop and Inspect AI, a sandbox beside cold kernels
	$(BIN)/python -m tests.bench.loop_cost
	$(BIN)/python -m tests.bench.long_conversation
	$(BIN)/python -m tests.bench.memory
	$(BIN)/python -m tests.bench.real_sandboxes
	$(BIN)/python -m tests.bench.sandbox_pool

LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --no-header pyproject.toml

lock:  ## renew the lock files (needs uv)
	$(LOCK) --group build -o requirements.lock
	$(LOCK) --group dev -c requirements.lock -o requirements-dev.lock
	$(LOCK) --extra pybench --group build -c requirements.lock -o requirements-pybench.lock

clean:  ## remove .venv and caches; runs stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
