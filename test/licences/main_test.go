package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLicence(t *testing.T) {
	t.Parallel()
	const (
		mit  = "Permission is hereby granted, free of charge, to any\n person obtaining a copy"
		bsd2 = "Redistribution and use in source and\nbinary forms, with or without"
		bsd3 = bsd2 + " … Neither the name of the holder"
		mpl  = "Mozilla Public License Version 2.0 … GNU General Public License, Version 2.0"
	)
	tests := map[string]struct {
		files map[string]string
		want  string // "" where the module is refused
	}{
		"mit":            {map[string]string{"LICENSE": mit}, "MIT"},
		"bsd 2":          {map[string]string{"LICENCE.md": bsd2}, "BSD-2-Clause"},
		"bsd 3":          {map[string]string{"license.txt": bsd3}, "BSD-3-Clause"},
		"mpl names gpl":  {map[string]string{"LICENSE": mpl}, "MPL-2.0"},
		"two files":      {map[string]string{"LICENSE-MIT": mit, "LICENSE-BSD": bsd3}, "BSD-3-Clause_AND_MIT"},
		"gpl":            {map[string]string{"COPYING": "GNU GENERAL PUBLIC LICENSE"}, ""},
		"gpl beside mit": {map[string]string{"LICENSE": mit, "COPYING": "GNU Affero General Public License"}, ""},
		"own words":      {map[string]string{"LICENSE": "do no evil"}, ""},
		"none":           {map[string]string{"README": mit}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for file, text := range test.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			line, err := licence(dir)
			if (err != nil) != (test.want == "") {
				t.Fatalf("licence = %q, %v; want %q", line, err, test.want)
			}
			if id, _, _ := strings.Cut(line, " "); id != test.want {
				t.Errorf("licence = %q, want %q", id, test.want)
			}
		})
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	found := map[string]string{"a": "MIT 1", "b": "MIT 2"}
	if err := compare(parse(render(found)), found); err != nil {
		t.Errorf("what was written differs from what was found: %v", err)
	}
	err := compare(map[string]string{"b": "MIT 3", "c": "MIT 4"}, found)
	if err == nil {
		t.Fatal("three differences were not seen")
	}
	want := []string{
		"a: tools/licences.txt has no line for it",
		"b: its licence text changed: MIT 2, recorded MIT 3",
		"c: tools/licences.txt has a line for it, go.mod does not",
		"look at the change, then run make licences",
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Error(diff)
	}
}
