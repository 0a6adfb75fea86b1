# make run    install, then the whole study at reduced size: 9 conditions, all methods, the report (some 8 minutes on 2 free cores, installing aside)
# make test       install, then everything that needs nothing but Python, on all cores
# make test-fast  the same without whole studies and kernels: under two minutes
PYTHON ?= python3
BIN := .venv/bin

.venv/.run: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[lsqml,sweep]'
	touch $@

.venv/.test: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[all]'
	touch $@ .venv/.run

.PHONY: run test test-fast test-notebooks test-browser test-slurm test-gpu lint docs
run: .venv/.run
	$(BIN)/fly64 run --profile quick --output runs/quick

test: .venv/.test lint
	$(BIN)/python -m pytest -p no:nbval --numprocesses logical --dist worksteal -m "not browser and not slurm and not gpu"
	$(MAKE) test-notebooks

test-fast: .venv/.test
	$(BIN)/python -m pytest -p no:nbval --numprocesses logical --dist worksteal -m "not slow and not browser and not slurm and not gpu"

# every notebook against its executed reference; python tests/remake_references.py --reason "..." makes them anew
test-notebooks: .venv/.test
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 2 --dist loadscope \
		--nbval --nbval-sanitize-with tests/reference/sanitize.cfg --nbval-cell-timeout 600 tests/reference

docs: .venv/.test
	$(BIN)/python -m mkdocs build --strict --site-dir build/site

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test-browser: .venv/.test
	$(BIN)/python -m pytest -m browser

test-slurm: .venv/.test
	$(BIN)/python -m pytest -m slurm

test-gpu: .venv/.test
	$(BIN)/python -m pytest -m gpu
