package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// noticeHead is where the file begins that goes with others' code.
const noticeHead = "This image holds code of others. Their licences and notices follow, module by module.\n"

// notice returns the licence texts of all modules that are linked into a binary, and of Go's own library. dir is a folder of
// the module that the binary was built from. A module without a text is an error: we may not pass on its code.
func notice(ctx context.Context, dir string, binary []byte) ([]byte, error) {
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return nil, fmt.Errorf("read what is linked: %w", err)
	}
	goroot, err := output(ctx, dir, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	texts, err := licenceTexts(strings.TrimSpace(string(goroot)))
	if err != nil {
		return nil, fmt.Errorf("Go's own library: %w", err)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s\n=== The Go standard library, %s ===\n\n%s", noticeHead, info.GoVersion, texts)
	args := []string{"mod", "download", "-json"}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		args = append(args, m.Path+"@"+m.Version)
	}
	if len(args) == 3 {
		return nil, errors.New("no module is linked: the binary does not say what it is made of")
	}
	listed, err := output(ctx, dir, args...)
	if err != nil {
		return nil, err
	}
	for d := json.NewDecoder(bytes.NewReader(listed)); ; {
		var m struct{ Path, Version, Dir string }
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			return out.Bytes(), nil
		} else if err != nil {
			return nil, err
		}
		texts, err := licenceTexts(m.Dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Path, err)
		}
		fmt.Fprintf(&out, "\n=== %s %s ===\n\n%s", m.Path, m.Version, texts)
	}
}

// licenceTexts returns what the files in a module's top folder say about its licence, in the order of their names.
func licenceTexts(dir string) ([]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	licensed := false
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		licence := strings.HasPrefix(name, "LICEN") || strings.HasPrefix(name, "COPYING")
		if e.IsDir() || !licence && !strings.HasPrefix(name, "NOTICE") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		licensed = licensed || licence
		out.Write(bytes.TrimSpace(text))
		out.WriteString("\n\n")
	}
	if !licensed {
		return nil, errors.New("no licence text")
	}
	return out.Bytes(), nil
}

// output runs the go command in a folder.
func output(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stderr = &said
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, said.Bytes())
	}
	return text, nil
}
