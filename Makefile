# Every target needs only Go, unless its line says otherwise.

GO      ?= go
TAGS    := grpcnotrace
LDFLAGS := -s -w
BUILD   := $(GO) build -tags $(TAGS) -trimpath -ldflags '$(LDFLAGS)'

FUZZTIME    ?= 30s
BENCH       ?= .
RUNS        ?= 5
BIG         ?= 10
OUTAGE      ?= 10m
IMAGE       ?= weir
BUILDER     ?= $(firstword $(foreach b,docker podman buildah,$(if $(shell command -v $(b)),$(b))))
BUILD_IMAGE ?= golang:1.26
RUN_IMAGE   ?= scratch
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
REVISION    := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/sidecar as it is released
	CGO_ENABLED=0 $(BUILD) -o bin/sidecar ./cmd/sidecar

.PHONY: demo
demo: ## See it work, until Ctrl-C
	$(GO) run ./cmd/sidecar demo

.PHONY: test
test: ## Run all tests
	$(GO) test ./...

.PHONY: race
race: ## Run all tests under the race detector (needs a C compiler)
	$(GO) test -race ./...

.PHONY: fuzz
fuzz: ## Fuzz every target for FUZZTIME each
	bash .ci/fuzz $(FUZZTIME)

.PHONY: bench
bench: ## Run the benchmarks that match BENCH
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...

.PHONY: peers
peers: ## Compare our bucket with others', as medians of RUNS runs
	$(GO) test -run '^$$' -bench '^BenchmarkTake$$' -count $(RUNS) ./limit | awk -f .ci/peers.awk

.PHONY: big
big: ## Move a body of BIG GiB each way in constant memory
	$(GO) test -run '^$$' -bench BigBody -benchtime 1x -timeout 1h ./proxy -args -big $(BIG)

.PHONY: outage
outage: ## Cut, stall and restart etcd under load for OUTAGE, and show what became of requests and returns
	$(GO) test -run '^TestOutageUnderLoad$$' -count 1 -timeout 1h -v ./cmd/sidecar -args -outage $(OUTAGE)

.PHONY: start
start: ## Measure the start of the real binary, its idle memory and its size
	$(GO) test -run '^$$' -bench 'Start|Idle' -benchtime 100x ./cmd/sidecar

.PHONY: clusters
clusters: ## Keep 17 embedded etcd clusters equal to one, four of them in trouble for a minute
	$(GO) test -count 1 -run '^TestManyClusters$$' -v -timeout 30m ./control/distribute -args -clusters 17 -changes 300 -drifts 510 -outage 1m

.PHONY: cover
cover: ## Write cover.html and print the total
	$(GO) test -coverpkg ./... -coverprofile cover.out ./...
	$(GO) tool cover -html cover.out -o cover.html
	$(GO) tool cover -func cover.out | tail -n 1

.PHONY: lint
lint: ## Check format, go vet and staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'these files are not formatted: run make fmt'; exit 1; }
	$(GO) vet -tags $(TAGS) ./...
	$(GO) tool staticcheck -tags $(TAGS) ./...

.PHONY: fmt
fmt: ## Format the sources
	gofmt -w .

.PHONY: reference
reference: ## Write docs/reference.md and the JSON Schema anew from the Go types
	$(GO) generate ./policy/...

.PHONY: image
image: ## Build the image IMAGE (needs docker, podman or buildah)
	@test -n '$(BUILDER)' || { echo 'no builder found: install docker, podman or buildah'; exit 1; }
	$(BUILDER) build --build-arg BUILD_IMAGE=$(BUILD_IMAGE) --build-arg RUN_IMAGE=$(RUN_IMAGE) \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) -t $(IMAGE) .

.PHONY: ci
ci: ## Run everything that CI runs
	bash .ci/run

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin cover.out cover.html
