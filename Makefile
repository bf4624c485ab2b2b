# One line a target: `make help`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
STACK ?= local
CLUSTER_TESTS ?= tests/cluster
# cluster, crds, keda, adapter; empty: all.
CLUSTER_TOOLS ?=
VENV := .venv
SUPERSET_VENV := .venv-superset
STOCK_VENV := .venv-stock
SCAN_VENV := .venv-scan
FLOWER_VENV := .venv-flower
RUN := $(VENV)/bin/superset-async
UV := $(VENV)/bin/uv pip install --quiet --require-hashes

SHELL_SCRIPTS := $(wildcard components/scripts/*.sh runtime/*.sh runtime/start/*.sh bench/*.sh) .ci/run

# Without the compiled files that Python would write, every command takes twice as long.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install ldap editor sdk up down status logs clean render rules preflight preview destroy recover policy check test test-all test-cluster chaos bench bench-quick bench-tuning lint types format docs schema lock image

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/bin/uv: requirements/bootstrap.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "· installing the project's environment ($(VENV))"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --require-hashes -r requirements/bootstrap.txt
	@touch $@

$(VENV)/.program: $(VENV)/bin/uv requirements/program.txt requirements/local.txt pyproject.toml
	@$(UV) --python $(VENV)/bin/python -r requirements/program.txt -r requirements/local.txt
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.program requirements/dev.txt
	@$(UV) --python $(VENV)/bin/python -r requirements/dev.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.dev requirements/bench.txt
	@$(UV) --python $(VENV)/bin/python -r requirements/bench.txt
	@touch $@

$(SUPERSET_VENV)/.installed: $(VENV)/bin/uv requirements/superset.txt
	@echo "· installing Superset's environment ($(SUPERSET_VENV), 650 MB)"
	@$(VENV)/bin/uv venv --quiet --allow-existing --python $(VENV)/bin/python $(SUPERSET_VENV)
	@$(UV) --python $(SUPERSET_VENV)/bin/python -r requirements/superset.txt
	@touch $@

$(STOCK_VENV)/.installed: $(VENV)/bin/uv requirements/superset.txt requirements/stock.txt
	@echo "· installing Superset's environment with what its documentation adds ($(STOCK_VENV))"
	@$(VENV)/bin/uv venv --quiet --allow-existing --python $(VENV)/bin/python $(STOCK_VENV)
	@$(UV) --python $(STOCK_VENV)/bin/python -r requirements/superset.txt -r requirements/stock.txt
	@touch $@

$(SCAN_VENV)/.installed: $(VENV)/bin/uv requirements/scan.txt
	@echo "· installing the scanners of what is planned on AWS ($(SCAN_VENV))"
	@$(VENV)/bin/uv venv --quiet --allow-existing --python $(VENV)/bin/python $(SCAN_VENV)
	@$(UV) --python $(SCAN_VENV)/bin/python -r requirements/scan.txt
	@touch $@

# For the test that it works with the Redis user that it is given.
$(FLOWER_VENV)/.installed: $(VENV)/bin/uv requirements/flower.txt
	@$(VENV)/bin/uv venv --quiet --allow-existing --python $(VENV)/bin/python $(FLOWER_VENV)
	@$(UV) --python $(FLOWER_VENV)/bin/python -r requirements/flower.txt
	@touch $@

# It is no wheel: a compiler and OpenLDAP's headers (Debian: gcc libc6-dev libldap2-dev libsasl2-dev) build it.
$(SUPERSET_VENV)/.ldap: $(SUPERSET_VENV)/.installed requirements/ldap.txt
	@$(UV) --python $(SUPERSET_VENV)/bin/python -r requirements/ldap.txt
	@touch $@

# For the tests on a real MariaDB alone.
$(SUPERSET_VENV)/.mysql: $(SUPERSET_VENV)/.installed requirements/mysql.txt
	@$(UV) --python $(SUPERSET_VENV)/bin/python -r requirements/mysql.txt
	@touch $@

# Types for pyright alone: the image and the platform need none.
$(SUPERSET_VENV)/.types: $(SUPERSET_VENV)/.installed requirements/superset-types.txt
	@$(UV) --python $(SUPERSET_VENV)/bin/python -r requirements/superset-types.txt
	@touch $@

install: $(VENV)/.program ## what the Pulumi program needs (no Superset)

ldap: $(SUPERSET_VENV)/.ldap ## what log-in with a directory needs on this machine: python-ldap, which is compiled

editor: tools/editor/node_modules/.package-lock.json ## yaml-language-server, for the test of what editors show (npm)

tools/editor/node_modules/.package-lock.json: tools/editor/package-lock.json
	@npm ci --prefix tools/editor --ignore-scripts --no-audit --no-fund --silent

sdk: tools/embedding/node_modules/.package-lock.json ## Superset's embedding SDK, for the test of dashboards in other sites (npm)

tools/embedding/node_modules/.package-lock.json: tools/embedding/package-lock.json
	@npm ci --prefix tools/embedding --ignore-scripts --no-audit --no-fund --silent

up: $(VENV)/.program $(SUPERSET_VENV)/.installed ## start the platform on this machine [STACK=local] [OBSERVE=1: with Prometheus]
	@$(RUN) up --stack $(STACK) $(if $(OBSERVE),--observe)

down: $(VENV)/.program ## stop it; data stays
	@$(RUN) down --stack $(STACK)

status: $(VENV)/.program ## what runs, where, and how to log in
	@$(RUN) status --stack $(STACK)

logs: $(VENV)/.program ## follow the logs
	@$(RUN) logs --stack $(STACK) --follow

clean: $(VENV)/.program ## stop it and delete its data (asks first)
	@$(RUN) clean --stack $(STACK)

render: $(VENV)/.program ## manifests of a stack into build/<stack>/
	@$(RUN) render --stack $(STACK)

rules: $(VENV)/.program ## alerts, recording rules, routes and dashboard of a stack into build/<stack>-monitoring/ [WATCHDOG=URL]
	@$(VENV)/bin/python -m monitoring $(STACK) $(if $(WATCHDOG),--watchdog-url $(WATCHDOG))

preflight: $(VENV)/.program ## what keeps a stack from coming up on its cluster, and the command that mends it
	@$(RUN) preflight --stack $(STACK)

preview: $(VENV)/.program ## preflight, and what `pulumi up` would do to the stack that lives
	@$(RUN) preflight --stack $(STACK)
	@pulumi preview --stack $(STACK) --diff

recover: $(VENV)/.program ## after an `up` that was killed: its lock and what it had begun, in order for the next (asks first)
	@$(RUN) recover --stack $(STACK)

destroy: $(VENV)/.program ## delete a stack's workloads; its data stays unless DATA=delete (asks first)
	@$(RUN) destroy --stack $(STACK) $(if $(filter delete,$(DATA)),--with-data)

policy: $(VENV)/.program ## what a stack's resources break of the policy pack; fails where it must not be deployed
	@$(VENV)/bin/python -m policies.check $(STACK) $(if $(POLICY_CONFIG),--config $(POLICY_CONFIG))

check: lint ## lint, and the tests that need neither Superset nor services: what to run before a commit
	@$(VENV)/bin/python -m pytest -m "not (superset or services or local or cluster or thorough)" --numprocesses=auto

test: $(VENV)/.bench $(SUPERSET_VENV)/.installed $(SCAN_VENV)/.installed ## a test of every kind, with real services; not those of test-cluster
	@$(VENV)/bin/python -m pytest -m "not (cluster or further)" --durations=40

test-all: $(VENV)/.bench $(SUPERSET_VENV)/.installed $(SUPERSET_VENV)/.mysql $(FLOWER_VENV)/.installed $(SCAN_VENV)/.installed ## every test but those of test-cluster, further cases of each kind too
	@$(VENV)/bin/python -m pytest -m "not cluster" --durations=40

test-cluster: $(VENV)/.dev $(SUPERSET_VENV)/.installed ## every topology on a real API server (Go; 10-20 minutes to build, once)
	@$(VENV)/bin/python -m tools.build $(CLUSTER_TOOLS)
	@$(VENV)/bin/python -m pytest -m cluster $(CLUSTER_TESTS)

chaos: $(VENV)/.program $(SUPERSET_VENV)/.installed ## cause every fault on real services, and show what held [SCENARIO=…]
	@$(VENV)/bin/python -m bench.chaos $(SCENARIO)

bench: $(VENV)/.bench $(SUPERSET_VENV)/.installed $(STOCK_VENV)/.installed ## measure two configurations against each other, in turns [A=… B=… CELLS="…" PAIRS=5]
	@$(VENV)/bin/python -m bench.load $(if $(A),--a $(A)) $(if $(B),--b $(B)) $(if $(PAIRS),--pairs $(PAIRS)) $(CELLS)

bench-quick: $(VENV)/.bench $(SUPERSET_VENV)/.installed $(STOCK_VENV)/.installed ## two cells in three minutes, their ratios against stored ones
	@$(VENV)/bin/python -m bench.load.quick

bench-tuning: $(VENV)/.bench $(SUPERSET_VENV)/.installed ## worker children by prefetch, on short, long and mixed queries
	@$(VENV)/bin/python -m bench.load.tuning

lint: $(VENV)/.bench ## format, lint, imports between rooms
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/lint-imports --no-logo
	@$(VENV)/bin/shellcheck $(SHELL_SCRIPTS)
	@for script in $(SHELL_SCRIPTS); do "$$(sed -n "1s|.*[/ ]||p" $$script)" -n $$script || exit 1; done

types: $(VENV)/.bench $(SUPERSET_VENV)/.types ## strict types, in both environments
	@$(VENV)/bin/pyright
	@$(VENV)/bin/pyright --project pyrightconfig.superset.json

format: $(VENV)/.bench ## write the format
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

schema: $(VENV)/.program ## write stacks/schema.json, which editors check stack files with
	@$(VENV)/bin/python -m topology.schema > stacks/schema.json.new && mv stacks/schema.json.new stacks/schema.json

docs: $(VENV)/.program ## write docs/configuration.md and settings-and-processes.md from the settings, policies.md from the rules, network.md, aws-resources.md
	@$(VENV)/bin/python -m topology.reference > docs/configuration.md.new && mv docs/configuration.md.new docs/configuration.md
	@$(VENV)/bin/python -m infra.effects > docs/settings-and-processes.md.new && mv docs/settings-and-processes.md.new docs/settings-and-processes.md
	@$(VENV)/bin/python -m topology.reachability > docs/network.md.new && mv docs/network.md.new docs/network.md
	@$(VENV)/bin/python -m tests.policies.document
	@$(VENV)/bin/python -m tests.components.aws.document

lock: $(VENV)/bin/uv ## lock requirements/*.in again, keeping versions that still fit
	@for set in bootstrap program local superset ldap mysql superset-types dev bench stock scan flower; do \
	  $(VENV)/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --no-emit-index-url --no-emit-find-links requirements/$$set.in -o requirements/$$set.txt || exit 1; \
	done

image: $(VENV)/.program ## build the image that the stacks name (docker, podman or buildah) [LDAP=1: with python-ldap] [PUSH=1: push it, and say its digest]
	@sh runtime/image.sh
