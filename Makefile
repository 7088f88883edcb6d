.DEFAULT_GOAL := help
.PHONY: help up dev prove build test check test-long lint generate fmt bench images rowlint vuln licences tools

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## install what is missing, build, and start everything on this machine
	@scripts/install.sh up
	@$(MAKE) --no-print-directory build
	@exec bin/rowhouse dev

dev: up ## the same as up

# What binaries say that they are; a checkout without git has none.
VERSION ?= $(shell git describe --tags --always --dirty --abbrev=12 2>/dev/null)

STAMP = -ldflags '-X github.com/rowhouse-platform/rowhouse/internal/version.stamp=$(VERSION)'

build: ## build bin/rowhouse and the example app
	CGO_ENABLED=0 go build -buildvcs=false $(STAMP) -o bin/ ./cmd/rowhouse ./examples/notes/cmd/notes

rowlint: ## build bin/rowlint
	CGO_ENABLED=0 go build -buildvcs=false $(STAMP) -o bin/ ./cmd/rowlint

prove: build rowlint ## attack this release, lint its source, and sign the report in proof/
	bin/rowhouse prove --source . --out proof

test: ## install what is missing and run every check (about 12 minutes, 20 the first time)
	@scripts/install.sh test
	@scripts/test.sh

check: test ## the same as test

test-long: ## every check and those that take long: everything under the race detector, fuzzing
	@scripts/install.sh test-long
	@ROWHOUSE_TEST_LONG=1 scripts/test.sh -long

lint: ## the checks that run nothing: proto, vet, golangci-lint
	@scripts/test.sh proto breaking vet lint

generate: ## generate gen/ from proto/
	@"$$(scripts/tools.sh buf)/buf" generate

fmt: ## format protos and Go
	@"$$(scripts/tools.sh buf)/buf" format proto -w
	@"$$(scripts/tools.sh golangci-lint)/golangci-lint" fmt

bench: ## compare with other systems; BENCH=name runs one comparison
	@scripts/install.sh bench
	go run ./bench/cmd/bench $(if $(BENCH),-name $(BENCH))

images: ## build the container images into dist/
	go run -C tools ./release -o ../dist -version "$(VERSION)"

vuln: ## look for known vulnerabilities in what the code calls
	@scripts/test.sh vuln

licences: ## write tools/licences.txt anew after a change of go.mod
	go run ./test/licences -write

tools: ## build the pinned tools into .tools/
	@scripts/tools.sh
