# What a contributor runs. `make check test counts fuzz` is what CI runs, in its order.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

# What is left out because a tool is missing fails in CI.
NOT_IN_CI := [ "$${CI:-}" != true ]

# Seconds for each fuzz target.
T ?= 30

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

.PHONY: check
check: ## format, shell scripts, dependencies, lints, documentation
	@scripts/install check
	cargo fmt --check
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run $(SCRIPTS); \
	else echo "shell scripts not checked: shellcheck is missing"; $(NOT_IN_CI); fi
	@PATH=$$PATH:/usr/local/go/bin; \
	if command -v gofmt >/dev/null; then test -z "$$(gofmt -l tests/conformance | tee /dev/stderr)"; \
	else echo "Go not checked: gofmt is missing"; $(NOT_IN_CI); fi
	scripts/cargo-deny
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

SCRIPTS := scripts/cargo-deny scripts/deb scripts/fuzz scripts/install tests/conformance/run \
	deploy-hooks/edge-gateway systemd/bridge systemd/certs \
	packaging/debian/bug-script packaging/debian/postinst packaging/debian/postrm \
	packaging/debian/prerm

.PHONY: test
test: ## unit tests, goldens, stories, and e2e where it can run; installs what they need
	@scripts/install test
	cargo test --locked
	tests/oracle/lists_test.py
	tests/oracle/goldens target/debug/edge-gateway
	@why=$$(tests/e2e/run --why-not || echo "see above"); \
	if [ -z "$$why" ]; then $(MAKE) --no-print-directory e2e; \
	else echo "left out, make e2e: $$why"; fi

.PHONY: counts
counts: ## what a request costs beside its budget, counted exactly; BLESS=1 records the budgets anew
	@scripts/install counts
	tests/counts/gate_test.py
	cargo build --locked
	cargo build --locked --profile counts
	tests/counts/run $(if $(BLESS),--bless,--gate) --debug target/debug/edge-gateway \
		target/counts/edge-gateway

.PHONY: fuzz
fuzz: ## each fuzz target for T seconds (30)
	@scripts/install fuzz
	scripts/fuzz $(T)

.PHONY: bless
bless: ## records the goldens anew; read the diff before you commit it
	UPDATE=1 cargo test --locked --lib
	git --no-pager diff --stat -- tests

.PHONY: deny
deny: ## licences, sources, bans and advisories of the dependency tree
	@scripts/install check
	scripts/cargo-deny

.PHONY: bench
bench: ## the gateway beside nginx, HAProxy and Envoy; writes docs/benchmarks.md (bench/counting: what the metrics cost)
	@scripts/install bench
	cargo build --locked --release
	bench/run

.PHONY: deb
deb: ## the Debian package, into target/debian; lintian judges it
	@scripts/install deb
	scripts/deb

.PHONY: e2e
e2e: ## the package in real systemd, with certbot and an ACME server; needs root on Debian
	@scripts/install e2e
	scripts/deb --profile dev --fast
	tests/e2e/run

.PHONY: conformance
conformance: ## the Gateway API's conformance suite, or its test RUN=NAME; needs Go 1.26
	@scripts/install conformance
	cargo build --locked --release
	tests/conformance/run $(if $(RUN),,--docs) target/release/edge-gateway \
		$(if $(RUN),-run-test $(RUN))

.PHONY: oracle
oracle: ## the gateway beside a real Envoy Gateway with the same YAML and requests, or its CASE=NAME; needs Go 1.26
	@scripts/install oracle
	cargo build --locked
	tests/oracle/run target/debug/edge-gateway $(CASE)

.PHONY: clean
clean: ## removes all that was built or installed here
	cargo clean
	rm -rf bench/.cache tests/.cache fuzz/Cargo.lock fuzz/artifacts fuzz/corpus fuzz/target
