# `make demo` and `make test` need Python 3.10 or newer, and make; all else goes into .venv.
#
#   PYTHON=python3.12       the Python that .venv is made with
#   PYTEST_ARGS="-k sum"    what pytest is told
#   WORKERS=0               how many tests run at a time; 0: they run in pytest's own process

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
WORKERS ?= logical
SOAK_ARGS ?=
OLDEST_PYTHON ?= $(shell for p in python3.10 python3.11 python3.12 $(PYTHON); do \
	$$p -c '' 2>/dev/null && echo $$p && break; done)

IN_VENV := $(VENV)/bin/python
INSTALL := $(IN_VENV) -m pip install --quiet --disable-pip-version-check
# Tests of a file share servers, and kernels that fork others.
PARALLEL := --numprocesses=$(WORKERS) --dist=loadfile
# pytest ends like this where there is no test to run; PYTEST_ARGS may leave none of one kind.
OR_NONE := || test $$? = 5
# What an installed environment depends on; the package itself is installed editable.
SOURCES := pyproject.toml jupyter_nbexec/_version.py $(wildcard jupyter-config/*/*.json)

# Without compiled files every start of a server or kernel would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-sources test-ui lint test-oldest soak bench dist clean

help:  ## Show this
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/.installed-demo  ## Run examples/iris.ipynb by HTTP, on a server of its own
	$(IN_VENV) scripts/demo.py

test: $(VENV)/.installed-test lint  ## Check everything; PYTEST_ARGS="…" for less
	$(IN_VENV) -m pytest $(PARALLEL) -m "not alone and not browser and not campaign" $(PYTEST_ARGS) $(OR_NONE)
	$(IN_VENV) -m pytest $(PARALLEL) -m browser $(PYTEST_ARGS) $(OR_NONE)
	$(IN_VENV) -m pytest $(PARALLEL) --dist=worksteal -m campaign $(PYTEST_ARGS) $(OR_NONE)
	$(IN_VENV) -m pytest -m alone $(PYTEST_ARGS) $(OR_NONE)

lint: $(VENV)/.installed-test  ## Check style and types
	$(IN_VENV) -m ruff check .
	$(IN_VENV) -m ruff format --check .
	$(IN_VENV) -m mypy

test-sources: $(VENV)/.installed-test  ## Run notebooks and bad requests on every source of kernels
	NBEXEC_SOURCES=all $(IN_VENV) -m pytest -m "sources or long" $(PYTEST_ARGS)

test-ui: $(VENV)/.installed-test  ## Try the front end in a browser, and check its code
	$(IN_VENV) -m pytest $(PARALLEL) tests/ui $(PYTEST_ARGS)

test-oldest: $(VENV)/.installed-test  ## Run the tests on the oldest versions that pyproject.toml allows
	$(OLDEST_PYTHON) -m venv $(VENV)-oldest
	$(IN_VENV) scripts/oldest.py > $(VENV)-oldest/constraints.txt
	$(VENV)-oldest/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(VENV)-oldest/constraints.txt --editable '.[test,demo]'
	$(VENV)-oldest/bin/python scripts/install_test_tools.py
	@# Old releases warn of what newer ones have solved.
	$(VENV)-oldest/bin/python -m pytest -W default $(PYTEST_ARGS)

soak: $(VENV)/.installed-test  ## Run hundreds of notebooks, kill servers, and look for what is lost or left behind
	for script in soak crashes cancelling following isolation endpoints_crashes fuzzing messages; do \
		$(IN_VENV) benchmarks/$$script.py $(SOAK_ARGS) || exit; done

bench: $(VENV)/.installed-test  ## Measure overhead and latency, beside peers
	for script in overhead status_latency history history_http asynchronous sources endpoints loop_lag; do \
		$(IN_VENV) benchmarks/$$script.py || exit; done

dist: $(VENV)/.installed-test  ## Build the sdist and the wheel
	rm -rf dist
	$(IN_VENV) -m build

clean:  ## Remove what all of these have made
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-peer build dist ui/lib ui/node_modules jupyter_nbexec/labextension .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(IN_VENV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed: make PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed-demo: $(IN_VENV) $(SOURCES)
	$(INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.installed-test: $(IN_VENV) $(SOURCES) scripts/install_test_tools.py scripts/build_backend.py
	$(INSTALL) --editable '.[test,demo]'
	$(IN_VENV) scripts/install_test_tools.py
	$(IN_VENV) scripts/build_backend.py
	@touch $@ $(VENV)/.installed-demo
