# A menu: one line each. Logic lives in Rust, and CI calls nothing else.
# demo and test share the dev profile: on a cold clone optimising would take longer than it could ever save there.
.DEFAULT_GOAL := help
.PHONY: help demo test e2e cluster cluster-build image otelcol bench churn ci generate fmt fmt-check lint
CARGO ?= cargo

help: ## this menu
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 16
demo: ## a local fleet samples the traces of a small shop while gateways come, leave and are killed; no cluster, half a minute
	$(CARGO) run -p ringtail -- run examples/shop.yaml --demo --decision-wait 8s --duration 25s
test: ## everything that needs no cluster
	$(CARGO) test --workspace
e2e: image ## the chart, the operator and a fleet on a real cluster of three nodes (root; after make cluster-build)
	$(CARGO) run --bin ringtail-image -- ringtail-bench
	RINGTAIL_CLUSTER_REQUIRED=1 $(CARGO) test --workspace --test fleet
cluster: ## a real Kubernetes with three nodes on this machine until Ctrl-C; prints KUBECONFIG (root)
	$(CARGO) run --bin ringtail-cluster -- up
cluster-build: ## build the programs of a cluster once, about 15 minutes of CPU, and install what nodes need
	$(CARGO) run --bin ringtail-cluster -- build
image: ## images of agent, gateway and operator as tars in target/images, without a container engine
	$(CARGO) run --bin ringtail-image
otelcol: ## build once the OpenTelemetry Collector that bench and tests compare with (Go, some minutes of CPU)
	$(CARGO) run -p ringtail-bench -- collector
bench: ## spans per CPU-second and bytes a span, beside a raw relay and the OpenTelemetry Collector
	$(CARGO) run --profile dist -p ringtail-bench
churn: ## fleets under load while gateways come, go, die and hang, beside the Collector (root, for its rows)
	$(CARGO) run --profile dist -p ringtail-bench -- churn
ci: fmt-check lint test ## what a pull request must pass; the tests prove generated files current
generate: ## rewrite the generated files: the CRD and its reference page, the peer messages, the chart's files
	RINGTAIL_GENERATE=1 $(CARGO) test -p ringtail-crds -p ringtail-tests --test generated --test chart
fmt: ## format the code
	$(CARGO) fmt --all
fmt-check: ## complain where `make fmt` would change something
	$(CARGO) fmt --all --check
lint: ## clippy over everything, warnings are errors
	$(CARGO) clippy --workspace --all-targets -- -D warnings
