# make run    set up .venv and run the whole job on the bundled digits
# make test   set up .venv and run the tests
# make lint   style, formatting, types and layers of imports
# make clean  remove .venv and what tools left behind (runs/ stays)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test lint clean

run: $(VENV)/.run-installed
	@$(BIN)/tutelage run digits

test: $(VENV)/.dev-installed
	@$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --durations=15

lint: $(VENV)/.dev-installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

clean:
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are made last, so a step that was cut off is done again.
$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || \
	    { echo "tutelage needs Python 3.11 or newer, but there is no '$(PYTHON)': install it, or name yours with 'make PYTHON=...'" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "tutelage needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) -V 2>&1): name another with 'make PYTHON=...'" >&2; exit 1; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run-installed: $(VENV)/.created requirements.txt pyproject.toml
	@echo "installing (a few minutes the first time)"
	@$(PIP) -r requirements.txt
	@$(PIP) --no-deps -e .
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.run-installed requirements-dev.txt
	@echo "installing the tools for the tests"
	@$(PIP) -r requirements-dev.txt
	@touch $@
