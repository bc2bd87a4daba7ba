# `make help` explains the targets.

LAB ?= lab
NODES ?= ctl,login01,cn01,cn02
# The elapsed seconds that `make lab` shows are counted from here.
LAB_STARTED := $(shell date +%s)
export LAB NODES LAB_STARTED

# Three files of tests at a time, each with a lab of its own, in the order of their names: a lab waits
# more than it works, and two left a sixth of two processors idle.
SIDE_BY_SIDE := --numprocesses 3 --dist loadfile --no-loadscope-reorder

# Folders without a module are nothing to mypy; mutants/ is a copy (`make mutate`).
PYTHON_DIRS := __main__.py docs/examples/training $(filter-out mutants,$(patsubst %/,%,$(sort $(dir $(wildcard */*.py)))))

.DEFAULT_GOAL := help
# Two targets at once would share .venv while it is made.
.NOTPARALLEL:

.PHONY: help
help: ## Explain the targets
	@echo "Targets (LAB=name takes another lab than 'lab', NODES=6 or NODES=ctl,login01,cn01,… other machines):"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' \
	  | while IFS="$$(printf '\t')" read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done

.PHONY: lab
lab: venv ## Boot four machines, deploy Slurm on them, run a job, show sinfo (root)
	@.venv/bin/python -m lab up

.PHONY: lab-down
lab-down: venv ## End the lab's machines and remove all it made but the image cache (root)
	@.venv/bin/python -m lab down

.PHONY: env
env: venv ## Print shell exports for the lab's stack: eval "$(make -s env)"
	@.venv/bin/python -m lab env

.PHONY: venv
venv: ## Make .venv from requirements.lock; quick when it is made
	@sh lab/venv.sh

.PHONY: test
test: venv ## Run the tests; those on real nodes use labs of their own (root)
	@.venv/bin/python -m pytest tests $(SIDE_BY_SIDE)

.PHONY: test-unit
test-unit: venv ## Run the tests that need no root, nodes or engine, and no minutes: on all processors
	@.venv/bin/python -m pytest tests/unit -m 'not slow' --numprocesses auto --dist worksteal

.PHONY: test-slow
test-slow: venv ## Run the unit tests that take minutes
	@.venv/bin/python -m pytest tests/unit -m slow

.PHONY: test-engine
test-engine: venv ## Run the embedded engine's tests
	@.venv/bin/python -m pytest tests/engine

.PHONY: test-lab
test-lab: venv ## Run the tests on real nodes, in labs of their own (root)
	@.venv/bin/python -m pytest tests/lab $(SIDE_BY_SIDE)

.PHONY: mutate
mutate: venv ## Break the code in every way there is and list what no unit test notices (hours; MUTANTS='settings.jwt*')
	@.venv/bin/python -m pip --quiet install --target build/mutmut --upgrade mutmut
	@PYTHONPATH=$(CURDIR)/build/mutmut .venv/bin/python -m mutmut run $(if $(MUTANTS),'$(MUTANTS)')
	@PYTHONPATH=$(CURDIR)/build/mutmut .venv/bin/python -m mutmut results

.PHONY: lint
lint: venv ## Check style, types and shell scripts
	@.venv/bin/ruff check $(PYTHON_DIRS)
	@.venv/bin/ruff format --check $(PYTHON_DIRS)
	@.venv/bin/mypy $(PYTHON_DIRS)
	@git ls-files '*.sh' '*.sbatch' .ci/run | xargs .venv/bin/shellcheck

.PHONY: format
format: venv ## Format the code and apply the linter's safe fixes
	@.venv/bin/ruff check --fix $(PYTHON_DIRS)
	@.venv/bin/ruff format $(PYTHON_DIRS)

.PHONY: lock
lock: venv ## Make requirements.lock anew from pyproject.toml (UPGRADE=1 takes newer versions)
	@.venv/bin/python -m venv build/uv && build/uv/bin/pip --quiet install uv
	@build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --extra dev \
	  --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	  $(if $(UPGRADE),--upgrade) --output-file requirements.lock pyproject.toml

.PHONY: bench
bench: venv ## Measure deployment, preview and change times; print a table (root)
	@.venv/bin/python -m bench

.PHONY: clean
clean: ## Remove .venv and what tools left in the checkout (labs: lab-down first)
	@if [ -d .lab ]; then echo "clean: labs are left: $$(ls .lab | xargs); make lab-down LAB=name first" >&2; exit 1; fi
	@rm -rf .venv .slurmstack build mutants *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
