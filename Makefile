# The environment is made once, in .venv, and again when its recipe changes. Python 3.13
# and later have one of their own beside it, with the newest jax there is.
PYTHON ?= python3
PYTEST_ARGS ?=
NEWEST := $(shell $(PYTHON) -c 'import sys; print("-newest" * (sys.version_info >= (3, 13)))' 2>&1)
VENV := .venv$(filter -newest,$(NEWEST))
LOCK := requirements$(filter -newest,$(NEWEST)).lock
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo demo-clip test test-parity test-hosts test-faults test-browser test-docs \
  test-fuzz test-long docs notebooks lint format lock clean help

help:
	@echo "make demo         CLIP and DALL-E on drawn shapes, small: train, draw, re-rank, report"
	@echo "make demo-clip    the first part alone: CLIP, which classifies unseen images"
	@echo "make test         all tests (PYTEST_ARGS='-k text' for some)"
	@echo "make test-long    what costs much and rarely breaks alone: every family resumed, ..."
	@echo "make lint         ruff: format and rules; make format applies both"
	@echo "make test-parity  tests against the originals, which it installs (torch is large)"
	@echo "make test-hosts   runs of several processes: every topology, moves between them"
	@echo "make test-docs    every command of README, docs/ and --help, small, in order"
	@echo "make docs         the docs site, into site/: links checked, API pages from docstrings"
	@echo "make notebooks    after make demo: the notebooks again, stored with what they show"
	@echo "make test-browser  the report page in headless Chromium, which it installs by apt"
	@echo "make test-faults  runs killed, stopped and starved in many ways, and resumed"
	@echo "make test-fuzz    5,000 damaged and hostile inputs, by area: none may be taken wrongly"
	@echo "make lock         $(LOCK) again (LOCK_ARGS=--upgrade: newest)"
	@echo "make ... PYTHON=python3.12   with another interpreter, 3.11 or later; from 3.13"
	@echo "                             on in .venv-newest, with the newest jax"

demo: $(READY)
	$(BIN)/mmjax demo

demo-clip: $(READY)
	$(BIN)/mmjax demo --until clip

test: $(READY)
	$(BIN)/python -m pytest -n 2 -q $(PYTEST_ARGS)

test-long: $(READY)
	$(BIN)/python -m pytest -n 2 -q -m long $(PYTEST_ARGS)

test-parity: $(READY)
	$(BIN)/python -m pip install -q -e '.[parity]'
	$(BIN)/python -m pip install -q --no-deps DALL-E taming-transformers-rom1504
	$(BIN)/python -m pytest -q -m parity $(PYTEST_ARGS)

test-hosts: $(READY)
	$(BIN)/python -m pytest -q -s -m hosts $(PYTEST_ARGS)

# Without apt-get, or the right to use it, a person has to choose where it comes from.
test-browser: $(READY)
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
	  command -v $$name >/dev/null && exit 0; done; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -q && apt-get install -y -q --no-install-recommends chromium; \
	else \
	  echo "make test-browser needs Chromium or Chrome on PATH. Debian: sudo apt-get" \
	    "install chromium; Fedora: sudo dnf install chromium; macOS: brew install" \
	    "--cask chromium" >&2; exit 1; \
	fi
	$(BIN)/python -m pytest -q -m browser tests/browser $(PYTEST_ARGS)

# MMJAX_FAULTS_JSON=FILE.json writes the count, MMJAX_FAULTS_SEED=N draws other moments.
test-faults: $(READY)
	$(BIN)/python -m pytest -q -m faults tests/faults $(PYTEST_ARGS)

# What needs data, weights or packages from elsewhere is listed with its reason.
test-docs: $(READY)
	$(BIN)/python -m pytest -q -s -m docs tests/docs_run_test.py $(PYTEST_ARGS)

# Packages of the site alone: neither the tests nor the lock need them.
docs: $(READY)
	$(BIN)/python -m pip install -q -e '.[docs]'
	$(BIN)/mkdocs build --strict --quiet

# MMJAX_FUZZ_JSON=FILE.json writes the table, MMJAX_FUZZ_SEED=N draws other inputs,
# MMJAX_FUZZ_COUNT=N as many.
test-fuzz: $(READY)
	$(BIN)/python -m pytest -q -m fuzz tests/fuzz --timeout 3600 $(PYTEST_ARGS)

# After `make demo`: every notebook again, stored with what it shows.
notebooks: $(READY)
	$(BIN)/python tests/support/notebooks.py

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Of the oldest Python we support, 3.11, whose lock installs on all later ones; and with
# PYTHON=python3.13 of the newest jax.
lock: $(READY)
	CUSTOM_COMPILE_COMMAND="make lock PYTHON=$(notdir $(PYTHON))" \
	$(BIN)/pip-compile -q --strip-extras --annotation-style=line \
	  --extra dev --extra notebook --no-emit-index-url --no-emit-find-links \
	  --no-emit-trusted-host --no-emit-options $(LOCK_ARGS) \
	  -o $(LOCK) setup.py

$(READY): $(LOCK) setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	  "mmjax needs Python 3.11 or later, $(PYTHON) is %d.%d: make PYTHON=python3.11" \
	  % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -r $(LOCK)
	$(BIN)/python -m pip install -q --no-deps -e .
	@touch $@

clean:
	rm -rf .venv .venv-newest build dist site *.egg-info
