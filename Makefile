# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# make demo, make test: see README.md. Everything that is made lies below build/.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Debian's own Python where there is one: it is built to be fast, and what is started most is Ansible.
PYTHON := $(firstword $(wildcard /usr/bin/python3) python3)
VENV := build/venv
BIN := $(CURDIR)/$(VENV)/bin
LINK := build/collections/ansible_collections/groundwork/backend
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

export PATH := $(BIN):$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/build/collections

.PHONY: help setup demo demo-down test test-all lint unit integration molecule bench interop docs testbed-up testbed-down clean

help:
	@echo "make demo [STACK=innovaplus]           bare Debian 13 host -> running, backed-up example stack, in the test bed"
	@echo "make test          lint, unit, integration and Molecule tests"
	@echo "make test-all      the same with those that are marked as slow"
	@echo "make lint|unit|integration|molecule    one part of them"
	@echo "make bench [ONLY=skeleton]             measurements"
	@echo "make interop       dumps and restores beside MongoDB's own mongodump and mongorestore, where they are on PATH"
	@echo "make docs          writes the reference from what roles, modules and filters say of themselves"
	@echo "make testbed-up    engine, images and registry of the test bed;  make testbed-down removes them"
	@echo "make clean         removes the development environment"

# The stamp is the content of requirements-dev.txt, so that a changed pin makes a new environment.
setup: $(VENV)/requirements-dev.txt $(LINK)

$(VENV)/requirements-dev.txt: requirements-dev.txt
	@./tests/support/install-tools $(PYTHON)
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@cp requirements-dev.txt $@

# The checkout itself is the collection that runs: no copy can be stale.
$(LINK):
	@mkdir -p $(@D)
	@ln -sfn ../../../.. $@

demo: setup
	@python3 tests/testbed/demo.py $(STACK)

demo-down:
	@python3 tests/testbed host stop demo

test: setup
	@python3 tests/run.py lint unit integration molecule

# With what make test leaves out because it takes long.
test-all: export PYTEST_ADDOPTS := -m "slow or not slow"
test-all: setup
	@python3 tests/run.py lint unit integration molecule

lint unit integration molecule: setup
	@python3 tests/run.py $@

bench: setup
	@python3 tests/bench/run.py $(ONLY)

interop: setup
	@python3 tests/interop.py

docs: setup
	@python3 docs/generate.py

testbed-up: setup
	@python3 tests/testbed up

testbed-down:
	@python3 tests/testbed down

clean:
	rm -rf $(VENV) build/collections build/mypy build/pytest
