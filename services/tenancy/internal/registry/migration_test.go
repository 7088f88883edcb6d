package registry_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
)

// TestRegister says which of an app's migrations are new, and which are refused.
func TestRegister(t *testing.T) {
	t.Parallel()
	all := func(pairs ...string) (list []registry.Migration) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, registry.NewMigration(pairs[i], pairs[i+1]))
		}
		return list
	}
	many := make([]registry.Migration, registry.MaxMigrations)
	for i := range many {
		many[i] = registry.NewMigration(fmt.Sprintf("%04d_x", i), "SELECT 1")
	}
	long := []registry.Migration{{Version: "0001_a", Bytes: registry.MaxMigrationBytes - 7}}
	known := all("0001_a", "a", "0003_c", "c")
	for what, c := range map[string]struct {
		known, wanted []registry.Migration
		fresh, reason string
	}{
		"the same":         {known, known, "", ""},
		"a new one":        {known, all("0004_d", "d"), "0004_d", ""},
		"a gap":            {known, all("0003_c", "c", "0007_e", "e"), "0007_e", ""},
		"one number twice": {known, all("0003_d", "d"), "0003_d", ""},
		"into a gap":       {known, all("0002_b", "b"), "", registry.ReasonMigrationOutOfOrder},
		"another text":     {known, all("0001_a", "b"), "", registry.ReasonChecksumDrift},
		"in no order":      {known, all("0005_e", "e", "0004_d", "d"), "", fault.ReasonInvalidField},
		"a NUL byte":       {known, all("0004_d", "SELECT '\x00'"), "", fault.ReasonInvalidField},
		"as many as can":   {many[:len(many)-1], many[len(many)-1:], "0999_x", ""},
		"too many":         {many, all("1000_x", "SELECT 1"), "", registry.ReasonMigrationsTooMany},
		"many again":       {many, many[:1], "", ""},
		"as long as can":   {long, all("0002_b", "1234567"), "0002_b", ""},
		"too long":         {long, all("0002_b", "12345678"), "", registry.ReasonMigrationsTooMany},
	} {
		fresh, err := registry.Register(c.known, c.wanted)
		var versions []string
		for _, m := range fresh {
			versions = append(versions, m.Version)
		}
		if fault.ReasonOf(err) != c.reason || err == nil && strings.Join(versions, " ") != c.fresh {
			t.Errorf("%s: %v, %v", what, versions, err)
		}
	}
	_, err := registry.Register(known, all("0003_c", "c", "0004_d", "\x00"))
	if f, _ := fault.As(err); f == nil || len(f.Fields) != 1 || f.Fields[0].Field != "migrations[1].statements" {
		t.Errorf("a NUL byte: %v", err)
	}
}

func TestWithdraw(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ version, newest, reached, reason string }{
		{"0002_b", "0002_b", "", ""},
		{"0002_b", "0002_b", "0001_a", ""},
		{"0002_b", "0002_b", "0002_b", registry.ReasonMigrationInUse},
		{"0001_a", "0002_b", "", registry.ReasonMigrationOutOfOrder},
	} {
		if err := registry.Withdraw(c.version, c.newest, c.reached); fault.ReasonOf(err) != c.reason {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
