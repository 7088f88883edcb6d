package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/sqlattack"
)

// attacksPage is what docs/isolation-attacks.md must be.
func attacksPage() string {
	var b strings.Builder
	b.WriteString(`# Attacks on isolation

<!-- Made of the attacks in the code. Write it anew with: go test ./test/docs -run TestAttacksPage -write -->

`)
	fmt.Fprintf(&b, "%d attacks by SQL, in %d families, run against each rung in each model of isolation, and beside it against\n",
		len(sqlattack.Attacks()), len(sqlattack.Families()))
	b.WriteString(`the recipes that everybody ships: L0, a setting that a policy trusts, and L1, the same behind a function and without
` + "`set_config`" + `. The attacker injects into a statement that goes through the SDK, or has stolen the password of the app's login,
with and without a fresh seal of its own tenant; or the app's own developers ship a careless migration. The victim's
statements ran on the same session just before, as behind a pooler.

` + "```" + `
ROWHOUSE_TEST_LONG=1 go test -v -run TestCorpus ./sdk/tenanttest/sqlattack     # side by side, every model
ROWHOUSE_TEST_LONG=1 go test -v -timeout 60m ./test/defects                    # each defence taken away
` + "```" + `

What counts as a success: bytes of the victim's come back (read), the session is in the victim's tenant (entered), its rows or
what guards them change (wrote), its session ends (stopped), or the attacker learns whether the victim has a value (told). On
our rungs an attack must be refused for the reason that was expected, or show nothing but the attacker's own; one that fails
for another reason shows nothing and fails the run.

PostgreSQL 15.18, attacks that succeed. On our rungs four more do and are accepted risks, for PostgreSQL has no right that could be
taken away: free-at-own-cost (in the SHARED model), explain-estimates, row-counts and lock-table. The
[threat model](threat-model.md) says what they gain.

| model | L0 | L1 | L2a | L2b |
|---|---|---|---|---|
| SHARED | 68 | 64 | 0 | 0 |
| SCHEMA | 53 | 54 | 0 | 0 |
| DATABASE | 50 | 51 | 0 | 0 |

Where no superuser prepared the database (managed PostgreSQL, rung L2a) PostgreSQL's own functions are anybody's. What they
show and stop then (texts of statements, locks, sessions, the order of a query's clauses) is reported as an accepted
risk, attack by attack; rows are not read there either.

[Decision 26](decisions/0026-policies-are-the-cheapest-clauses.md) says what an order of clauses can tell, and what is left of it.

## The attacks
`)
	for _, f := range sqlattack.Families() {
		fmt.Fprintf(&b, "\n### %s%s\n\n| attack | with | tries to | success would be |\n|---|---|---|---|\n", strings.ToUpper(string(f[:1])), f[1:])
		for _, a := range sqlattack.Attacks() {
			if a.Family == f {
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", a.ID, a.Vector, a.Tries, a.Success)
			}
		}
	}
	return b.String()
}

func TestAttacksPage(t *testing.T) {
	t.Parallel()
	file, want := filepath.Join(root, "docs/isolation-attacks.md"), attacksPage()
	if *write {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("docs/isolation-attacks.md is not what the code says (%v); run go test ./test/docs -run TestAttacksPage -write", err)
	}
}
