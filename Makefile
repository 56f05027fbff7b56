# Slipway: `make` lists the targets. Each may be interrupted and run again.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/sh

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.slipway-installed
PROJECTS := pyproject.toml $(wildcard services/*/pyproject.toml)
RUNNER := $(PY) -m scripts.local
# The import packages of the tree, services/<name>/<name>, in one list for the type checker.
PACKAGES = $(foreach dir,$(wildcard services/*/pyproject.toml),$(dir $(dir))$(notdir $(patsubst %/,%,$(dir $(dir)))))

GENERATORS := scripts.gateway scripts.datastores scripts.skaffold observability.rules observability.dashboards

# A moved checkout or an upgraded Python breaks an environment that still looks complete.
ifneq ($(shell $(PY) -c 'print("ok")' 2>/dev/null)$(shell cat $(STAMP) 2>/dev/null),ok$(CURDIR))
$(STAMP): FORCE
endif

# Where the cluster targets go: k8s/environments/$(ENV), and a namespace of the current context.
ENV ?= dev
NAMESPACE ?= slipway
# `TRACES=0` asks for nothing, as does `TRACES=`.
on = $(filter-out 0 no off false,$($1))
KUBE = --namespace '$(NAMESPACE)' --context '$(CONTEXT)'
DEPLOY = $(KUBE) --env '$(ENV)' --tag '$(TAG)' --registry '$(REGISTRY)' --digests '$(DIGESTS)' $(if $(call on,OBSERVE),--observe)

.PHONY: help install up start down status clean logs observe traces demo admin run migrate openapi \
	doctor cluster deploy undeploy rollout rollback cluster-status smoke e2e \
	test lint format typecheck generate lock images lambda bench bench-stream FORCE

help:
	@awk 'BEGIN { FS = ":.*## " } /^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(STAMP) ## Install everything into .venv (the other targets do it by themselves)

$(STAMP): requirements.lock $(PROJECTS) scripts/install.sh
	@sh scripts/install.sh $(VENV) $(dir $(wildcard services/*/pyproject.toml))
	@printf '%s' '$(CURDIR)' > $@

up: $(STAMP) ## Start the platform in the foreground (DETACH=1: in the background; TRACES=1: with the trace view)
	@$(if $(call on,TRACES),SLIPWAY_TRACES=1 )$(RUNNER) up $(if $(call on,DETACH),--detach)

start: $(STAMP) ## Start the platform in the background and return when it is ready (TRACES=1 as well)
	@$(if $(call on,TRACES),SLIPWAY_TRACES=1 )$(RUNNER) up --detach

down: $(STAMP) ## Stop the platform, wherever it was started
	@$(RUNNER) down

status: $(STAMP) ## Show what runs
	@$(RUNNER) status

clean: $(STAMP) ## Stop the platform and forget its data and logs
	@$(RUNNER) clean

logs: $(STAMP) ## Follow the logs (SERVICE=orders: of one; PRETTY=1: made readable; FOLLOW=0: only the last lines)
	@$(PY) -m scripts.logs $(SERVICE) $(if $(call on,PRETTY),--pretty) $(if $(filter 0,$(FOLLOW)),--no-follow)

observe: $(STAMP) ## Watch the platform: Prometheus with the rules, and Grafana and Jaeger where they are installed
	@$(PY) -m scripts.observe

traces: $(STAMP) ## Show the traces of a platform started with TRACES=1, as trees, as they come
	@$(PY) -m scripts.traces

demo: $(STAMP) ## Sign up, log in, list items, order, and read the notification
	@$(PY) -m scripts.demo

admin: $(STAMP) ## Create an administrator (EMAIL=you@example.org)
	@$(RUNNER) admin '$(EMAIL)'

run: $(STAMP) ## Run a command of a service on the data of this platform (SERVICE=trainers-queries ARGS="lag")
	@$(RUNNER) run '$(SERVICE)' $(ARGS)

migrate: $(STAMP) ## Bring every database up to date without starting anything
	@$(RUNNER) migrate

openapi: $(STAMP) ## Print the OpenAPI document of one service (SERVICE=orders)
	@$(RUNNER) openapi '$(SERVICE)'

doctor: $(STAMP) ## Say whether this machine and the current cluster can run the platform
	@$(PY) -m scripts.kube.doctor $(KUBE)

cluster: $(STAMP) ## Make a local cluster with kind, with an ingress controller and metrics
	@$(PY) -m scripts.kube.kind

deploy: $(STAMP) ## Deploy to the current cluster (ENV=staging TAG=1.4.0 SERVICE=orders; OBSERVE=1: with Prometheus, Grafana, Jaeger)
	@$(PY) -m scripts.kube.deploy deploy $(DEPLOY) --service '$(SERVICE)'

undeploy: $(STAMP) ## Remove the platform from the cluster (DATA=1: volumes and secrets too)
	@$(PY) -m scripts.kube.deploy undeploy $(DEPLOY) $(if $(call on,DATA),--data)

rollout: $(STAMP) ## Roll one service out anew (SERVICE=orders, TAG=1.4.0 for another image)
	@$(PY) -m scripts.kube.deploy rollout $(DEPLOY) --service '$(SERVICE)'

rollback: $(STAMP) ## Take one service back to its revision before (SERVICE=orders, REVISION=3)
	@$(PY) -m scripts.kube.deploy rollback $(DEPLOY) --service '$(SERVICE)' --revision '$(or $(REVISION),0)'

cluster-status: $(STAMP) ## Show releases, rollouts, autoscalers and what is unwell (WATCH=1: live)
	@$(PY) -m scripts.kube.status $(KUBE) $(if $(call on,WATCH),--watch)

smoke: $(STAMP) ## Place an order on the cluster, through its ingress or a forwarded port
	@$(PY) -m scripts.kube.smoke $(KUBE)

e2e: $(STAMP) ## Prove the platform on the current cluster, in namespaces of its own (ARGS="-k drop")
	@SLIPWAY_E2E=1 $(PY) -m pytest tests/e2e -v -s -p no:xdist $(ARGS)

test: $(STAMP) ## Run the tests (SERVICE=orders: of one service; ARGS="-k saga -x": more for pytest)
	@$(PY) -m pytest -n auto $(if $(SERVICE),services/$(SERVICE)) $(ARGS)

lint: $(STAMP) ## Check style and formatting
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: $(STAMP) ## Format the code and fix what can be fixed
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

typecheck: $(STAMP) ## Check the types of the services and the scripts
	@$(PY) -m mypy $(PACKAGES) scripts observability

generate: $(STAMP) ## Write what follows from services/*/service.yaml: skaffold, gateway, datastores, rules, dashboards
	@for module in $(GENERATORS); do $(PY) -m $$module --write || exit 1; done

lock: $(STAMP) ## Resolve the dependencies anew into requirements.lock
	@$(VENV)/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
		--group run --group dev --group bench --group services/predict/pyproject.toml:train $(PROJECTS) --no-emit-package slipway-chassis \
		--no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" -o requirements.lock

images: $(STAMP) ## Build the images (SERVICE=orders TAG=1.4.0; LOAD=kind|minikube: into that cluster)
	@$(PY) -m scripts.images build $(SERVICE) $(if $(TAG),--tag '$(TAG)') $(ARGS)
	@$(if $(LOAD),$(PY) -m scripts.kube.load '$(LOAD)' $(SERVICE) $(if $(TAG),--tag '$(TAG)'))

lambda: $(STAMP) ## Build a zip for AWS Lambda (SERVICE=items ARCH=arm64 PYTHON_VERSION=3.13)
	@$(PY) -m scripts.lambda_zip '$(SERVICE)' $(if $(ARCH),--arch '$(ARCH)') $(if $(PYTHON_VERSION),--python '$(PYTHON_VERSION)') $(ARGS)

bench-stream: $(STAMP) ## Measure live streams against the broadcast loop of the common tutorial
	@$(PY) -m tests.load.stream_bench $(ARGS)

bench: $(STAMP) ## Measure requests/s and CPU time against bare FastAPI and a typical stack
	@$(PY) -m tests.load.bench $(ARGS)

FORCE:
