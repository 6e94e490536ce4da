# edgeops: the menu. Everything sets itself up in .venv; nothing outside this folder is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test attacks crash crash-live check bench deb clean
help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "edgeops needs Python 3.11 to 3.13; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(STAMP)

install: $(STAMP) ## build .venv from the lock

demo: $(STAMP) ## fly the whole mission once, for real
	$(BIN)/edgeops demo $(ARGS)

test: $(STAMP) check ## everything
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal $(ARGS)

attacks: $(STAMP) ## every attack by name with the reason it meets, and one line that counts them
	$(BIN)/python -m tests.attacks $(ARGS)

crash: $(STAMP) ## power cuts, disks, kills and networks by the thousand, and one line that counts them
	$(BIN)/python -m tests.crash $(ARGS)

crash-live: $(STAMP) ## real broker and processes killed, hot swaps under load, hostile models
	$(BIN)/python -m tests.live $(ARGS)
	$(BIN)/python -m tests.agent_inference.hostile

check: $(STAMP) ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/mypy
	@test ! -f .importlinter || $(BIN)/lint-imports

bench: $(STAMP) ## benchmarks, as ratios
	$(BIN)/python benchmarks/inference.py
	$(BIN)/python benchmarks/metadata.py

deb: $(STAMP) ## the agent as a Debian package for this machine, in dist/
	$(BIN)/python deploy/deb/build.py $(ARGS)

clean: ## remove .venv and caches
	rm -rf $(VENV) .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis
