# make run    install, then train at dose 1e5 and write runs/train (executed notebook, figures, metrics, bundle)
# make test   install, then everything that needs nothing but Python
PYTHON ?= python3
BIN := .venv/bin

.venv/.run: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e .
	touch $@

.venv/.test: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[all]'
	touch $@ .venv/.run

.PHONY: run test test-browser test-slurm test-gpu lint
run: .venv/.run
	mkdir -p runs/train
	$(BIN)/papermill -k python3 notebooks/train.ipynb runs/train/train.ipynb -p dose 100000 -p threads 2

test: .venv/.test lint
	$(BIN)/python -m pytest -m "not browser and not slurm and not gpu"

lint: .venv/.test
	$(BIN)/ruff check .

test-browser: .venv/.test
	$(BIN)/python -m pytest -m browser

test-slurm: .venv/.test
	$(BIN)/python -m pytest -m slurm

test-gpu: .venv/.test
	$(BIN)/python -m pytest -m gpu
