# Every target works on a fresh machine: it makes .venv and installs what it needs. Another Python has an environment of
# its own: `make test VENV=.venv-newest PYTHON=python3.13`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install demo test test-slow lint types docs check clean

help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## +/\t/' | expand -t 14

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# One stamp an extra: installed again when pyproject.toml changes.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

install: $(VENV)/.installed-dev                ## .venv with everything a developer needs

demo: $(VENV)/.installed-experiments           ## train LeNet-5 on 5,000 real digits, show and save the results
	$(BIN)/python -m experiments

test: $(VENV)/.installed-test                  ## run the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(VENV)/.installed-test             ## run the tests that take long
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "slow and not exact"
	$(BIN)/python -m pytest -n 2 --dist worksteal -m exact

lint: $(VENV)/.installed-dev                   ## check format and lint rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev                  ## check types of package, experiments and tests, and that no public one is missing
	$(BIN)/pyright --threads 2
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright --verifytypes jaxnets --ignoreexternal >$(VENV)/verifytypes.txt || true
	grep "Type completeness score" $(VENV)/verifytypes.txt
	@# scikit-learn has no types, and so has nothing that inherits from its classes.
	awk '/^jaxnets/ {name = $$1} / error: / && name !~ /^jaxnets\.sklearn/ {print name, $$0; found = 1} END {exit found}' \
	  $(VENV)/verifytypes.txt

docs: $(VENV)/.installed-dev                   ## build the site, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: lint types test docs                    ## all of the above

clean:           ## remove what was built
	rm -rf $(VENV) .venv-newest build dist site .pytest_cache .ruff_cache .hypothesis
