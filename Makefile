# `make help` says what there is. The scripts in deploy/ do the work; this only names it.
.DEFAULT_GOAL := help
.PHONY: help deps build image up down demo packages lab lab-down lab-test test chaos lint bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

deps: ## installs the packages that are missing
	@deploy/install-deps.sh

build: deps ## builds the four daemons and the command `cloud` (release)
	@cargo build --release --locked --workspace --bins

image: deps ## builds the guest image `tiny` into .cache/
	@images/tiny/build.sh

up: build image ## runs a cloud on this machine until Ctrl-C or make down; HOSTS=3: of three hosts (docs/hosts.md)
	@deploy/up.sh

down: ## ends make up: guests are shut down, instances and volumes kept
	@deploy/down.sh

demo: build image ## the main job from beginning to end on real guests; leaves nothing
	@deploy/demo.sh

packages: build ## Debian packages of the daemons and of `cloud`, into .cache/packages
	@deploy/packages.sh

lab: build image ## three hosts with real KVM, LVM and Open vSwitch, as virtual machines on this machine (docs/lab.md); it stays
	@deploy/lab.sh up

lab-down: ## ends make lab
	@deploy/lab.sh down

lab-test: ## all tests on hosts of a lab
	@deploy/lab.sh test

test: ## every test but lab-test: static checks, units, real hypervisor and switch, end to end
	@deploy/test.sh

chaos: ## breaks everything at random for SEED=… MINUTES=… (30): model, faults, fuzzers, real kills
	@deploy/chaos.sh

lint: ## formatting, clippy, shell scripts
	@deploy/lint.sh

bench: build image ## measures the budgets and prints a table
	@tests/bench/run.sh

clean: ## removes what was built (not the cloud's state)
	@cargo clean
	@rm -rf .cache
