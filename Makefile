# `make run` trains the sqn recipe on CartPole; `make test` runs the tests; each installs what it needs into .venv.
PYTHON ?= python3
BIN := .venv/bin
# the seconds are for a test that would never end; slow machines take ten times as long as fast ones
PYTEST := $(BIN)/pytest -n 2 --dist worksteal --timeout 2400 --timeout-method signal
# the extra `envpool` without 90 MB of humanoids
ENVPOOL := envpool envpool-assets envpool-assets-mujoco-large dm-env dm-tree optree

.PHONY: core setup run test test-slow lint bench docs clean

core: .venv/core

.venv/core: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

setup: .venv/ready

.venv/ready: .venv/core
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,docs,envs,export,hub,images,logging,minatar,mlflow,ray,submitit,tune,video,wandb]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps $(ENVPOOL)
	touch $@

run: core
	$(BIN)/sqn-run

test: setup
	$(PYTEST) -m "not slow"

test-slow: setup
	$(PYTEST) -m slow

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: setup
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python tests/benchmarks/big.py
	$(BIN)/python tests/benchmarks/speed.py
	$(BIN)/python tests/benchmarks/growth.py

docs: setup
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs docs/_build/html
	@echo docs/_build/html/index.html

clean:
	rm -rf .venv runs .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info docs/_build docs/reference/generated
