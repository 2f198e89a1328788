# Works with GNU make 3.81 (macOS) and later. Recipes name relative paths only, so the folder's own path may hold spaces.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup system up demo test lint lint-style lint-format lint-types lint-floors lint-lock bench lock clean

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest --quiet --ignore=tests/benchmarks --cov
PIP := $(PYTHON) -m pip --disable-pip-version-check --quiet --quiet
STAMP := .venv/.landrecords-setup

# The stamp names the folder it was made in. A .venv that was copied or moved would start the other folder's code, and
# one whose Python was upgraded under it starts nothing: both are made anew. `import pip` finds the second case.
STALE := $(shell if [ -e $(STAMP) ] && [ "$$(cat $(STAMP))" != "$$PWD" ]; then echo moved; \
	elif [ -d .venv ] && ! $(PYTHON) -c 'import pip' 2>/dev/null; then echo broken; fi)
ifneq ($(STALE),)
.PHONY: $(STAMP)
endif

help: ## this list
	@echo "make demo     sets everything up and runs the documents job on a sample portal: start here"
	@echo "make up       the Prefect server, the sample servers and their deployments, until Ctrl-C"
	@echo "make setup    .venv from the hashed lock, and the system packages (SYSTEM=skip: without those)"
	@echo "make test     the tests, with coverage (ARGS='-k pacing': some of them; KILLS=most: more kills)"
	@echo "make lint     ruff, mypy, the floors of ARCHITECTURE.md, the lock against pyproject.toml"
	@echo "make bench    the benchmarks, one after another (ONLY=pacing: some of them)"
	@echo "make lock     requirements.txt anew after a change of pyproject.toml (UPGRADE=1: newest versions)"
	@echo "make clean    removes .venv and every cache; keeps .landrecords, which holds your data"

setup: system $(STAMP)

system:
	@$(if $(filter skip,$(SYSTEM)),:,sh infra/bootstrap.sh)

# Everything comes from the lock, setuptools too, so the editable install asks no registry for anything. --no-deps: the
# lock is complete (`make lint-lock` holds it to that), and pip need not resolve it again, a fifth of its time.
$(STAMP): pyproject.toml requirements.txt
	@[ -z "$(STALE)" ] || { echo "setup: the old .venv is $(STALE), making a new one"; rm -rf .venv; }
	@[ -x $(PYTHON) ] || { python=$$(sh infra/bootstrap.sh --find-python) && "$$python" -m venv .venv; }
	@echo "setup: installing $$(grep -c '^[a-z].*==' requirements.txt) locked packages, about a minute"
	@$(PIP) install --require-hashes --no-deps --requirement requirements.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@printf '%s\n' "$$PWD" >$@

up: setup
	@.venv/bin/landrecords up $(ARGS)

demo: setup
	@.venv/bin/landrecords demo $(ARGS)

# Three at a time on two cores, since most tests wait for something, the long ones of faults first; then those that judge
# timing, with nobody beside them; both always, so that one run tells every failure. Code 5: ARGS selected none of these.
test: setup
	@$(if $(filter skip,$(SYSTEM)),:,sh infra/bootstrap.sh --tests)
	@failed=0; \
	$(PYTEST) -n 3 --dist loadfile --no-loadscope-reorder -m "not alone" --cov-report= $(ARGS) || [ $$? -eq 5 ] || failed=1; \
	$(PYTEST) -m alone --cov-append --cov-report=term $(ARGS) || [ $$? -eq 5 ] || failed=1; \
	exit $$failed

# .pre-commit-config.yaml runs these five by name.
lint: lint-style lint-format lint-types lint-floors lint-lock

lint-style: setup
	$(PYTHON) -m ruff check

lint-format: setup
	$(PYTHON) -m ruff format --check

lint-types: setup
	$(PYTHON) -m mypy

lint-floors: setup
	.venv/bin/lint-imports

lint-lock: setup
	$(PYTHON) infra/lock.py check
	$(PYTHON) -m pip --disable-pip-version-check check

# All of them run even when one fails; the failed ones are named at the end.
bench: setup
	@failed=; for file in tests/benchmarks/bench_$(ONLY)*.py; do \
		[ -e "$$file" ] || { echo "No benchmark is named $$file"; exit 2; }; \
		echo "== $$file"; PYTHONPATH=. $(PYTHON) "$$file" || failed="$$failed $$file"; \
	done; \
	[ -z "$$failed" ] || { echo "Failed:$$failed"; exit 1; }

# Kept pins stay as they are unless UPGRADE=1. uv itself is a tool, not part of the lock.
lock: setup
	@[ -x .venv/bin/uv ] || $(PIP) install uv
	@$(PYTHON) infra/lock.py inputs | .venv/bin/uv --quiet pip compile --universal --python-version 3.11 --extra dev \
		--generate-hashes --no-emit-index-url --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) \
		pyproject.toml - --output-file requirements.txt
	@$(PYTHON) infra/lock.py check

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .grimp_cache .hypothesis
	rm -f .coverage .coverage.*
	find flows tasks tests infra -name __pycache__ -type d -prune -exec rm -rf {} +
