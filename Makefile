# The one list of commands. Every target stands alone: it installs and builds what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: setup demo demo-clean test story-endpoint check bench console images help
export ONLY

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

setup: ## install the Debian packages, Rust and Node.js that the targets need
	@.ci/setup test

demo: ## build all and run it here: controller, two real desktops, an endpoint (Ctrl-C stops it)
	@tests/demo/demo.sh

demo-clean: ## remove exactly what `make demo` made
	@tests/demo/clean.sh

test: ## every test, on real libvirt and in a real browser
	@.ci/test

story-endpoint: ## an officer's day at an endpoint: thin line, kiosk, viewer, real desktop; line cut, controller killed
	@.ci/setup test && images/test/build && tests/endpoint/story.sh

check: ## format, lints, floors, wire samples, OpenAPI, licences, shell scripts
	@.ci/setup test && .ci/console && .ci/check

bench: ## measure against the known tools; one row: make bench ONLY=<regex>
	@.ci/setup bench && .ci/console && images/test/build && . .ci/env && \
	    cargo build --locked --release -p tram-controller && \
	    cargo run --locked --release -p tram-tests --bin bench -- --only "$$ONLY"

console: ## build the web console
	@.ci/setup demo && .ci/console

images: ## build the test desktop image and prove it in QEMU
	@.ci/setup demo && images/test/build && images/test/prove
