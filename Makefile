# Each target is a line that calls a script, which says what it does.
.PHONY: help build install package demo test test-full test-hostile soak fuzz bench lint ci

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

build: ## everything, into target/cloude/bin
	@tools/setup --for demo && tools/build

install: ## copy what `make build` has built to PREFIX (/usr/local), below DESTDIR
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" tools/install

package: ## Debian packages, a tarball and checksums, into target/cloude/packages
	@tools/package

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
