# All commands for contributors. `make` alone lists them.

export CARGO_TERM_COLOR ?= auto
CARGO := cargo
BENCH ?=
ENGINE ?= single
COMPARE ?=

.DEFAULT_GOAL := help
.PHONY: help run release setup check fmt lint doc unit test tests clients conformance torture deploy deny image bench

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build quickly and start `switchboard dev`: needs Rust and a C compiler, nothing else
	$(CARGO) run --profile quick --locked -- dev

release: ## Build target/release/switchboard, fully optimised, as the image has it
	$(CARGO) build --release --locked

setup: ## Install missing tools and servers of the tests (Debian, Ubuntu), or list them
	scripts/setup.sh

check: fmt lint doc unit ## Format, lints, documentation, unit tests (quick, without servers)

fmt:
	$(CARGO) fmt --check

lint:
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --lib --features faults -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

unit:
	$(CARGO) test --locked --lib

test: ## Everything that CI runs: setup, format, lints, documentation, every test, client SDKs, conformance, torture, deployment
	@scripts/test.sh

tests:
	$(CARGO) test --locked --no-fail-fast

clients: ## Test the client SDKs (clients/), in Chromium over two nodes too
	scripts/clients.sh

conformance: ## Run the Autobahn cases (PyPI kosoku) against the session code
	scripts/conformance.sh

torture: ## Three nodes under overlapping faults, checked (ENGINE=single|sentinel|cluster|all, TORTURE_SECONDS=60, TORTURE_SEED=random); single and all also with defects that must be caught
	@for engine in $(if $(filter all,$(ENGINE)),single sentinel cluster,$(ENGINE)); do \
		TORTURE_ENGINE=$$engine $(CARGO) test --locked --test torture -- --ignored --nocapture everything_holds || exit; \
	done
ifneq ($(filter single all,$(ENGINE)),)
	$(CARGO) test --locked --features faults --test torture -- --ignored --nocapture caught
endif

deploy: ## Check the image, compose.yaml, the chart and the alerts
	scripts/tools.sh
	target/tools/python/bin/pytest -q -rfEs tests/deploy

deny: ## Check the licences, versions and sources of the dependencies (deny.toml); part of `make deploy`
	scripts/tools.sh
	target/tools/python/bin/pytest -q -rfEs tests/deploy/test_dependencies.py

image: ## Build the image as the Dockerfile says, from this machine's Rust, and start it (slow: a release build)
	scripts/tools.sh
	IMAGE_TEST=1 target/tools/python/bin/pytest -q -rfEs -s tests/deploy/test_image.py

bench: ## Print figures of all parts, or of some (BENCH="ordinary requests"; BENCH=--help), beside an earlier run's (COMPARE=target/bench/….json)
	$(CARGO) bench --locked --bench load -- $(BENCH) $(if $(COMPARE),--compare "$(COMPARE)")
