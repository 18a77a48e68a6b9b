# make        shows the targets
# Needs make and python3 (3.11 or later), nothing else. uv is taken from PATH, else a pinned one is installed in .uv/;
# everything else goes into .venv/ and the XDG cache directory. Works as any user and writes nowhere else.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

UV_VERSION := 0.13.8
ACTIONLINT_VERSION := v1.7.12
UV_ON_PATH := $(shell command -v uv 2>/dev/null)
UV := $(or $(UV_ON_PATH),$(CURDIR)/.uv/bin/uv)
PYTHON := .venv/bin/python
STAMP := .venv/.synced
GENERATED := crds docs/reference helm/muster/files kind-scheduler.yaml

# uv uses the installed python3 and fetches none; .venv/ is here, in whatever environment make is called.
export UV_PYTHON_DOWNLOADS := never
export UV_PYTHON := $(shell command -v python3 2>/dev/null)
export UV_PROJECT_ENVIRONMENT := .venv
unexport VIRTUAL_ENV
unexport PYTHONPATH
unexport PYTHONHOME
# The same uv installs the Go toolchain of the local cluster if PATH has none.
export UV

.PHONY: help demo test kind kind-down kind-test images check workflows generate figures attacks bench-gangs bench-start bench-backlog bench-memory bench-oracle bench-random bench-planner bench-simulator bench-yardstick binaries setup clean python

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## show muster on a real control plane on this machine (the first run builds it: 6 to 10 minutes more)
	@.venv/bin/muster demo

test: $(STAMP) binaries ## run every test, on the real control plane and on kind too
	@$(PYTHON) -m pytest

kind: $(STAMP) ## install muster by helm in a kind cluster on this machine, with an example (needs Docker, or root on Debian)
	@.venv/bin/muster kind up

kind-down: $(STAMP) ## remove that cluster and everything that it made
	@.venv/bin/muster kind down

kind-test: $(STAMP) ## run the tests on kind alone: real kubelets, and no traces on this machine afterwards
	@$(PYTHON) -m pytest -m kind tests/kind

images: $(STAMP) ## build muster's images from the Dockerfile, else assemble them from Debian packages and wheels
	@.venv/bin/muster kind images

check: $(STAMP) ## check format, lint, types, import contracts and generated files
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	@$(MAKE) --no-print-directory generate
	@git diff --exit-code -- $(GENERATED) || { echo "Generated files were out of date; they are right now: commit them." >&2; exit 1; }
	@new=$$(git ls-files --others --exclude-standard -- $(GENERATED)); [ -z "$$new" ] || { echo "Generated, but not in git: $$new" >&2; exit 1; }

workflows: ## lint .github/workflows by actionlint, built from its Go module (needs go)
	@go run github.com/rhysd/actionlint/cmd/actionlint@$(ACTIONLINT_VERSION)

generate: $(STAMP) ## write crds/, docs/reference/, the chart's copies and kind-scheduler.yaml from the code
	$(PYTHON) -m muster.api.crd crds
	$(PYTHON) -m muster.api.reference docs/reference
	$(PYTHON) -m muster.api.gate_policy helm/muster/files/admission-policy.yaml
	$(PYTHON) -m muster.api.write_policies helm/muster/files/pod-policies.yaml helm/muster/files/node-policy.yaml
	$(PYTHON) -m muster_dev.local.chart helm/muster/files/scheduler-config.yaml
	$(PYTHON) -m muster_dev.kind.default_scheduler kind-scheduler.yaml

figures: $(STAMP) ## compare figures of papers with ours: build/figures.json and docs/figures
	@$(PYTHON) -m benchmarks.figures

bench-gangs: $(STAMP) ## gangs per second, compared with kube-scheduler's own gang scheduling and a bare client
	@$(PYTHON) benchmarks/gangs.py

bench-start: $(STAMP) ## seconds from apply to Running on real kubelets, compared with a plain Job; CPU and memory when idle (kind)
	@$(PYTHON) -m benchmarks.start

bench-backlog: $(STAMP) ## how long freed GPUs stay idle behind 10,000 queued gangs, compared with 10
	@$(PYTHON) benchmarks/backlog.py

bench-memory: $(STAMP) ## memory of operator and extender with 2,000 suspended jobs of 64 KiB, compared with 2 KiB
	@$(PYTHON) -m benchmarks.memory

bench-oracle: $(STAMP) ## kube-scheduler as the oracle: 500 random gangs, what muster admits and what kube-scheduler binds
	@$(PYTHON) -m benchmarks.oracle

bench-random: $(STAMP) ## a million steps of random events that check the invariants of the policies
	@$(PYTHON) -m benchmarks.random_events

bench-yardstick: $(STAMP) ## placements compared with the optimum of CP-SAT: how many are worse, by how much, how much faster
	@$(PYTHON) -m benchmarks.yardstick

bench-planner: $(STAMP) ## milliseconds of a planning pass over 5,000 nodes, and of an introspective one over 5,000 jobs
	@$(PYTHON) benchmarks/planner.py

bench-simulator: $(STAMP) ## seconds, memory and cost per event of Philly's 82,247 jobs
	@$(PYTHON) benchmarks/simulator.py

attacks: $(STAMP) ## stop, continue and kill the leader ten times while 300 placements are written
	@MUSTER_ATTACKS=10 $(PYTHON) -m pytest tests/attacks/test_leader.py

binaries: $(STAMP) ## build the missing programs of the control plane
	@$(PYTHON) -m muster_dev.local.prepare

setup: $(STAMP) ## only set up .venv/

clean: ## remove everything that was made here (the cache of built programs stays)
	rm -rf .venv .uv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml dev/pyproject.toml uv.lock | $(if $(UV_ON_PATH),,.uv/bin/uv) python
	"$(UV)" sync --frozen --all-extras --quiet
	@ln -sf "$(UV)" .venv/bin/uv
	@touch $@

.uv/bin/uv: | python
	@echo "No uv on PATH: installing uv $(UV_VERSION) into .uv/"
	@python3 -m venv --clear .uv || { rm -rf .uv; echo "python3 cannot make a virtual environment (see above). Install it: apt-get install python3-venv (Debian, Ubuntu); on Fedora dnf install python3 python3-pip has it." >&2; exit 1; }
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

python:
	@command -v python3 >/dev/null || { echo "python3 is missing. Install it: apt-get install python3 python3-venv (Debian, Ubuntu), dnf install python3 (Fedora)." >&2; exit 1; }
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$$(python3 --version) is too old; muster needs 3.11 or later. Install it: apt-get install python3 python3-venv (Debian 12, Ubuntu 24.04 or later), dnf install python3 (Fedora)." >&2; exit 1; }
