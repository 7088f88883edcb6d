package tenant_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/uuid"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

func TestParseID(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 63)
	for _, good := range []string{"abc", "a-b", "acme", "a1-2-3", "x99", long} {
		if id, err := tenant.ParseID(good); err != nil || id.String() != good || id.IsZero() {
			t.Errorf("%q: %v, %v", good, id, err)
		}
	}
	for _, bad := range []string{
		"", "a", "ab", long + "a", "Acme", "1ab", "-ab", "ab-", "a--b", "xn--abc", "a_b", "a.b", "a b", "acmé", "abc\n", "a\x00b",
	} {
		id, err := tenant.ParseID(bad)
		if fault.ReasonOf(err) != fault.ReasonInvalidField || !id.IsZero() {
			t.Errorf("%q: %v, %v", bad, id, err)
		}
	}
}

func TestParseUID(t *testing.T) {
	t.Parallel()
	const text = "01890a5d-ac96-774b-bcce-b302099a8057"
	uid, err := tenant.ParseUID(text)
	if err != nil || uid.String() != text || uid.IsZero() {
		t.Errorf("%v, %v", uid, err)
	}
	for _, bad := range []string{
		"", strings.ToUpper(text), strings.ReplaceAll(text, "-", ""), "{" + text + "}", "urn:uuid:" + text, text + " ",
		"01890a5d-ac96-474b-bcce-b302099a8057", "01890a5d-ac96-774b-ccce-b302099a8057",
		"00000000-0000-0000-0000-000000000000", "0189-a5dac96-774b-bcce-b302099a80577", "g1890a5d-ac96-774b-bcce-b302099a8057",
	} {
		if uid, err := tenant.ParseUID(bad); fault.ReasonOf(err) != fault.ReasonInvalidField || !uid.IsZero() {
			t.Errorf("%q: %v, %v", bad, uid, err)
		}
	}
}

func TestNewUID(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_800_000_000_123)
	uid, err := tenant.NewUID(now, bytes.NewReader(bytes.Repeat([]byte{0xff}, 10)))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := uid.String(), "01a3185c-507b-7fff-bfff-ffffffffffff"; got != want {
		t.Errorf("uid = %s, want %s", got, want)
	}
	parsed, err := uuid.Parse(uid.String())
	if err != nil || parsed.Version() != 7 || parsed.Variant() != uuid.RFC4122 {
		t.Errorf("others read version %v, variant %v, %v", parsed.Version(), parsed.Variant(), err)
	}
	broken := errors.New("no entropy")
	if _, err := tenant.NewUID(now, iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("without randomness: %v", err)
	}
	if _, err := tenant.NewUID(time.UnixMilli(-1), bytes.NewReader(make([]byte, 10))); err == nil {
		t.Error("a uid from before 1970")
	}
}

func TestAudienceApp(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]tenant.Audience{-1: 0, 0: 0, 15: 0, 16: 1 << 16, 63: 1 << 63, 64: 0} {
		if got := tenant.AudienceApp(n); got != want {
			t.Errorf("app %d has the audience %#x, want %#x", n, got, want)
		}
	}
}

func TestEnumNames(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		tenant.ModelDatabase.String(): "DATABASE", tenant.PrincipalAPIKey.String(): "API_KEY",
		tenant.ClassTransaction.String(): "TRANSACTION", tenant.StateDeleted.String(): "DELETED",
		tenant.Model(0).String(): "UNKNOWN_0", tenant.Class(9).String(): "UNKNOWN_9",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
