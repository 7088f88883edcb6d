// Command licences holds the modules in go.mod against tools/licences.txt.
//
// A line there is "module SPDX-expression hash-of-the-licence-text". The command fails on a module that has no line or
// a line too many, on a text that changed, and on a licence that is not permitted. It knows a licence by its own words,
// not by what a registry says of it. With -write it writes the file anew; what is not permitted is still refused.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// record is the file that a reviewer reads.
const record = "tools/licences.txt"

// header explains the record to its readers.
const header = "# What each module in go.mod is licensed under, and the SHA-256 of the text that says so.\n" +
	"# Written by make licences after a change of go.mod; test/licences holds it against the modules.\n"

func main() {
	write := flag.Bool("write", false, "write "+record+" anew")
	flag.Parse()
	if err := run(context.Background(), *write); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run compares the modules with the record, or writes it.
func run(ctx context.Context, write bool) error {
	found, err := examine(ctx)
	if err != nil {
		return err
	}
	if write {
		return os.WriteFile(record, []byte(render(found)), 0o644) //nolint:gosec // a file of the repository
	}
	text, err := os.ReadFile(record)
	if err != nil {
		return err
	}
	return compare(parse(string(text)), found)
}

// examine returns the line of each module that go.mod requires, and refuses licences that are not permitted.
func examine(ctx context.Context) (map[string]string, error) {
	modules, err := required(ctx)
	if err != nil {
		return nil, err
	}
	if len(modules) == 0 {
		return nil, errors.New("go.mod requires no module")
	}
	lines := map[string]string{}
	var errs []error
	for path, dir := range modules {
		if from := generatedFrom()[path]; from != "" {
			dir = from
		}
		line, err := licence(dir)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		}
		lines[path] = line
	}
	return lines, errors.Join(errs...)
}

// generatedFrom names the folders with the licences of protos of which a registry generates modules without any text.
func generatedFrom() map[string]string {
	const flagd = "third_party/proto/licences/flagd"
	return map[string]string{
		"buf.build/gen/go/open-feature/flagd/protocolbuffers/go": flagd, "buf.build/gen/go/open-feature/flagd/connectrpc/go": flagd,
	}
}

// required returns the folder of each module that go.mod names.
func required(ctx context.Context) (map[string]string, error) {
	text, err := exec.CommandContext(ctx, "go", "mod", "edit", "-json").Output()
	if err != nil {
		return nil, fmt.Errorf("go mod edit: %w", err)
	}
	var mod struct {
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal(text, &mod); err != nil {
		return nil, err
	}
	args := []string{"mod", "download", "-json"}
	for _, r := range mod.Require {
		args = append(args, r.Path+"@"+r.Version)
	}
	text, err = exec.CommandContext(ctx, "go", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("go mod download: %w", err)
	}
	dirs := map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var m struct{ Path, Dir string }
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			return dirs, nil
		} else if err != nil {
			return nil, err
		}
		dirs[m.Path] = m.Dir
	}
}

// licence returns "SPDX hash" for the texts in the top folder of a module.
func licence(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var ids []string
	hash := sha256.New()
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		if e.IsDir() || !strings.HasPrefix(name, "LICEN") && !strings.HasPrefix(name, "COPYING") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		hash.Write(text)
		ids = append(ids, classify(string(text))...)
	}
	if len(ids) == 0 {
		return "", errors.New("no licence that is known here")
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if slices.Contains(ids, refused) {
		return "", errors.New("a licence of the GNU family, which is not permitted")
	}
	return fmt.Sprintf("%s %x", strings.ReplaceAll(strings.Join(ids, " AND "), " ", "_"), hash.Sum(nil)), nil
}

// refused stands for licences that would bind our users.
const refused = "LicenseRef-GNU"

// classify returns the SPDX identifiers of the permitted licences whose words are in the text.
func classify(text string) []string {
	text = strings.ToLower(strings.Join(strings.Fields(text), " "))
	has := func(words string) bool { return strings.Contains(text, words) }
	var ids []string
	if has("apache license") && has("version 2.0") {
		ids = append(ids, "Apache-2.0")
	}
	if has("permission is hereby granted, free of charge, to any person obtaining a copy") {
		ids = append(ids, "MIT")
	}
	if has("permission to use, copy, modify, and distribute this software for any purpose with or without fee") ||
		has("permission to use, copy, modify, and/or distribute this software for any purpose with or without fee") {
		ids = append(ids, "ISC")
	}
	switch {
	case !has("redistribution and use in source and binary forms"):
	case has("neither the name") || has("neither name of") || has("the names of its contributors may not"):
		ids = append(ids, "BSD-3-Clause")
	default:
		ids = append(ids, "BSD-2-Clause")
	}
	switch {
	case has("mozilla public license version 2.0") || has("mozilla public license, version 2.0"):
		ids = append(ids, "MPL-2.0")
	case has("gnu general public license"), has("gnu lesser general public"), has("gnu affero general public"):
		ids = append(ids, refused)
	}
	return ids
}

// compare returns what differs between the record and what was found.
func compare(recorded, found map[string]string) error {
	var errs []error
	for _, path := range slices.Sorted(maps.Keys(found)) {
		switch line, ok := recorded[path]; {
		case !ok:
			errs = append(errs, fmt.Errorf("%s: %s has no line for it", path, record))
		case line != found[path]:
			errs = append(errs, fmt.Errorf("%s: its licence text changed: %s, recorded %s", path, found[path], line))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(recorded)) {
		if _, ok := found[path]; !ok {
			errs = append(errs, fmt.Errorf("%s: %s has a line for it, go.mod does not", path, record))
		}
	}
	if len(errs) > 0 {
		errs = append(errs, errors.New("look at the change, then run make licences"))
	}
	return errors.Join(errs...)
}

// parse reads the record into lines by module.
func parse(text string) map[string]string {
	lines := map[string]string{}
	for line := range strings.Lines(text) {
		if path, rest, ok := strings.Cut(strings.TrimSpace(line), " "); ok && path != "#" {
			lines[path] = rest
		}
	}
	return lines
}

// render is the inverse of parse.
func render(lines map[string]string) string {
	var b strings.Builder
	b.WriteString(header)
	for _, path := range slices.Sorted(maps.Keys(lines)) {
		fmt.Fprintf(&b, "%s %s\n", path, lines[path])
	}
	return b.String()
}
