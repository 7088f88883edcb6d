package system

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/jackc/pgx/v5"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// The sample tenants live in three models, each where its plan says.
func TestSamplesLiveInThreeModels(t *testing.T) {
	t.Parallel()
	h := shared(t)
	for id, model := range map[string]tenancyv1.IsolationModel{"globex": inShared, "acme": inSchema, "initech": inDatabase} {
		l := h.lodging(t, id)
		if own := l.schema == "t_"+strings.ReplaceAll(l.uid, "-", ""); own != (model == inSchema) {
			t.Errorf("%s: %+v", id, l)
		}
		if own := l.database == app+"_"+strings.ReplaceAll(l.uid, "-", ""); own != (model == inDatabase) {
			t.Errorf("%s: %+v", id, l)
		}
		var own, foreign int
		err := h.superuser(t, l.database).QueryRow(t.Context(), "SELECT count(*) FILTER (WHERE tenant_id = $1::text::uuid), count(*) FILTER (WHERE tenant_id <> $1::text::uuid) FROM "+
			l.schema+".note", l.uid).Scan(&own, &foreign)
		if err != nil || own == 0 || model != inShared && foreign != 0 {
			t.Errorf("%s: %d rows of its own and %d of others at %+v: %v", id, own, foreign, l, err)
		}
	}
}

// Tenancy is killed in the middle of creations. The one that comes back goes on with them, and nothing is left twice.
func TestCreationSurvivesACrash(t *testing.T) {
	t.Parallel()
	h := start(t, plan{})
	block := func(database, table string) (release func()) {
		t.Helper()
		conn := h.superuser(t, database)
		tx, err := conn.Begin(t.Context())
		if err == nil {
			_, err = tx.Exec(t.Context(), "LOCK TABLE "+table+" IN SHARE ROW EXCLUSIVE MODE")
		}
		if err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := tx.Rollback(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	begun := map[string]*longrunningpb.Operation{}
	hosts := map[string]string{}
	migrations, roles := block(app, "rowhouse.migration"), block("postgres", "pg_catalog.pg_authid")
	hosts["cut-schema"], begun["cut-schema"] = h.begin(t, "cut-schema", inSchema)
	hosts["cut-database"], begun["cut-database"] = h.begin(t, "cut-database", inDatabase)
	admin := h.superuser(t, app)
	eventually(t, settle, func() error {
		var waiting []string
		err := admin.QueryRow(t.Context(), `SELECT ARRAY(SELECT datname::text FROM pg_stat_activity
			WHERE application_name = 'rowhouse-tenancy' AND wait_event_type = 'Lock')`).Scan(&waiting)
		if err == nil && len(waiting) < 2 {
			err = fmt.Errorf("only %v wait", waiting)
		}
		return err
	})
	h.kill(t, "tenancy")
	migrations()
	roles()
	h.bringBack(t, "tenancy", filepath.Join(h.bin, "rowhouse"), "serve", "tenancy")
	for id, o := range begun {
		h.wait(t, o)
		h.served(t, hosts[id])
		h.write(t, hosts[id], "after the crash")
	}
	schema, database := h.lodging(t, "cut-schema"), h.lodging(t, "cut-database")
	rows, err := admin.Query(t.Context(), `SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^t_' UNION ALL
		SELECT datname::text FROM pg_database WHERE datname ~ '^notes_[0-9a-f]{32}$' ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	homes, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if len(homes) != 4 || !strings.Contains(strings.Join(homes, " "), schema.schema) || !strings.Contains(strings.Join(homes, " "), database.database) {
		t.Errorf("beside those of the samples there are to be %s and %s: %v", schema.schema, database.database, homes)
	}
}
