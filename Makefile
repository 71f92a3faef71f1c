# Each target is a line that calls a script, which says what it does.
.PHONY: help build demo test test-full test-hostile soak fuzz bench lint ci

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

build: ## everything, into target/cloude/bin
	@tools/setup --for demo && tools/build

demo: ## from a fresh clone to a program's output
	@tools/demo

test: ## all tests; those that boot VMs run on an emulated host where they must
	@tools/test

test-full: ## the same, with every program, all languages and many more forks: hours on an emulated host
	@tools/test --full

test-hostile: ## attacks by programs, guest kernels, images, clients and changes of the host: a line for each
	@tools/test-hostile

soak: ## half an hour of these attacks beside ordinary programs: nothing may grow
	@tools/test-hostile --soak 1800 target/soak

fuzz: ## each parser of untrusted bytes for a minute: tools/fuzz --seconds N TARGET… for longer
	@tools/fuzz --seconds 60

bench: ## the numbers
	@tools/bench

lint: ## format, clippy, documentation
	@tools/lint

ci: ## what has to pass
	@tools/setup && tools/lint && tools/test
