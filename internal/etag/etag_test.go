package etag_test

import (
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

func TestEtag(t *testing.T) {
	t.Parallel()
	a1, a2, b1 := etag.Of("a", 1), etag.Of("a", 2), etag.Of("b", 1)
	if a1 == a2 || a1 == b1 || a1 != etag.Of("a", 1) {
		t.Errorf("%s %s %s", a1, a2, b1)
	}
	if len(a1) != 18 || a1[0] != '"' || a1[17] != '"' {
		t.Errorf("%s is not quoted", a1)
	}
	if err := etag.Check("", a1); err != nil {
		t.Error(err)
	}
	if err := etag.Check(a1, a1); err != nil {
		t.Error(err)
	}
	for _, given := range []string{a2, b1, "*", a1[1:17], "W/" + a1} {
		if err := etag.Check(given, a1); fault.ReasonOf(err) != fault.ReasonEtagMismatch || fault.KindOf(err) != fault.Aborted {
			t.Errorf("%s: %v", given, err)
		}
	}
}
