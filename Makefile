# coco-kp: what a developer, a user who builds from source, and CI run. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE_SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find rust -name '*.rs' -o -name Cargo.toml)

.PHONY: help
help: ## List what there is to make
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 22

.PHONY: tools
tools:
	@command -v $(PYTHON) >/dev/null || { echo "make: python3 is missing: install Python 3.11 or newer (Debian: apt-get install python3 python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old: install Python 3.11 or newer, or name one with PYTHON=" >&2; exit 1; }
	@command -v cargo >/dev/null || { echo "make: cargo is missing: install Rust 1.89 or newer from https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "make: cc is missing: install a C compiler (Debian: apt-get install build-essential)" >&2; exit 1; }

# The locked environment: each file of each package is checked against its hash.
$(BIN)/.locked: requirements/dev.txt | tools
	@$(PYTHON) -m venv $(VENV) || { echo "make: $(PYTHON) has no venv module: install it (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@tools/quietly "Installing the locked Python packages into $(VENV) (a minute or two)" \
	  $(BIN)/pip install --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

.PHONY: venv
venv: $(BIN)/.locked ## Make the virtual environment from the lock file

$(BIN)/.built: $(BIN)/.locked $(NATIVE_SOURCES)
	@VIRTUAL_ENV=$(abspath $(VENV)) tools/quietly "Building coco-kp's native core (a minute or two)" \
	  $(BIN)/maturin develop --release --locked
	@touch $@

.PHONY: build
build: $(BIN)/.built ## Build the native module and install coco-kp into the environment

.PHONY: demo
demo: build ## Encrypt and decrypt a small image in a temporary directory, step by step
	@PATH="$(CURDIR)/.cache/peers/debian-trixie/bin:$$PATH" $(BIN)/coco-kp demo

.PHONY: peers
peers: $(BIN)/.locked ## Fetch the real peers that the tests talk to (docs/peers.md)
	$(BIN)/python -m tests.peers $(PEERS)

.PHONY: test
test: build peers ## Run the tests, against real peers too, in minutes
	tools/loud cargo test --locked --workspace --quiet
	tools/loud $(BIN)/pytest -n auto -m "not full"

.PHONY: test-all
test-all: test ## And those that take long or need much: container image, wheels
	tools/loud $(BIN)/pytest -n auto --dist loadgroup -m full

.PHONY: faults
faults: build ## Let every system call of every command fail, one at a time (CONTRIBUTING.md)
	$(BIN)/python -m tests.faults

# Strict: a link, a heading or a name that is not there fails it.
.PHONY: docs
docs: $(BIN)/.locked ## Build the pages of docs/ and the library's reference as a site, target/site
	@NO_MKDOCS_2_WARNING=1 tools/quietly "Building the site of docs/" $(BIN)/mkdocs build --strict

# Rules about the code and its pages as such: floors, circles, exports, docs, schemas. They need no peers.
HOUSE := $(wildcard tests/test_*.py) $(addprefix tests/docs/,test_adr.py test_cli_contract.py test_library.py test_pages.py) \
  tests/engine/test_documents.py

.PHONY: check
check: build docs ## Formatting, lints, types, rules of the house, the core on aarch64, the site
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	tools/loud $(BIN)/mypy
	MYPYPATH=python $(BIN)/stubtest coco_kp._native
	tools/loud $(BIN)/pytest -n auto --quiet $(HOUSE)
	cargo fmt --all --check
	tools/loud cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
	tools/loud tools/check-aarch64

.PHONY: audit
audit: $(BIN)/.locked ## Look for known vulnerabilities in what is locked, for its licences and sources
	$(BIN)/uv run --quiet --isolated --no-project --python $(BIN)/python --with-requirements requirements/audit.txt \
	  pip-audit --strict --disable-pip --require-hashes $(addprefix --requirement=,$(wildcard requirements/*.txt))
	@command -v cargo-deny >/dev/null || { echo "make: cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; }
	cargo deny --locked check

.PHONY: bench
bench: build peers ## Measure this machine in half an hour: native core, peers beside us, a WrapKey call, growth
	cargo bench --locked --package coco-kp-core
	$(BIN)/python -m benches

.PHONY: bench-quick
bench-quick: build peers ## Of it in three minutes: real layers in gzip and smaller ones, between layouts
	$(BIN)/python -m benches.peers --scale 25 --quick --output target/benches/quick

# What a wheel installs beside the package; maturin looks for it under this name.
WHEEL_DATA := coco_kp._native.data
DIST := dist

.PHONY: wheel-data
wheel-data: build
	rm -rf $(WHEEL_DATA)
	$(BIN)/python -m tools.wheel_data $(WHEEL_DATA)/data/share

.PHONY: wheel
wheel: wheel-data ## Build a wheel for this machine alone into dist/
	$(BIN)/maturin build --release --locked --out $(DIST)

$(BIN)/.wheel-tools: $(BIN)/.locked requirements/wheels.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/wheels.txt
	touch $@

.PHONY: sdist
sdist: wheel-data ## Pack the sources into dist/
	$(BIN)/maturin sdist --out $(DIST)

# zig links against the symbols of an old glibc, so that RHEL 8 and Debian 11 load the wheels, too.
WHEEL_TARGETS := x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu

.PHONY: wheels
wheels: wheel-data sdist $(BIN)/.wheel-tools ## Build the wheels that are published (x86-64, aarch64) and the sdist into dist/
	@for target in $(WHEEL_TARGETS); do \
	  rustc --print target-libdir --target $$target | xargs test -d || rustup target add $$target; \
	  PATH="$(abspath $(BIN)):$$PATH" maturin build --release --locked --out $(DIST) \
	    --zig --compatibility manylinux2014 --target $$target; \
	done

.PHONY: image
image: wheel ## Build the container images coco-kp and coco-kp:slim
	tools/build-image

.PHONY: proto
proto: ## Generate the gRPC stubs anew, with an old pinned grpcio-tools so that every later runtime loads them
	tools/generate-proto

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
.PHONY: lock
lock: $(BIN)/.locked ## Lock the Python dependencies anew
	$(LOCK) --output-file requirements/dev.txt requirements/dev.in
	$(LOCK) --output-file requirements/runtime.txt --constraint requirements/dev.txt requirements/runtime.in
	$(LOCK) --output-file requirements/audit.txt --constraint requirements/dev.txt requirements/audit.in
	$(LOCK) --output-file requirements/moto.txt --constraint requirements/dev.txt requirements/moto.in
	$(LOCK) --output-file requirements/wheels.txt --constraint requirements/dev.txt requirements/wheels.in

.PHONY: clean
clean: ## Remove what was built (not the fetched peers)
	rm -rf $(VENV) target dist $(WHEEL_DATA) .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find python tests benches -name __pycache__ -prune -exec rm -rf {} +
	rm -f python/coco_kp/_native*.so
