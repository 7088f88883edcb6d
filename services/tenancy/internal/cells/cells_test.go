package cells_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/cells"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

// TestCredentialsStayInTheirFolder holds that a reference leads to no file elsewhere, and that no error holds what a
// file says.
func TestCredentialsStayInTheirFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	folder := filepath.Join(dir, "cells")
	for path, content := range map[string]string{
		"outside": "postgres://u:hunter2@127.0.0.1:1/x", "cells/bad": "postgres://u:hunter2@[:bad", "cells/away": "postgres://u:hunter2@127.0.0.1:1/x",
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../outside", filepath.Join(folder, "link")); err != nil {
		t.Fatal(err)
	}
	databases, err := cells.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer databases.Close()
	for ref, want := range map[string]string{
		"secret://file/none": "credentials", "secret://file/..": "", "secret://file/../outside": "credentials_ref",
		"secret://file/link": "credentials", "secret://file/": "credentials_ref", "postgres://u:hunter2@h/d": "credentials_ref",
		"secret://file/bad": "cannot be parsed", "secret://file/away": "127.0.0.1",
	} {
		err := databases.Place(t.Context(), store.Debt{CredentialsRef: ref, App: "notes", Generation: 1, Revision: 1})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if _, err := cells.Open(filepath.Join(dir, "none")); err == nil {
		t.Error("a folder that is not there was opened")
	}
}
