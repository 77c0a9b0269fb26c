# The table of contents: `make help`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
NPM := npm --no-update-notifier --no-fund --no-audit

types := $(wildcard api/types/*.ts)
sources := $(shell find api bus client controllers db kubernetes roles tracing \( -name '*.ts' -o -name '*.sql' \) -not -path 'client/generated/*' 2>/dev/null) $(wildcard *.ts)

.PHONY: help
help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z\/-]+:.*## / { printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: dist/.built ## Install, build and start everything until Ctrl-C: API, controllers, embedded Postgres
	@exec node --enable-source-maps dist/main.js run

.PHONY: api
api: dist/.built ## Start one API process, as often as wanted (PORT=…)
	@exec node --enable-source-maps dist/main.js api

.PHONY: controllers
controllers: dist/.built ## Start one controllers process, as often as wanted (API_URL=…)
	@exec node --enable-source-maps dist/main.js controllers

.PHONY: migrate
migrate: dist/.built ## Bring the database to this release
	@exec node --enable-source-maps dist/main.js migrate

.PHONY: rotate-key
rotate-key: dist/.built ## Encrypt all secrets anew while the platform runs: ENCRYPTION_KEY=new,old make rotate-key
	@exec node --enable-source-maps dist/main.js rotate-key

.PHONY: raise-versions
raise-versions: dist/.built ## After a restored backup: let versions go on above what clients have seen, void claims
	@exec node --enable-source-maps dist/main.js raise-versions

.PHONY: test
test: dist/.built tools ## Run all tests on real Postgres and RabbitMQ (TESTS=… for some files, TEST_JOBS=… at a time)
	@COMPILED=1 node --import tsx test/suite.ts $(TESTS)

.PHONY: verify
verify: node_modules/.installed ## Check generated files, formatting, types, lint and import rules
	@bash test/verify

.PHONY: bench
bench: dist/.built ## Measure against references in the same run (BENCH=… for one program)
	@node --import tsx bench/main.ts $(BENCH)

.PHONY: chaos
chaos: build/.generated ## Kill, freeze and cut off every part under a million writes (SEED=… WRITES=… FAULTS=off, see test/chaos/main.ts)
	@node --import tsx test/chaos/main.ts

.PHONY: churn
churn: build/.generated ## Write without end and watch the size of the database (MINUTES=… SEED=…)
	@node --import tsx test/chaos/main.ts churn

.PHONY: generate
generate: node_modules/.installed ## Write controllers, routes, OpenAPI document and client from the type files
	@node --import tsx api/generate.ts
	@touch build/.generated

.PHONY: build
build: dist/.built ## Compile to dist/

.PHONY: format
format: node_modules/.installed ## Format the sources
	@npx prettier --log-level warn --write .

.PHONY: tools
tools: ## Install what the tests need and is not there: RabbitMQ, httpie, psql (as root; else say how)
	@bash test/rabbitmq-install
	@bash test/tools-install

.PHONY: image
image: ## Build the container image: make image IMG=registry/syncsets:tag (ENGINE=podman)
	@$(or $(ENGINE),docker) build -f manifests/Containerfile -t "$(IMG)" .

.PHONY: deploy
deploy: ## Deploy to the current Kubernetes cluster: make deploy IMG=registry/syncsets:tag [WITH="tls external"]
	@bash manifests/deploy.sh "$(IMG)" $(WITH)

.PHONY: clean
clean: ## Remove what was generated and built; data stay
	@rm -rf build dist client/generated

node_modules/.installed: package.json package-lock.json
	@$(NPM) ci --ignore-scripts --loglevel=error
	@touch $@

build/.generated: node_modules/.installed $(types) $(filter-out %.test.ts,$(wildcard api/*.ts api/generate/*.ts)) tsoa.json
	@node --import tsx api/generate.ts
	@touch $@

dist/.built: build/.generated $(sources) $(wildcard db/migrations/*.sql) tsconfig.json tsconfig.build.json
	@npx tsc -p tsconfig.build.json
	@mkdir -p dist/db/migrations && cp db/migrations/*.sql dist/db/migrations/
	@touch $@
