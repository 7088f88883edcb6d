package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// stamp is the variable that holds what a binary says it is. The example app links none: the linker passes over it.
const stamp = "github.com/rowhouse-platform/rowhouse/internal/version.stamp"

// compile returns an image's static binary for Linux.
func compile(ctx context.Context, o options, i image, arch string) ([]byte, error) {
	if strings.ContainsAny(o.version, " \t\n'\"") { // the linker's flags are split at blanks
		return nil, fmt.Errorf("the version %q is not one word", o.version)
	}
	dir, err := os.MkdirTemp("", "rowhouse-release-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, i.name)
	flags := "-ldflags=-s -w -buildid="
	if o.version != "" {
		flags += " -X " + stamp + "=" + o.version
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", flags, "-o", binary, i.pkg)
	cmd.Dir = o.root
	// What a developer's environment asks for must not reach the image.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=-mod=readonly",
		"GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GODEBUG=", "GOWORK=off")
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, said.Bytes())
	}
	return os.ReadFile(binary)
}
