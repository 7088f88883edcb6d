package config_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

// Who reads while a rollout is completed reads what was before or what is after, and not the old layers without the rollout.
func TestSettingsAreReadOfOneMoment(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	data, acting := apiOf(r.gateway()), r.acting(t, "acme")
	r.namespace(a, "notes", `{}`)
	r.set(a, "platform/config/notes", `{"v":"old"}`)
	made := r.begin(a, rolling("platform/config/notes", `{"v":"new"}`))
	r.advance(a, made.GetName()) // to acme, the canary

	super := r.db.Pool(t, pgserver.Superuser, func(*pgxpool.Config) {})
	completion, err := super.Begin(ctx)
	must(t, err)
	defer func() { _ = completion.Rollback(ctx) }()
	_, err = completion.Exec(ctx, `LOCK TABLE settings.rollout IN ACCESS EXCLUSIVE MODE`) // holds readers between two statements
	must(t, err)
	got := make(chan string, 2)
	tell := func(e *configv1.Effective, err error) {
		if err != nil {
			t.Error(err)
		}
		got <- e.GetContent()
	}
	go func() {
		resp, err := data.GetSettings(acting, &configv1.GetSettingsRequest{Namespace: "notes"})
		tell(resp.GetEffective(), err)
	}()
	go func() {
		resp, err := a.ExplainSettings(ctx, &configv1.ExplainSettingsRequest{Name: "tenants/acme/config/notes"})
		tell(resp.GetEffective(), err)
	}()
	eventually(t, "both wait", func() bool {
		var n int
		must(t, super.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
			AND query LIKE '%FROM settings.rollout%namespace_uid = $1%'`).Scan(&n))
		return n == 2
	})
	_, err = completion.Exec(ctx, `UPDATE settings.document SET content = '{"v":"new"}' WHERE layer = 'platform' AND content = '{"v":"old"}'`)
	must(t, err)
	_, err = completion.Exec(ctx, `UPDATE settings.rollout SET state = 'COMPLETED', end_time = now()`)
	must(t, err)
	must(t, completion.Commit(ctx))
	for range 2 {
		if content := <-got; content != `{"v":"new"}` {
			t.Errorf("acme, who has had the new content, reads %s", content)
		}
	}
}
