# make demo   train on simulated images, score, predict (about a minute)
# make test   formatting, lint, types and the whole test suite, as CI runs it
# make quick  the same without the slow tests (about a minute)
# make check  formatting, lint and types only
# make docs   the reference pages of tinyseg/docs, from the code
# make torture  try to break it for a minute: kills, full disks, damaged files
# make bench  the step beside PyTorch's, into the README's table (an idle machine, 10 minutes)

TORTURE_MINUTES ?= 1
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
WORKERS ?= 2
CELLS := sim:cells?n=64&size=96&seed=0

.PHONY: demo test quick check docs torture bench clean

demo: .venv/ready
	rm -rf $(DEMO)
	$(BIN)/tinyseg train "$(CELLS)" --out $(DEMO)/run --set data.size=96 model.base_channels=8 \
		model.depth=3 train.batch_size=8 train.epochs=15 train.optimizer="adam(lr=0.01)"
	$(BIN)/tinyseg simulate $(DEMO)/new --kind cells --n 8 --size 96 --seed 1
	$(BIN)/tinyseg predict $(DEMO)/run $(DEMO)/new/images --out $(DEMO)/predictions
	$(BIN)/tinyseg evaluate $(DEMO)/run "$(CELLS)" --picture $(DEMO)/grid.png

# threads of NumPy's small matrix products would wait for each other: half of the doctor tests' time
test quick: export OPENBLAS_NUM_THREADS = 1

test: check
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

quick: check
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

check: .venv/ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/ready
	$(BIN)/python -m tinyseg.cli.reference

torture: .venv/ready
	$(BIN)/python bench/torture.py --minutes $(TORTURE_MINUTES)

bench: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[bench]"
	$(BIN)/python bench/step.py --cases A,B,C --json step
	$(BIN)/python bench/table.py

clean:
	rm -rf .venv $(DEMO) build *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tinyseg needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; echo "no venv module: install python3-venv"; exit 1; }

.venv/ready: pyproject.toml .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[cpu]"
	@touch $@

.venv/ready-dev: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@
