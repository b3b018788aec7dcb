# Everything runs in .venv, made on first use; nothing is installed outside this folder.
PYTHON ?= python3
# One worker per core; the tests start real processes, more of them only wait for each other.
ARGS ?= -n auto --dist loadfile
BIN := .venv/bin
# With the Python of CI, the versions that CI passed with: a library's release of this morning must not break a checkout.
KNOWN := .ci/constraints-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt
# Each is one program: its modules import each other by their bare names.
COMPONENTS := $(addprefix components/,model_agent patterns vision turbine_monitor/1.0.0 turbine_monitor/1.1.0)
PIN := $(patsubst %,-c %,$(wildcard $(KNOWN)))

.PHONY: demo demo-vision test check format bench crash conformance walk catalogues fuzz ipc-soak ipc-matrix continuity continuity-models train protos clean

demo: .venv/.demo
	$(BIN)/marram demo

# A camera and a detector, its model swapped under load; pictures in .demo-vision.
demo-vision: .venv/.demo
	$(BIN)/python -m tools.demo_vision

test: .venv/.stamp
	$(BIN)/python -m pytest $(ARGS)

check: .venv/.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	for folder in $(COMPONENTS); do (cd $$folder && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml .) || exit 1; done
	$(BIN)/python -m pytest -q tests/rules

format: .venv/.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# As on a device: what a component imports is compiled once, also where the shell says otherwise.
bench continuity continuity-models: export PYTHONDONTWRITEBYTECODE=

bench: .venv/.stamp
	$(BIN)/python -m tools.bench $(BENCH)

crash: .venv/.stamp
	$(BIN)/python -m tools.crash

conformance: .venv/.stamp
	$(BIN)/python -m tools.conformance -- $(ARGS)

walk: .venv/.stamp
	$(BIN)/python -m tools.walk

# Negotiations of random catalogues, all at once against one by one.
catalogues: .venv/.stamp
	MARRAM_CATALOGUES=10000 $(BIN)/python -m pytest -q --timeout 900 tests/nucleus/core/test_negotiate.py tests/nucleus/core/test_negotiate_sequential.py -k random_catalogues

fuzz: .venv/.stamp
	$(BIN)/python -m pytest -q --hypothesis-profile fuzz tests/corpus tests/nucleus/host/test_files.py tests/nucleus/wire -k 'random or replaced or overwritten'

ipc-soak: .venv/.stamp
	$(BIN)/python -m tools.ipc_soak

# What restarts and updates do to messages, then to requests for predictions. CONTINUITY: options of the latter.
continuity: .venv/.stamp continuity-models
	$(BIN)/python -m tools.continuity

continuity-models: .venv/.stamp
	$(BIN)/python -m tools.continuity_models $(CONTINUITY)

# MATRIX: options, e.g. MATRIX='--client python -o json'
ipc-matrix: .venv/.stamp
	@$(BIN)/python -m tools.ipc_matrix $(MATRIX)

train: .venv/.stamp
	$(BIN)/pip install --quiet -e '.[train]'
	$(BIN)/python -m tools.train_power_curve

# Messages of the model agent's gRPC doors, checked in: devices need no compiler.
protos: .venv/.stamp
	cd components/model_agent && ../../$(BIN)/python -m grpc_tools.protoc -I. --python_out=. *.proto

# The demo needs less than the tests, which bring other people's clients and generators.
.venv/.demo: pyproject.toml $(wildcard $(KNOWN))
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing Marram and what it needs into .venv (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIN) -e '.[all]'
	@touch $@

.venv/.stamp: .venv/.demo
	@echo "Installing what the tests need into .venv (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIN) -e '.[all,dev]'
	@touch $@

clean:
	rm -rf .venv .demo .demo-vision .bench
