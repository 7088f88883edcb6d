package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestReproducible builds an image in two checkouts and looks for one differing byte in all that is written.
func TestReproducible(t *testing.T) {
	t.Parallel()
	var digests []string
	var written []map[string]string
	root := filepath.Join("..", "..")
	for range 2 {
		root = checkout(t, root) // of the first copy the second time: the original may be edited meanwhile
		o := options{root: root, out: filepath.Join(t.TempDir(), "dist"), arches: []string{runtime.GOARCH}, images: images()[:1], version: "v1.2.3"}
		var said bytes.Buffer
		if err := run(t.Context(), &said, o); err != nil {
			t.Fatal(err)
		}
		digests, written = append(digests, said.String()), append(written, sums(t, o.out))
	}
	if digests[0] != digests[1] {
		t.Errorf("the digests differ: %q, %q", digests[0], digests[1])
	}
	if len(written[0]) < 5 {
		t.Errorf("only %d files were written", len(written[0]))
	}
	for path, sum := range written[0] {
		if written[1][path] != sum {
			t.Errorf("%s differs", path)
		}
	}
}

// TestVersion asks a binary which build it is.
func TestVersion(t *testing.T) {
	t.Parallel()
	o := options{root: filepath.Join("..", ".."), version: "v1.2.3-4-gabcdef0"}
	b, err := compile(t.Context(), o, images()[0], runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "rowhouse")
	if err := os.WriteFile(binary, b, 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), binary, "version").CombinedOutput()
	if want := "rowhouse " + o.version + " "; err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("it says %q, %v; want %q", out, err, want)
	}
	o.version = "v1 -X main.x=y"
	if _, err := compile(t.Context(), o, images()[0], runtime.GOARCH); err == nil {
		t.Error("a version of several words reached the linker")
	}
}

// checkout copies the sources to a folder of its own, so that a path that leaks into the binary differs.
func checkout(t *testing.T, source string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range []string{"cmd", "examples", "gen", "internal", "sdk", "services", "go.mod", "go.sum", "LICENSE"} {
		from, to := filepath.Join(source, name), filepath.Join(root, name)
		info, err := os.Stat(from)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			err = os.CopyFS(to, os.DirFS(from))
		} else {
			err = copyFile(to, from)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// sums returns the hash of each file below dir.
func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, path))
		const most = 40 << 20
		if len(b) > most {
			t.Errorf("%s has %d bytes, more than 40 MB", path, len(b))
		}
		found[path] = fmt.Sprintf("%x", sha256.Sum256(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestArchive shows that neither order nor time reaches the tar.
func TestArchive(t *testing.T) {
	t.Parallel()
	a := file{"b/c", 0o644, []byte("one")}
	b := file{"a", 0o755, []byte("two")}
	first, err := archive([]file{a, b})
	if err != nil {
		t.Fatal(err)
	}
	second, err := archive([]file{b, a})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("the order of the files changes the archive")
	}
	var names []string
	for r := tar.NewReader(bytes.NewReader(first)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, fmt.Sprintf("%s %o", header.Name, header.Mode))
		if !header.ModTime.Equal(time.Unix(0, 0)) || header.Uid != 0 || header.Gid != 0 || header.Uname != "" {
			t.Errorf("%s tells when or by whom: %+v", header.Name, header)
		}
	}
	if got, want := fmt.Sprint(names), "[a 755 b/ 755 b/c 644]"; got != want {
		t.Errorf("entries %s, want %s", got, want)
	}
}

// TestAuthorities reads the bundle as Go would.
func TestAuthorities(t *testing.T) {
	t.Parallel()
	n := 0
	for block, rest := pem.Decode(authorities()); block != nil; block, rest = pem.Decode(rest) {
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			t.Error(err)
		}
		n++
	}
	if n < 50 {
		t.Errorf("%d authorities; there should be more than 50", n)
	}
}

// TestNotice reads what is linked into this very test, which is other people's code, too.
func TestNotice(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	text, err := notice(t.Context(), ".", binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		noticeHead, "=== The Go standard library, go1.", "Copyright 2009 The Go Authors", "=== github.com/google/go-containerregistry v",
		"Apache License", "=== golang.org/x/crypto",
	} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("it does not hold %q", want)
		}
	}
	if _, err := notice(t.Context(), ".", []byte("no binary")); err == nil {
		t.Error("what is no binary has a notice")
	}
}

// TestLicenceTexts shows that a module without a licence stops a release, and that one with a notice keeps it.
func TestLicenceTexts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("NOTICE.txt", "made by x")
	if text, err := licenceTexts(dir); err == nil {
		t.Errorf("a module without a licence has the texts %q", text)
	}
	write("LICENSE.md", "do as you like")
	if text, err := licenceTexts(dir); err != nil || string(text) != "do as you like\n\nmade by x\n\n" {
		t.Errorf("the texts are %q, %v", text, err)
	}
}
