# `make repro` and `make test` do everything on a fresh machine, set-up included.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The lock pins versions; torch comes first and alone, so that pip does not look for another build of it.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint requirements.lock
# Of tens of thousands of modules a few thousand are used: what ours import is compiled here, once.
COMPILE := $(BIN)/python -c 'import importlib, sys; [importlib.import_module(name[:-3].replace("/", ".")) \
	for name in sys.argv[1:]]' $(filter-out %/__main__.py,$(wildcard pipelines/*.py trainer/*.py))
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONHASHSEED := 0
# Where it is set, every process compiles our modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: repro test suite lint bench clean lock

repro: $(VENV)/.repro
	dvc repro report duplicates sheet evaluate_images export_images
	@cat reports/summary.txt
	@echo "images: reports/images/index.html, reports/vision_test/metrics.json"

# One process for tests a core, and the types beside them: most tests wait for processes of their own. With one more,
# all took longer: each compiles kernels.
test: $(VENV)/.test
	$(MAKE) --jobs 2 lint suite

suite: $(VENV)/.test
	python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.test
	ruff check .
	ruff format --check .
	mypy

bench: $(VENV)/.test
	for script in $$(grep -l __main__ benchmarks/*.py); do python $$script || exit 1; done

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Writes the lock from what is installed; run it after a change of pyproject.toml, in a fresh .venv without a lock.
lock: $(VENV)/.test
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//' > requirements.lock

# The pip that older Pythons bring takes four times as long to look at two hundred packages.
$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Gristmill needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25'
	touch $@

$(VENV)/.packages: $(VENV)/.python pyproject.toml requirements.lock
	$(INSTALL) "$$(grep '^torch==' requirements.lock)"
	$(INSTALL) --editable '.[sample]'
	touch $@

$(VENV)/.repro: $(VENV)/.packages
	$(COMPILE)
	touch $@

# What was installed before is compiled meanwhile, by another core.
$(VENV)/.test: $(VENV)/.packages
	$(COMPILE) & compiling=$$!; $(INSTALL) --editable '.[dev,dask,gcp,aws]' && wait $$compiling
	touch $@ $(VENV)/.repro
