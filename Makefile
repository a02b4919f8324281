# A menu: one line each. Logic lives in Rust, and CI calls nothing else.
.DEFAULT_GOAL := help
.PHONY: help demo test bench ci generate fmt fmt-check lint
CARGO ?= cargo

help: ## this menu
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12
demo: ## a local fleet samples the traces of a small shop for 20 seconds; no cluster
	$(CARGO) run -q -p ringtail -- run examples/shop.yaml --demo --decision-wait 3s --duration 20s
test: ## everything that needs no cluster
	$(CARGO) test -q --workspace
bench: ## spans per CPU-second and bytes a span, beside a raw relay and the OpenTelemetry Collector
	$(CARGO) build -q --profile dist -p ringtail && $(CARGO) run -q --profile dist -p ringtail-bench
ci: fmt-check lint test ## what a pull request must pass; the tests prove generated files current
generate: ## rewrite the generated files: the CRD
	$(CARGO) run -q -p ringtail-crds --example generate
fmt: ## format the code
	$(CARGO) fmt --all
fmt-check: ## complain where `make fmt` would change something
	$(CARGO) fmt --all --check
lint: ## clippy over everything, warnings are errors
	$(CARGO) clippy -q --workspace --all-targets -- -D warnings
