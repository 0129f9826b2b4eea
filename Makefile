# The one list of commands. Every target stands alone: it installs and builds what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: setup demo demo-clean test torture test-played story-endpoint newcomer check bench console images packages test-packages test-images test-ansible test-infra help
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

test-played: ## the table of causes alone, played by real agents in networks of their own (6 min, needs root)
	@. .ci/env && .ci/setup test && cargo build --workspace --locked && cargo test --locked -p tram-tests --test played -- --nocapture

torture: ## 10,000 viewers that vanish at every stage of SPICE and VNC: no QEMU may die (about 5 min; TRAM_TORTURE_ROUNDS=N)
	@.ci/setup test && . .ci/env && TRAM_TORTURE_ROUNDS=$${TRAM_TORTURE_ROUNDS:-10000} TRAM_SILENT_SECONDS=60 \
	    cargo test --locked -p tram-tests --test torture -- --nocapture --include-ignored

story-endpoint: ## an officer's day at an endpoint: thin line, kiosk, viewer, real desktop; line cut, controller and gateway killed
	@.ci/setup test && images/test/build && tests/endpoint/story.sh

newcomer: ## `make demo` as a user with sudo on a bare Debian 13 with systemd, from nothing (15 to 40 min, needs root)
	@.ci/setup test && tests/nspawn/newcomer.sh

check: ## format, lints, floors, wire samples, OpenAPI, licences, shell scripts
	@.ci/setup test && .ci/console && .ci/check

bench: ## measure against the known tools; one row: make bench ONLY=<regex>
	@.ci/bench

console: ## build the web console
	@.ci/setup demo && .ci/console

images: ## build, sign and prove in QEMU: office desktop, thin client, test desktop (an hour without KVM)
	@.ci/setup test && .ci/images

packages: ## build the Debian packages of controller and agent into the cargo target folder
	@.ci/setup demo && packaging/build

test-packages: ## install, upgrade, remove and purge the packages in bare Debian 12 and 13 with systemd (3 min, needs root)
	@.ci/setup test && . .ci/env && cargo build --locked -p tram-controller -p tram-agent -p tram-updater && tests/nspawn/packages.sh bookworm trixie

test-images: ## builds of images that go wrong: silent mirror, full disk, interrupted, killed, locked (5 min, needs root)
	@.ci/setup test && tests/images/static.sh && tests/images/faults.sh

test-ansible: ## the recipes of ansible/ on bare Debian with systemd: site, gateways, second run, restore, upgrade (9 min, needs root)
	@.ci/setup test && . .ci/env && cargo build --locked -p tram-controller -p tram-agent -p tram-updater && tests/ansible/run.sh

test-infra: ## the same on virtual machines with kernels of their own (an hour without KVM, needs root)
	@.ci/setup test && . .ci/env && cargo build --locked -p tram-controller -p tram-agent -p tram-updater && TRAM_ANSIBLE_GUESTS=1 tests/ansible/run.sh
