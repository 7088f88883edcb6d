package change_test

import (
	"testing"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rowhouse-platform/rowhouse/internal/change/changetest"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
)

const denied = "42501"

// TestServiceRoleMayDoOnlyWhatItNeeds tries what a stolen connection of the service would try.
func TestServiceRoleMayDoOnlyWhatItNeeds(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if _, err := f.insert(changetest.Call(t.Context(), wrapperspb.String("a"), uuid.NewString()), "a"); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		`UPDATE audit.event SET event = ''`, `DELETE FROM audit.event`, `TRUNCATE audit.event`,
		`INSERT INTO audit.event VALUES ('x', 1, '', sha256(''))`, `UPDATE audit.head SET seq = 0`,
		`DELETE FROM audit.head`, `INSERT INTO audit.head VALUES ('x', 1, sha256(''))`, `TRUNCATE audit.head`,
		`UPDATE kernel.change_log SET value = ''`, `DELETE FROM kernel.change_log`, `INSERT INTO kernel.change_log VALUES ('f', 1, 'k', '')`,
		`UPDATE kernel.revision_head SET revision = 0`, `UPDATE kernel.feed_state SET value = ''`, `DELETE FROM kernel.feed_state`,
		`UPDATE kernel.feed_head SET revision = 0`, `UPDATE kernel.change_floor SET revision = 0`, `UPDATE kernel.page_key SET key = sha256('')`,
		`UPDATE kernel.request_log SET caller = 'x'`, `UPDATE kernel.operations SET target = 'x'`,
		`CREATE TABLE kernel.mine ()`, `CREATE TABLE public.mine ()`, `CREATE SCHEMA mine`, `CREATE TEMP TABLE mine ()`,
		`ALTER TABLE audit.event DISABLE TRIGGER ALL`, `SET ROLE ` + f.Name + `_owner`,
	} {
		if _, err := f.Pool.Exec(t.Context(), sql); pg.Code(err) != denied {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// TestNobodyRewritesAudit tries as the owner, and as the superuser that every role is bound by triggers with.
func TestNobodyRewritesAudit(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if _, err := f.insert(changetest.Call(t.Context(), wrapperspb.String("a"), ""), "a"); err != nil {
		t.Fatal(err)
	}
	owner := f.Connect(t, "")
	for _, role := range []string{f.Name + "_owner", "postgres"} {
		for _, sql := range []string{
			`UPDATE audit.event SET event = ''`, `DELETE FROM audit.event`, `TRUNCATE audit.event`,
			`DELETE FROM audit.head`, `TRUNCATE audit.head`,
		} {
			_, err := owner.Exec(t.Context(), `SET ROLE `+role+`; `+sql+`; RESET ROLE`)
			if pg.Code(err) != denied {
				t.Errorf("%s as %s: %v", sql, role, err)
			}
		}
	}
	if n := f.count(t, `SELECT count(*) FROM audit.event`); n != 1 {
		t.Errorf("%d events", n)
	}
}

// TestOnlyTheRelayNotifies holds that nothing in the database wakes watchers: NOTIFY in a transaction that writes
// serializes the commits of the whole cluster.
func TestOnlyTheRelayNotifies(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const sql = `SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
		WHERE n.nspname IN ('kernel', 'audit', 'public') AND p.prosrc ~* '\m(pg_)?notify\M'`
	if n := f.count(t, sql); n != 0 {
		t.Errorf("%d functions notify", n)
	}
	if n := f.count(t, `SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
		WHERE n.nspname IN ('kernel', 'audit') AND p.prosecdef
		AND NOT coalesce(p.proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)`); n != 0 {
		t.Errorf("%d functions with the owner's rights do not pin their search path", n)
	}
}
