# Everything runs in .venv, which the first target that needs it makes from a bare Python, pinned by constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := benchmarks/.venv-nnunet
BENCH :=

# compiled modules are kept, whatever the environment says: the tests start hundreds of processes
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test test-all test-long test-gpu lint format types docs notebook pages fuzz races soak memory faults faults-dask calibrate wheel bench-peers bench bench-dice bench-gpu experiments-gpu check clean
.DEFAULT_GOAL := check

setup: $(STAMP)

# torch first and by its exact version, so that no other package pulls in a newest one with gigabytes of CUDA; modules
# are compiled when they are first imported, as most never are
$(STAMP): pyproject.toml constraints.txt
	@echo "installing torch and the other packages into $(VENV): some minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --no-compile --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/dlx train --out runs/demo

# on all cores but at most 8; a process that has no tests left takes some of another's
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

# everything but what takes seconds or starts processes
test: setup
	$(PYTEST) -m "not slow and not long"

# everything but the long tests, which make test-long runs
test-all: setup
	$(PYTEST) -m "not long"

test-long: setup
	$(PYTEST) -m long

test-gpu: setup
	$(BIN)/python -m pytest -m gpu

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup
	$(BIN)/mypy

# pages made from help texts and from records; this fails where one is out of date (make docs UPDATE=1 mends it)
docs: setup
	$(BIN)/python docs/make_cli_reference.py $(if $(UPDATE),,--check)
	$(BIN)/python docs/make_replication.py $(if $(UPDATE),,--check)

# runs the notebook of the documentation in build/notebook and keeps its new outputs
notebook: setup
	rm -rf build/notebook && mkdir -p build/notebook && cp docs/notebook.ipynb build/notebook
	cd build/notebook && PATH="$(CURDIR)/$(BIN):$$PATH" jupyter execute --inplace notebook.ipynb
	cp build/notebook/notebook.ipynb docs/notebook.ipynb

# HTML reports as Chromium shows and prints them, and axe-core's findings; skipped by name without Chromium or node
pages: setup
	$(BIN)/python tests/browser_pages.py

fuzz: setup
	$(BIN)/python tests/fuzz_volumes.py --seconds 300

# helgrind (valgrind, installed where this is root) over reading with four threads: no race inside SimpleITK
races: setup
	$(BIN)/python tests/races.py

# 300 readings in new processes, each with a limit and shown with its stacks if it does not end
soak: setup
	$(BIN)/python tests/soak.py --runs 300

# the peak of memory of evaluating 512 x 512 x 600 with 24 classes at width 16: at most 6 GiB
memory: setup
	$(BIN)/python tests/measure_memory.py

# ten kills of a six-trial sweep at random moments, each resumed
faults: setup
	$(BIN)/python tests/faults.py --kills 10

# ten kills of workers, one of the scheduler, two of the command of a sweep on a dask cluster: all records equal
faults-dask: setup
	$(BIN)/python tests/cluster_faults.py

# how often the verdicts are wrong, by simulation, for several numbers of seeds and variants and kinds of noise
calibrate: setup
	$(BIN)/python tests/calibration.py

# dist/: a source distribution and a wheel, checked; the wheel installs in a new environment and trains from it
wheel: setup
	$(BIN)/python tests/check_wheel.py --out dist

# a peer that cannot be installed is a missing row, so nothing fails here
bench-peers: setup
	test -e $(PEERS)/.installed || { $(PYTHON) -m venv $(PEERS) \
	  && $(PEERS)/bin/python -m pip install -q --disable-pip-version-check $$(grep '^torch==' constraints.txt) \
	  && $(PEERS)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -r benchmarks/peers.txt \
	  && touch $(PEERS)/.installed; } || { rm -rf $(PEERS); echo "nnU-Net could not be installed: its rows are missing"; }

# a step beside peers in 2D and 3D, the time to a Dice, the cost as work grows; half an hour on two quiet cores
bench: bench-peers
	$(BIN)/python -m benchmarks.run --device cpu $(BENCH)
	$(BIN)/python -m benchmarks.run --dims 3 --device cpu $(BENCH)
	$(BIN)/python -m benchmarks.time_to_dice --device cpu $(BENCH)
	$(BIN)/python -m benchmarks.scaling --device cpu $(BENCH)
	$(BIN)/python -m benchmarks.report

# Dice over the time of training, beside MONAI and nnU-Net as they come: two hours and a half on two quiet cores
bench-dice: bench-peers
	$(BIN)/python -m benchmarks.dice_over_time --device cpu $(BENCH)
	$(BIN)/python -m benchmarks.report

bench-gpu: bench-peers
	$(BIN)/python -m benchmarks.run --device cuda $(BENCH)
	$(BIN)/python -m benchmarks.time_to_dice --device cuda $(BENCH)
	$(BIN)/python -m benchmarks.scaling --device cuda $(BENCH)
	$(BIN)/python -m benchmarks.report

# the notes' studies at their own size; hours without a GPU
experiments-gpu: setup
	experiments/in_full.sh

check: lint types test-all docs

clean:
	rm -rf $(VENV) $(PEERS) runs build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
