# The front door.  Everything real is in meson.build and tools/; this file only gives it short names.
# ARGS goes to the program a target runs: make demo ARGS=--once.  JOBS limits the compilers: make JOBS=2.
prefix ?= /usr/local
export JOBS

.PHONY: all demo test test-deep test-cluster chaos chaos-mutants bench image format lint install clean help

all: ## build into build/ (missing packages are named, not installed)
	@tools/build plain

demo: ## install missing packages, build, and run a gateway, an agent and a query on this machine
	@tools/deps build
	@tools/build plain
	@./build/src/cmd/postern demo $(ARGS)

test: ## unit, contract and fuzz corpus suites (plain, then ASan+UBSan), the integration tests, a minute of chaos
	@tools/deps build test
	@tools/run-tests plain asan integration chaos

test-deep: ## TSan, the integration tests on ASan binaries, 60 s of libFuzzer per target
	@tools/deps build test deep
	@tools/run-tests tsan integration-asan fuzz

test-cluster: ## the tests in a real Kubernetes on this machine, which is built once (6 minutes); needs root
	@tools/deps build image cluster
	@tools/go-tool go >/dev/null || tools/deps go
	@tools/run-tests cluster

chaos: ## prove the delivery promises under faults: make chaos FAULTS=1000 SEED=7 (docs/chaos.md)
	@tools/deps build test
	@tools/build plain
	@tests/chaos/run $(if $(FAULTS),--faults $(FAULTS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

chaos-mutants: ## build the product with one deliberate bug after the other; chaos must catch each
	@tools/deps build test
	@tools/build plain
	@tests/chaos/mutants.py $(ARGS)

bench: ## measure a release build beside the machine's own limits: JSON and a table
	@tools/deps build test bench
	@tools/build release
	@POSTERN_BIN=build-release/src/cmd/postern bench/run $(ARGS)

image: ## build the container image, its SBOM beside it: make image ARGS=--local (no engine)
	@tools/image $(ARGS)

format: ## format the C lines that differ from main
	@tools/format.sh fix

lint: ## layering, banned functions, format, sizes, commit subjects, shell scripts, spelling
	@tools/lint

install: ## install a release build below $(DESTDIR)$(prefix)
	@tools/build release --prefix=$(prefix)
	@DESTDIR=$(DESTDIR) meson install -C build-release --no-rebuild --quiet

clean: ## remove every build folder; var/ (the demo's data) stays
	rm -rf build build-asan build-tsan build-fuzz build-release

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{ printf "make %-14s %s\n", $$1, $$2 }'
