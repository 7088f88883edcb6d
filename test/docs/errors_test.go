package docs

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
)

var write = flag.Bool("write", false, "write docs/errors.md anew")

// reasonFiles are the protos with reasons, by the domain of the ErrorInfo.
var reasonFiles = []struct{ domain, file, about string }{
	{"rowhouse.api", "proto/rowhouse/api/v1/reason.proto", "Of every service, the SDK and the gateway."},
	{"rowhouse.tenancy", "proto/rowhouse/tenancy/v1/reason.proto", "Of tenants, domains, plans, apps, cells."},
	{"rowhouse.config", "proto/rowhouse/config/v1/reason.proto", "Of settings and their schemas."},
	{"rowhouse.quota", "proto/rowhouse/quota/v1/reason.proto", "Of quotas, reservations and usage."},
}

// reason is one value of a Reason enum.
type reason struct{ name, about string }

func reasonsOf(t *testing.T, file string) []reason {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	var out []reason
	for _, m := range regexp.MustCompile(`(?m)((?:^  //.*\n)+)^  REASON_(\w+) = [1-9]`).FindAllStringSubmatch(string(b), -1) {
		about := strings.Join(strings.Fields(strings.ReplaceAll(m[1], "//", "")), " ")
		out = append(out, reason{m[2], about})
	}
	return out
}

// status is the HTTP status that the SDK gives an error with this reason and the first code that it names.
func (r reason) status(t *testing.T) int {
	t.Helper()
	kinds := map[string]fault.Kind{
		"INVALID_ARGUMENT": fault.InvalidArgument, "UNAUTHENTICATED": fault.Unauthenticated, "PERMISSION_DENIED": fault.PermissionDenied,
		"NOT_FOUND": fault.NotFound, "ALREADY_EXISTS": fault.AlreadyExists, "FAILED_PRECONDITION": fault.FailedPrecondition,
		"ABORTED": fault.Aborted, "OUT_OF_RANGE": fault.OutOfRange, "RESOURCE_EXHAUSTED": fault.ResourceExhausted,
		"UNAVAILABLE": fault.Unavailable, "DEADLINE_EXCEEDED": fault.DeadlineExceeded, "UNIMPLEMENTED": fault.Unimplemented,
		"INTERNAL": fault.Internal, "At the edge": fault.PermissionDenied,
	}
	for code, kind := range kinds {
		if strings.HasPrefix(r.about, code) {
			return tenanthttp.Status(fault.New(kind, r.name, "x"))
		}
	}
	t.Fatalf("%s does not begin with a gRPC code: %s", r.name, r.about)
	return 0
}

// errorsPage is what docs/errors.md must be.
func errorsPage(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`# Errors

<!-- Made of the protos. Write it anew with: go test ./test/docs -run TestErrorsPage -write -->

Every error carries a google.rpc.ErrorInfo with a domain and a reason. Over HTTP they are members of a problem document
(RFC 9457). Reasons are stable: programs compare them. Messages are for people and may change.

The gRPC code of an error stands before the colon.
`)
	for _, f := range reasonFiles {
		fmt.Fprintf(&b, "\n## `%s`\n\n%s\n\n| reason | HTTP | when |\n|---|---|---|\n", f.domain, f.about)
		for _, r := range reasonsOf(t, f.file) {
			fmt.Fprintf(&b, "| `%s` | %d | %s |\n", r.name, r.status(t), r.about)
		}
	}
	return b.String()
}

func TestErrorsPage(t *testing.T) {
	t.Parallel()
	file, want := filepath.Join(root, "docs/errors.md"), errorsPage(t)
	if *write {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("docs/errors.md is not what the protos say (%v); run go test ./test/docs -run TestErrorsPage -write", err)
	}
}

// known are all reasons that are documented.
func known(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{"CROSS_SITE": true, "IMPORT_STARTED": true, "IMPORT_TOO_LARGE": true} // of the example app
	for _, f := range reasonFiles {
		found := reasonsOf(t, f.file)
		if len(found) == 0 {
			t.Fatalf("%s holds no reasons", f.file)
		}
		for _, r := range found {
			out[r.name] = true
		}
	}
	return out
}

// TestReasonsInCodeAreDocumented reads the reasons that code makes errors with.
func TestReasonsInCodeAreDocumented(t *testing.T) {
	t.Parallel()
	reasons, sent := known(t), map[string]string{}
	made := regexp.MustCompile(`(?:\b[Rr]eason[A-Z]\w*\s*=\s*|fault\.New\([\w.]+,\s*)"([A-Z][A-Z_]+)"`)
	for _, folder := range []string{"sdk", "internal", "services", "examples"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(file string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
				return err
			}
			b, err := os.ReadFile(file)
			for _, m := range made.FindAllStringSubmatch(string(b), -1) {
				sent[m[1]] = file
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, file := range sent {
		if !reasons[name] {
			t.Errorf("%s sends %s, which no proto documents", file, name)
		}
	}
	if len(sent) == 0 {
		t.Error("no code sends a reason")
	}
}

// TestReasonsInPagesExist reads the words in capitals that pages quote.
func TestReasonsInPagesExist(t *testing.T) {
	t.Parallel()
	other := map[string]bool{ // words in capitals that are no reasons
		"PARSE_ERROR": true, "INVALID_CONTEXT": true, "FLAG_NOT_FOUND": true, "GENERAL": true, "DEFAULT": true, // OpenFeature's
		"TARGETING_MATCH": true, "PERMISSION_DENIED": true, "NOT_FOUND": true, "DATA_LOSS": true, // and gRPC's
		"SESSION": true, "TRANSACTION": true, "SHARED": true, "SCHEMA": true, "DATABASE": true, "PENDING": true, "FAILED": true,
		"UNAVAILABLE": true, "RESOURCE_EXHAUSTED": true, "INVALID_ARGUMENT": true, "PLANE_PEER": true, "PLANE_DATA": true,
		"NEEDS_ATTENTION": true, "AUDIT_CLASS_NONE": true, "BEGIN": true, "EXECUTE": true, "PUBLIC": true, "CHECKPOINT": true,
		"DISABLED": true, "STALE": true, "ERROR": true, "TYPE_MISMATCH": true, // OpenFeature's
		"DRAFT": true, "SUBMITTED": true, "APPROVED": true, "SCHEDULED": true, "LIVE": true, "REJECTED": true, "HALTED": true,
		"CANCELLED": true,                                                                    // of changes
		"GONE":      true, "PRIVATE_ADDRESS": true, "TIMEOUT": true, "BAD_CERTIFICATE": true, // of deliveries of webhooks
		"QUARANTINE": true, "CRASH": true, "SILENCE": true, "ERRORS": true, "LATENCY": true, "OPERATOR": true, "CONFLICT": true, // of halts
		"COUNTED": true, "DUPLICATE": true, "EVENT_TOO_OLD": true, "EVENT_IN_FUTURE": true, "EVENT_ID_REUSED": true, // of events
		"UNKNOWN_METER": true, "TOO_MANY_SERIES": true, "INVALID_EVENT": true,
	}
	for _, word := range []string{"DEAD", "JOB"} { // of jobs
		other[word] = true
	}
	for _, word := range []string{ // of quotas, entitlements, limits and jobs
		"NONE", "MONTH", "DENY", "ALLOW_AND_BILL", "GRACE", "THROTTLE", "REFUSE", "CHARGE", "KEEP_USED", "RESET", "PRORATE",
		"BOOLEAN", "STATIC", "METERED", "WINDOW",
	} {
		other[word] = true
	}
	reasons, seen := known(t), 0
	for _, p := range pages(t) {
		for _, m := range regexp.MustCompile("`([A-Z][A-Z_]{3,})`").FindAllStringSubmatch(p.prose(), -1) {
			if other[m[1]] || strings.HasPrefix(m[1], "OTEL_") || strings.HasPrefix(m[1], "ROWHOUSE_") {
				continue
			}
			seen++
			if !reasons[m[1]] {
				t.Errorf("%s names %s, which is no reason", p.path, m[1])
			}
		}
	}
	if seen == 0 {
		t.Error("no page names a reason")
	}
}
