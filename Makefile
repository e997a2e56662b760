# Each target makes the environment it needs; PYTHON=python3.12 chooses the interpreter that makes it.
PYTHON ?= python3
BIN := .venv/bin
# The stamp is newer than what it was made from, so a changed pyproject.toml or constraints.txt installs again.
ENVIRONMENT := .venv/installed

.PHONY: help quickstart test lint types docs dist dev

help:
	@echo "make quickstart   the whole story on a small generated world, in minutes on two cores"
	@echo "make test         run the tests"
	@echo "make lint         ruff, and mypy over an installed copy"
	@echo "make docs         the pages of docs/ as a site, in site/"
	@echo "make dist         wheel and source distribution, checked, in dist/"
	@echo "make dev          environment and pre-commit hooks, for work on the code"

quickstart: $(ENVIRONMENT)
	$(BIN)/dareu quickstart

test: $(ENVIRONMENT)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(ENVIRONMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory types

# The four folders are one package only once installed, so that is what mypy reads; its findings are
# printed with the paths of the sources.
types: $(ENVIRONMENT)
	@rm -rf build
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --target build/typed .
	@MYPYPATH=build/typed $(BIN)/mypy -p dareu > build/findings; status=$$?; \
	sed -E -e 's#^build/typed/dareu/(classifiers|recipes|rewards)/#\1/#' -e 's#^build/typed/##' build/findings; \
	rm -rf build; exit $$status

# The reference is read from an installed copy, too. No page may be left out of the site, and no link lead nowhere.
docs: $(ENVIRONMENT)
	@rm -rf build
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --target build/typed .
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet; status=$$?; rm -rf build; exit $$status
	@echo "Open site/index.html, or to search in it: python3 -m http.server --directory site"

dist: $(ENVIRONMENT)
	@rm -rf build dist; mkdir build
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt build twine
	@$(BIN)/python -m build --no-isolation > build/log || (cat build/log; exit 1)
	$(BIN)/twine check --strict dist/*

dev: $(ENVIRONMENT)
	$(BIN)/pre-commit install

$(ENVIRONMENT): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("dareu needs Python 3.11 or later, and this is " + sys.version.split()[0] + \
	"; name another one with make PYTHON=/path/to/python3." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]' setuptools
	@touch $@
