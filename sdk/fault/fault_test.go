package fault_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

func Example() {
	err := fmt.Errorf("rename tenant: %w",
		fault.New(fault.Aborted, fault.ReasonEtagMismatch, "tenants/%s was changed meanwhile", "acme"))
	fmt.Println(err)
	fmt.Println(fault.KindOf(err), fault.ReasonOf(err))
	// Output:
	// rename tenant: ETAG_MISMATCH: tenants/acme was changed meanwhile
	// ABORTED ETAG_MISMATCH
}

func TestNewWrapsAndFormats(t *testing.T) {
	t.Parallel()
	plain := fault.New(fault.NotFound, "R", "all of it, 100%%, gone")
	if plain.Message != "all of it, 100%, gone" || plain.Domain != fault.DefaultDomain || plain.Unwrap() != nil {
		t.Errorf("plain = %+v", plain)
	}
	wrapped := fault.New(fault.Internal, "R", "read %q: %w", "x", io.EOF)
	if !errors.Is(wrapped, io.EOF) || wrapped.Message != `read "x": EOF` {
		t.Errorf("wrapped = %v", wrapped)
	}
	if got := wrapped.Error(); strings.Count(got, "EOF") != 1 {
		t.Errorf("Error() = %q, the cause should be told once", got)
	}
	hidden := fault.New(fault.Internal, "R", "failed").WithCause(io.EOF)
	if !errors.Is(hidden, io.EOF) || strings.Contains(hidden.Message, "EOF") {
		t.Errorf("hidden = %v, message %q", hidden, hidden.Message)
	}
}

func TestWithReturnsCopies(t *testing.T) {
	t.Parallel()
	base := fault.New(fault.InvalidArgument, "R", "bad").WithMetadata("a", "1").
		WithField(fault.FieldViolation{Field: "f"}).WithQuota(fault.QuotaViolation{ID: "q"})
	changed := base.WithMetadata("a", "2").WithField(fault.FieldViolation{Field: "g"}).
		WithQuota(fault.QuotaViolation{ID: "r"}).WithRetry(time.Second).WithDomain("d")
	if base.Metadata["a"] != "1" || len(base.Fields) != 1 || len(base.Quotas) != 1 || base.RetryAfter != 0 ||
		base.Domain != fault.DefaultDomain {
		t.Errorf("base was changed: %+v", base)
	}
	want := []fault.FieldViolation{{Field: "f"}, {Field: "g"}}
	if diff := cmp.Diff(want, changed.Fields); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	if changed.Metadata["a"] != "2" || changed.RetryAfter != time.Second || changed.Domain != "d" {
		t.Errorf("changed = %+v", changed)
	}
}

func TestIsComparesIdentityOnly(t *testing.T) {
	t.Parallel()
	a := fault.New(fault.NotFound, "R", "one")
	if !errors.Is(fmt.Errorf("x: %w", a), fault.New(fault.NotFound, "R", "two").WithMetadata("k", "v")) {
		t.Error("same kind, domain and reason should match")
	}
	for _, other := range []*fault.Error{
		fault.New(fault.Aborted, "R", "one"), fault.New(fault.NotFound, "S", "one"), a.WithDomain("d"),
	} {
		if errors.Is(a, other) {
			t.Errorf("%v should not match %v", a, other)
		}
	}
}

func TestKindOf(t *testing.T) {
	t.Parallel()
	if fault.KindOf(nil) != 0 || fault.KindOf(io.EOF) != fault.Internal || fault.ReasonOf(io.EOF) != "" {
		t.Error("nil has no kind, foreign errors are internal and have no reason")
	}
	for k := fault.InvalidArgument; k <= fault.Internal; k++ {
		if strings.HasPrefix(k.String(), "KIND_") || k.String() == "" {
			t.Errorf("kind %d has no name", k)
		}
	}
	if got := (fault.Internal + 1).String(); got != "KIND_14" {
		t.Errorf("unknown kind = %q", got)
	}
}
