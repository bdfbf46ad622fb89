# `make demo` and `make test` need Python 3.11 to 3.13, pip and make. Everything goes into .venv/.

VENV := .venv
BIN := $(VENV)/bin
FOUND = for each in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	  if $$each -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	  then found=$$each; break; fi; done; \
	if [ -z "$$found" ]; then \
	  echo 'dinmo-dbt needs Python 3.11, 3.12 or 3.13 with its venv module (Debian: apt install python3-venv).' >&2; \
	  echo 'None was found on the PATH; name one with: make PYTHON=/path/to/python3.11 ...' >&2; exit 1; fi
# Another file makes an environment of other versions: CI has one per column of its matrix (.ci/pins.py).
PINS := constraints.txt
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(PINS)

.DEFAULT_GOAL := help
SEEDS := 1000

.PHONY: help demo test test-all simulate fortnight planted mutants kill deep conformance-sf lint coverage changelog changelog-check \
  stand-ins stand-in-bigquery stand-in-databricks stand-in-redshift stand-in-snowflake stand-in-spark lock-stand-ins \
  docs picture bench lock clean

help:  ## This list.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F '|' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: $(VENV)/.run  ## A dbt project reaches a local Salesforce org, then only its changes, then nothing.
	@$(BIN)/dinmo-dbt demo

# `make test LINT=` leaves the checks out: of other versions of a library mypy expects other types.
LINT := lint

PYTEST = $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder  # long files first

test: $(LINT) $(VENV)/.dev  ## What to run before a commit, six minutes: lint, types, docs, the quick tests, 100 simulated histories.
	$(PYTEST) -m "not slow"
	cd tests && ../$(BIN)/python -m simulation --seeds 100

test-all: test  ## Everything CI runs: that, then the slow tests (whole commands, kills, every client), SEEDS=1000 histories.
	$(PYTEST) -m slow --ignore tests/conformance
	$(BIN)/python -m pytest tests/conformance  # one org sees the calls of all these clients
	cd tests && ../$(BIN)/python -m simulation --seeds $(SEEDS)

deep: $(VENV)/.dev  ## 100 million crafted pairs for the hashes; laws and mutated inputs on 20 times as many examples; mutants; an hour.
	cd tests && ../$(BIN)/python -m differential --pairs 100000000
	DEEP=20 $(BIN)/python -m pytest tests/emulator/test_rules_properties.py tests/emulator/test_records_properties.py \
	  tests/emulator/test_soql_properties.py tests/emulator/test_soql_answers.py \
	  tests/e2e/test_mutated_inputs.py tests/salesforce/test_untrusted_replies.py tests/salesforce/test_memory.py tests/test_wire.py \
	  tests/e2e/test_dbt_cloud_memory.py
	DINMO_CELLS_SHARE=1 $(BIN)/python -m pytest tests/state/test_cells.py
	cd tests && ../$(BIN)/python -m mutants

stand-ins: $(VENV)/.dev  ## Whole runs against servers that stand in for warehouses; each installs its environments the first time.
	cd tests && ../$(BIN)/python -m stand_ins.environments
	$(BIN)/python -m pytest tests/stand_ins

STAND_IN = cd tests && ../$(BIN)/python -m stand_ins.environments $(1) && ../$(BIN)/python -m pytest stand_ins/test_$(1).py

stand-in-bigquery: $(VENV)/.dev
	$(call STAND_IN,bigquery)

stand-in-snowflake: $(VENV)/.dev
	$(call STAND_IN,snowflake)

stand-in-redshift: $(VENV)/.dev
	$(call STAND_IN,redshift)

stand-in-databricks: $(VENV)/.dev
	$(call STAND_IN,databricks)

stand-in-spark: $(VENV)/.dev
	$(call STAND_IN,spark)

lock-stand-ins: $(VENV)/.dev  ## Renew the constraint files of the stand-ins, from the newest versions that fit.
	cd tests && ../$(BIN)/python -m stand_ins.environments --lock

conformance-sf: $(VENV)/.dev  ## The Salesforce CLI against the emulator; installs 500 MB from npm the first time.
	$(BIN)/python -m pytest tests/conformance/sf.py

simulate: $(VENV)/.dev  ## SEEDS=1000 histories of syncs, faults and deaths against the emulator, each one seed's; STATE=duckdb or postgres.
	cd tests && ../$(BIN)/python -m simulation --seeds $(SEEDS) $(if $(STATE),--state $(STATE))

fortnight: $(VENV)/.dev  ## SEED=0: 14 days of 50 schedules on a simulated clock, with failures, kills and a DST change.
	cd tests && ../$(BIN)/python -m fortnight --seed $(or $(SEED),0)

planted: $(VENV)/.dev  ## Faults of one line, planted in a copy of our code: the first of SEEDS=1000 seeds that finds each.
	cd tests && ../$(BIN)/python -m simulation.planting --seeds $(SEEDS)
	cd tests && ../$(BIN)/python -m fortnight.planting

mutants: $(VENV)/.dev  ## Guards, redaction, hashes and values changed in one place at a time: whether their tests notice; ten minutes.
	cd tests && ../$(BIN)/python -m mutants

kill: $(VENV)/.dev  ## A sync killed by SIGKILL before each of its system calls that change a file; needs strace, an hour.
	EVERY=$(or $(EVERY),1) $(BIN)/python -m pytest --timeout 0 tests/e2e/test_kill_sweep.py
	SERVE_KILLS=10 $(BIN)/python -m pytest tests/e2e/test_serving_killed.py
	ENDINGS=200 $(BIN)/python -m pytest --timeout 0 tests/warehouse/test_ending.py

lint: $(VENV)/.dev  ## Format, lint, spelling, types, import contracts, generated docs, workflows; changes nothing.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python docs/generate.py --check
	[ ! -x $(BIN)/actionlint ] || $(BIN)/actionlint .github/workflows/*.yml

coverage: $(VENV)/.dev  ## Which lines of ours TESTS=tests reach, in their processes too; a figure, and a page in build/coverage.
	rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/python -m coverage run -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(or $(TESTS),tests)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage html --quiet
	$(BIN)/python -m coverage report

changelog: $(VENV)/.dev  ## CHANGELOG.md's next section out of changes/, as it would be.
	$(BIN)/towncrier build --draft --version NEXT

changelog-check: $(VENV)/.dev  ## Whether this branch has a file in changes/ that BASE=origin/main lacks.
	$(BIN)/towncrier check --compare-with $(or $(BASE),origin/main)

docs: $(VENV)/.dev  ## Write the generated pages and JSON Schemas again.
	$(BIN)/python docs/generate.py

picture: $(VENV)/.dev  ## Run the demo and draw its terminal: docs/demo.svg.
	$(BIN)/python docs/picture.py

SIZE := 1m
bench: $(VENV)/.dev build/peers/.made  ## Change detection beside others' ways, SIZE=1m (10m, 50m), and the other measurements of benchmarks/.
	$(BIN)/python benchmarks/change_sets.py --rows $(SIZE:m=000000) --write
	$(BIN)/python benchmarks/plan_ratio.py --rows $(SIZE:m=000000)
	$(BIN)/python benchmarks/help_time.py
	$(BIN)/python benchmarks/sync_million.py

build/peers/.made: benchmarks/peers.txt
	rm -rf build/peers
	$(BIN)/python -m venv build/peers
	build/peers/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt
	touch $@

# dbt-core 1.12 needs a package whose build downloads a binary from outside the package registry; 1.11 does not.
lock:  ## Renew constraints.txt from a new environment.
	@$(FOUND); folder=$$(mktemp -d) && $$found -m venv $$folder && \
	$$folder/bin/pip install --quiet --disable-pip-version-check 'dbt-core<1.12' -e '.[dev]' && \
	{ echo '# What `make demo` and `make test` install, on Python 3.11 to 3.13. Renew it with `make lock`.'; \
	  $$folder/bin/pip freeze --all --exclude-editable --exclude pip; } > constraints.txt; rm -rf $$folder

clean:  ## Remove the environment and everything that tools left.
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/.run: pyproject.toml $(PINS)
	@$(FOUND); $(BIN)/python -c '' 2>/dev/null || $$found -m venv --clear $(VENV)
	@echo 'Installing into $(VENV)/, about a minute the first time ...'
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo 'Installing the development tools ...'
	@$(INSTALL) -e '.[dev]'
	@touch $@
