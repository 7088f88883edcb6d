package docs

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// runWithin bounds one page.
const runWithin = 2 * time.Minute

// TestPagesRun runs what pages tell readers to type, page after page in one house.
func TestPagesRun(t *testing.T) {
	t.Parallel()
	var run []page
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.runs && b.lang == "sh" {
				run = append(run, p)
				break
			}
		}
	}
	const fewest = 3 // README and two guides
	if len(run) < fewest {
		t.Fatalf("%d pages are run, want at least %d", len(run), fewest)
	}
	h := start(t)
	for _, p := range run {
		t.Run(p.path, func(t *testing.T) { h.run(t, p) }) //nolint:paralleltest // they share the house
	}
	t.Run("banner", h.runBanner)                 //nolint:paralleltest // it shares the house
	t.Run("ops ports", h.askOps)                 //nolint:paralleltest // as above
	t.Run("examples of the help", h.runExamples) //nolint:paralleltest // the last: they close cells and delete tenants
}

// runBanner types what rowhouse dev says to try, in some folder and with nothing of ours on the PATH.
func (h *house) runBanner(t *testing.T) {
	t.Helper()
	var script strings.Builder
	script.WriteString("set -e -x\n")
	var grpcurl []string
	typed := 0
	for line := range strings.Lines(h.said) {
		line, ok := strings.CutPrefix(line, "  ")
		command, _, _ := strings.Cut(line, " ")
		switch {
		case !ok:
			continue
		case command == "grpcurl":
			grpcurl = strings.Fields(line)
			continue
		case command == "curl": // with a status that a shell sees
			line = strings.Replace(line, "curl -s", "curl -sS --fail", 1)
		case command != "export" && filepath.Base(command) != "rowhouse":
			continue // a step of the start, or a page to open
		}
		typed++
		script.WriteString(line)
	}
	const fewest = 8
	if typed < fewest {
		t.Fatalf("only %d commands were found in:\n%s", typed, h.said)
	}
	likeGrpcurl(t, grpcurl)
	ctx, cancel := context.WithTimeout(t.Context(), runWithin)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-c", script.String())
	shell.Dir, shell.Env = t.TempDir(), append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
	for _, want := range []string{"Order more dynamite", "World domination", "TPS reports", "acme\tAcme Rockets", "TenantService/ListTenants"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
}

// likeGrpcurl makes the call that a line of grpcurl's would, from that line alone.
func likeGrpcurl(t *testing.T, line []string) {
	t.Helper()
	flags := flag.NewFlagSet("grpcurl", flag.ContinueOnError)
	plain, authority, protoset := flags.Bool("plaintext", false, ""), flags.String("authority", "", ""), flags.String("protoset", "", "")
	if len(line) == 0 || flags.Parse(line[1:]) != nil || !*plain || flags.NArg() != 2 {
		t.Fatalf("the line cannot be read: %q", line)
	}
	b, err := os.ReadFile(*protoset)
	set := new(descriptorpb.FileDescriptorSet)
	if err := errors.Join(err, proto.Unmarshal(b, set)); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	service, name, _ := strings.Cut(flags.Arg(1), "/")
	found, err := files.FindDescriptorByName(protoreflect.FullName(service + "." + name))
	if err != nil {
		t.Fatal(err)
	}
	method, ok := found.(protoreflect.MethodDescriptor)
	if !ok {
		t.Fatalf("%s is no method", found.FullName())
	}
	conn, err := grpc.NewClient(flags.Arg(0), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(*authority))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	answer := dynamicpb.NewMessage(method.Output())
	if err := conn.Invoke(t.Context(), "/"+flags.Arg(1), dynamicpb.NewMessage(method.Input()), answer); err != nil {
		t.Fatal(err)
	}
	if text := answer.String(); !strings.Contains(text, "Order more dynamite") {
		t.Errorf("grpcurl gets %s", text)
	}
}

// run runs the blocks of a page.
func (h *house) run(t *testing.T, p page) {
	t.Helper()
	work, outputs := h.folder(t, p), t.TempDir()
	var script strings.Builder
	script.WriteString("set -e -o pipefail\n")
	var said []block // the sh blocks, in order
	for _, b := range p.blocks {
		switch {
		case !b.runs || b.lang == "text":
		case b.lang == "sh":
			out := filepath.Join(outputs, strconv.Itoa(len(said)))
			fmt.Fprintf(&script, "{\n%s} > %s 2>&1\n: > %s.ok\n", h.here(b.text), out, out)
			said = append(said, b)
		case b.file != "":
			fmt.Fprintf(&script, "mkdir -p \"$(dirname %[1]s)\"\ncat > %[1]s <<'END OF %[1]s'\n%[2]sEND OF %[1]s\n", b.file, h.here(b.text))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), runWithin)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-c", script.String())
	shell.Dir, shell.Env = work, h.environment(t)
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	defer func() { // what the page left running
		if shell.Process != nil {
			_ = syscall.Kill(-shell.Process.Pid, syscall.SIGKILL)
		}
	}()
	err := shell.Run()
	h.compare(t, p, said, outputs)
	if err != nil && !t.Failed() {
		t.Errorf("the shell: %v", err)
	}
	if t.Failed() {
		showLogs(t, work)
	}
}

// showLogs shows what processes of the page said aside.
func showLogs(t *testing.T, work string) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(work, "*", "*.log"))
	if err != nil {
		t.Error(err)
	}
	for _, log := range logs {
		b, _ := os.ReadFile(log)
		t.Logf("%s:\n%s", filepath.Base(log), b)
	}
}

// compare looks at what each block said.
func (h *house) compare(t *testing.T, p page, said []block, outputs string) {
	t.Helper()
	for i, b := range said {
		out := filepath.Join(outputs, strconv.Itoa(i))
		got, err := os.ReadFile(out)
		if err != nil {
			t.Errorf("%s:%d did not run", p.path, b.line)
			return
		}
		if _, err := os.Stat(out + ".ok"); err != nil {
			t.Errorf("%s:%d failed:\n%s\nit said:\n%s", p.path, b.line, b.text, got)
			return
		}
		if want, ok := p.after(b); ok && !matches(h.here(want), string(got)) {
			t.Errorf("%s:%d said:\n%s\nwant:\n%s", p.path, b.line, got, want)
		}
	}
}

// after returns the output that a page promises for a block.
func (p page) after(b block) (string, bool) {
	for i, other := range p.blocks {
		if other.line == b.line && i+1 < len(p.blocks) && p.blocks[i+1].lang == "text" {
			return p.blocks[i+1].text, true
		}
	}
	return "", false
}

// matches compares an output with what a page shows: "…" is anything, blanks do not count.
func matches(want, got string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(squeeze(want)), "…", "(?s:.*)")
	return regexp.MustCompile(`\A` + pattern + `\z`).MatchString(squeeze(got))
}

// squeeze takes out what differs from run to run without meaning: blanks between words, and those that protojson puts
// between values or not.
func squeeze(s string) string {
	s = strings.NewReplacer(`, "`, `,"`, `": `, `":`).Replace(s)
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	return strings.ReplaceAll(strings.Join(lines, "\n"), "…\n", "…")
}

func TestMatches(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		want, got string
		ok        bool
	}{
		{"a b\n", "a   b", true},
		{"a b\n", "a c", false},
		{"a\n…\nz\n", "a\n1\n2\nz\n", true},
		{"…\nz\n", "z\n", true},
		{`{"a":1,…}`, `{"a": 1, "b":2}`, true},
		{"a.c", "abc", false},
		{"a", "a\nb", false},
	} {
		if matches(tc.want, tc.got) != tc.ok {
			t.Errorf("matches(%q, %q) is not %v", tc.want, tc.got, tc.ok)
		}
	}
}
