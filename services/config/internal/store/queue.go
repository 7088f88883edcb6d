package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

const (
	// maxPending is how many messages may wait for an endpoint that fails, as counted when it is served; what comes after is dead
	// at once.
	maxPending = 10_000
	// Delivered and dead messages are kept for as long, a sweep forgets so many of them.
	keepDelivered = 3 * 24 * time.Hour
	keepDead      = 30 * 24 * time.Hour
	sweepBatch    = 10_000
	// parkFor is for how long nobody looks at an endpoint whose tenant is not served.
	parkFor = 30 * time.Second
)

// Queue is the queue of webhooks. It is safe for concurrent use, in any number of processes.
//
// Locks are taken in one order: events, then endpoints by their uids, then deliveries.
type Queue struct {
	// Pool reaches the database.
	Pool *pgxpool.Pool
	// Names finds tenants' ids.
	Names webhook.Names
	// NewUID makes the uid of a delivery.
	NewUID func() (string, error)
	// OpenKey opens a sealed key of an endpoint.
	OpenKey func(endpointUID string, version int32, s webhook.Signing, sealed []byte) (webhook.Key, error)
	// Served says whether a tenant's endpoints are called now; nil for all. The messages of others wait.
	Served func(tenantUID string) bool
	// Gone disables an endpoint that answered 410, which is audited.
	Gone func(ctx context.Context, endpointUID string) error
}

// FanOut implements webhook.Queue. An event that a webhook may want whose row is somebody else's just now stays for the next
// time, unless that row is of a fast one, which nobody holds for long: so whoever serves the slow keeps the events of others
// from nobody.
func (s *Queue) FanOut(ctx context.Context, n int) (taken int, err error) {
	err = pgx.BeginFunc(ctx, s.Pool, func(tx pgx.Tx) error {
		events, err := lockEvents(ctx, tx, n)
		if err != nil || len(events) == 0 {
			return err
		}
		taken = len(events)
		var messages []webhook.Message
		owners := []string{""}
		for _, e := range events {
			if m, ok := e.Message(s.Names); ok {
				messages, owners = append(messages, m), append(owners, m.TenantUID)
			}
		}
		listeners, busy, err := lockListeners(ctx, tx, owners)
		if err != nil {
			return err
		}
		later := map[eventKey]bool{}
		messages = slices.DeleteFunc(messages, func(m webhook.Message) bool {
			if busy[m.TenantUID] {
				later[keyOf(m.Event)] = true
			}
			return busy[m.TenantUID]
		})
		events = slices.DeleteFunc(events, func(e webhook.Event) bool { return later[keyOf(e)] })
		if err := deleteEvents(ctx, tx, events); err != nil {
			return err
		}
		return s.insert(ctx, tx, messages, listeners)
	})
	if err != nil {
		return 0, fmt.Errorf("fan out: %w", err)
	}
	return taken, nil
}

// eventKey is what an event is known by.
type eventKey struct {
	source, key string
	revision    int64
}

func keyOf(e webhook.Event) eventKey { return eventKey{e.Source, e.Key, e.Revision} }

func lockEvents(ctx context.Context, tx pgx.Tx, n int) ([]webhook.Event, error) {
	rows, err := tx.Query(ctx, `SELECT source, revision, key, type, removed, event_time, data FROM webhook.event
		ORDER BY source, revision, key LIMIT $1 FOR UPDATE SKIP LOCKED`, n)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[webhook.Event])
}

func deleteEvents(ctx context.Context, tx pgx.Tx, events []webhook.Event) error {
	var sources, keys []string
	var revisions []int64
	for _, e := range events {
		sources, revisions, keys = append(sources, e.Source), append(revisions, e.Revision), append(keys, e.Key)
	}
	_, err := tx.Exec(ctx, `DELETE FROM webhook.event e USING unnest($1::text[], $2::bigint[], $3::text[]) AS u(source, revision, key)
		WHERE e.source = u.source AND e.revision = u.revision AND e.key = u.key`, sources, revisions, keys)
	return err
}

// listener is an endpoint that may want messages.
type listener struct {
	UID, TenantUID string
	Types          []string
}

// lockListeners locks the endpoints of owners, and says which owners have one that is not to be had now. The platform's own
// are waited for.
func lockListeners(ctx context.Context, tx pgx.Tx, owners []string) (locked []listener, busy map[string]bool, err error) {
	const these = `SELECT uid::text, tenant_uid, event_types FROM webhook.endpoint WHERE NOT disabled AND tenant_uid = ANY ($1) `
	for _, which := range []string{
		`AND (fast OR tenant_uid = '') ORDER BY uid FOR NO KEY UPDATE`,
		`AND NOT fast AND tenant_uid <> '' ORDER BY uid FOR NO KEY UPDATE SKIP LOCKED`,
	} {
		rows, err := tx.Query(ctx, these+which, owners)
		if err != nil {
			return nil, nil, err
		}
		some, err := pgx.CollectRows(rows, pgx.RowToStructByPos[listener])
		if err != nil {
			return nil, nil, err
		}
		locked = append(locked, some...)
	}
	uids := make([]string, len(locked))
	for i, l := range locked {
		uids[i] = l.UID
	}
	rows, err := tx.Query(ctx, `SELECT DISTINCT tenant_uid FROM webhook.endpoint
		WHERE NOT disabled AND tenant_uid = ANY ($1) AND NOT uid = ANY ($2::uuid[])`, owners, uids)
	if err != nil {
		return nil, nil, err
	}
	missed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	busy = make(map[string]bool, len(missed))
	for _, owner := range missed {
		busy[owner] = true
	}
	return locked, busy, err
}

func (s *Queue) insert(ctx context.Context, tx pgx.Tx, messages []webhook.Message, listeners []listener) error {
	var uids, endpoints, sources, keys, types, bodies []string
	var revisions []int64
	byOwner := map[string][]listener{}
	for _, l := range listeners {
		byOwner[l.TenantUID] = append(byOwner[l.TenantUID], l)
	}
	for _, m := range messages {
		hear := byOwner[""]
		if m.TenantUID != "" {
			hear = slices.Concat(hear, byOwner[m.TenantUID])
		}
		for _, l := range hear {
			if !webhook.Wants(l.Types, m.Type) {
				continue
			}
			uid, err := s.NewUID()
			if err != nil {
				return err
			}
			uids, endpoints, sources = append(uids, uid), append(endpoints, l.UID), append(sources, m.Source)
			keys, types, bodies = append(keys, m.Key), append(types, m.Type), append(bodies, m.Body)
			revisions = append(revisions, m.Revision)
		}
	}
	if len(uids) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `INSERT INTO webhook.delivery (uid, endpoint_uid, source, revision, key, type, body, next_time, state, last_failure)
		SELECT u.uid, u.endpoint, u.source, u.revision, u.key, u.type, u.body, now(),
			CASE WHEN e.stuck AND e.failures > 0 THEN 'DEAD' ELSE 'PENDING' END,
			CASE WHEN e.stuck AND e.failures > 0 THEN 'BACKLOG' ELSE '' END
		FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[])
			AS u(uid, endpoint, source, revision, key, type, body) JOIN webhook.endpoint e ON e.uid = u.endpoint
		ON CONFLICT (source, revision, key, endpoint_uid) DO NOTHING`,
		uids, endpoints, sources, revisions, keys, types, bodies)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE webhook.endpoint SET due_time = greatest(now(), pause_until) WHERE uid = ANY ($1::uuid[])`, endpoints)
	return err
}

// Claim implements webhook.Queue.
func (s *Queue) Claim(ctx context.Context, n int, fast bool) (tasks []webhook.Task, err error) {
	err = pgx.BeginFunc(ctx, s.Pool, func(tx pgx.Tx) error {
		endpoints, err := lockDue(ctx, tx, n, fast)
		if err == nil {
			err = s.park(ctx, tx, endpoints)
		}
		if err != nil || len(endpoints) == 0 {
			return err
		}
		most := webhook.PerSlow
		if fast {
			most = webhook.PerFast
		}
		tasks, err = s.take(ctx, tx, endpoints, most)
		for i := range tasks {
			tasks[i].Fast = fast
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	return tasks, nil
}

// endpoint is an endpoint that is served.
type endpoint struct {
	uid, tenantUID, url string
	signing             webhook.Signing
	failures            int
	keys                []webhook.Key
}

// lockDue locks the endpoints to serve: of each tenant the one that waited longest, and the tenants with the fewest
// messages under way first. What another replica serves just now is passed over.
func lockDue(ctx context.Context, tx pgx.Tx, n int, fast bool) (map[string]*endpoint, error) {
	rows, err := tx.Query(ctx, `WITH busy AS (
			SELECT e.tenant_uid, count(*) AS n FROM webhook.delivery d JOIN webhook.endpoint e ON e.uid = d.endpoint_uid
			WHERE d.lease_until > now() GROUP BY e.tenant_uid),
		turn AS (
			SELECT e.uid, coalesce(b.n, 0) AS n, e.served_time,
				row_number() OVER (PARTITION BY e.tenant_uid ORDER BY e.served_time) AS place
			FROM webhook.endpoint e LEFT JOIN busy b ON b.tenant_uid = e.tenant_uid
			WHERE NOT e.disabled AND e.due_time <= now() AND e.fast = $2 AND coalesce(b.n, 0) < $3)
		SELECT uid::text, tenant_uid, url, signing, failures FROM webhook.endpoint
		WHERE uid IN (SELECT uid FROM turn WHERE place = 1 ORDER BY n, served_time LIMIT $1)
			AND NOT disabled AND due_time <= now() AND fast = $2
		FOR NO KEY UPDATE SKIP LOCKED`, n, fast, webhook.PerTenant)
	if err != nil {
		return nil, err
	}
	found := map[string]*endpoint{}
	var e endpoint
	_, err = pgx.ForEachRow(rows, []any{&e.uid, &e.tenantUID, &e.url, &e.signing, &e.failures}, func() error {
		one := e
		found[e.uid] = &one
		return nil
	})
	return found, err
}

// take leases due messages of endpoints that are locked, and says when to look at these again.
func (s *Queue) take(ctx context.Context, tx pgx.Tx, endpoints map[string]*endpoint, most int) ([]webhook.Task, error) {
	uids := make([]string, 0, len(endpoints))
	for uid := range endpoints {
		uids = append(uids, uid)
	}
	if err := s.openKeys(ctx, tx, uids, endpoints); err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `WITH chosen AS (
			SELECT d.uid FROM (SELECT u.uid, greatest(0, $2 - (SELECT count(*) FROM webhook.delivery l
					WHERE l.endpoint_uid = u.uid AND l.lease_until > now())) AS room
				FROM unnest($1::uuid[]) AS u(uid)) e
			CROSS JOIN LATERAL (SELECT d.uid FROM webhook.delivery d
				WHERE d.endpoint_uid = e.uid AND d.state = 'PENDING' AND d.next_time <= now() AND (d.lease_until IS NULL OR d.lease_until <= now())
				ORDER BY d.next_time LIMIT e.room) d)
		UPDATE webhook.delivery d SET fence = d.fence + 1, lease_until = now() + $3 FROM chosen c WHERE d.uid = c.uid
		RETURNING d.uid::text, d.endpoint_uid::text, d.fence, d.attempts, d.body`, uids, most, webhook.Lease)
	if err != nil {
		return nil, err
	}
	tasks, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t webhook.Task, err error) {
		if err := row.Scan(&t.DeliveryUID, &t.EndpointUID, &t.Fence, &t.Attempts, &t.Body); err != nil {
			return t, err
		}
		e := endpoints[t.EndpointUID]
		t.TenantUID, t.URL, t.Failures, t.Keys = e.tenantUID, e.url, e.failures, e.keys
		return t, nil
	})
	if err != nil {
		return nil, err
	}
	// An endpoint that is full is looked at when something ends, or when a lease does because its holder crashed.
	// How much waits for one that fails is counted here, where only the slow wait for it, and not with each event.
	_, err = tx.Exec(ctx, `UPDATE webhook.endpoint e SET served_time = now(),
			stuck = CASE WHEN e.failures = 0 THEN false ELSE (SELECT count(*) FROM (
				SELECT FROM webhook.delivery d WHERE d.endpoint_uid = e.uid AND d.state = 'PENDING' LIMIT $3) p) >= $3 END,
			due_time = greatest(e.pause_until, coalesce(least(f.ends, CASE WHEN f.n < $2 THEN (
				SELECT min(d.next_time) FROM webhook.delivery d
				WHERE d.endpoint_uid = e.uid AND d.state = 'PENDING' AND (d.lease_until IS NULL OR d.lease_until <= now())) END), 'infinity'))
		FROM unnest($1::uuid[]) AS u(uid) CROSS JOIN LATERAL (
			SELECT count(*) AS n, min(l.lease_until) AS ends FROM webhook.delivery l WHERE l.endpoint_uid = u.uid AND l.lease_until > now()) f
		WHERE e.uid = u.uid`, uids, most, maxPending)
	return tasks, err
}

// park takes out the endpoints of tenants that are not served, and has them looked at again a while later.
func (s *Queue) park(ctx context.Context, tx pgx.Tx, endpoints map[string]*endpoint) error {
	var parked []string
	for uid, e := range endpoints {
		if s.Served != nil && !s.Served(e.tenantUID) {
			parked = append(parked, uid)
			delete(endpoints, uid)
		}
	}
	if len(parked) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `UPDATE webhook.endpoint SET due_time = now() + $2::interval WHERE uid = ANY ($1::uuid[])`, parked, parkFor)
	return err
}

// openKeys opens the keys that sign now, the newest first. An endpoint none of whose keys opens has none.
func (s *Queue) openKeys(ctx context.Context, tx pgx.Tx, uids []string, endpoints map[string]*endpoint) error {
	rows, err := tx.Query(ctx, `SELECT endpoint_uid::text, version, sealed FROM webhook.key
		WHERE endpoint_uid = ANY ($1::uuid[]) AND expire_time > now() ORDER BY version DESC`, uids)
	if err != nil {
		return err
	}
	var uid string
	var version int32
	var sealed []byte
	_, err = pgx.ForEachRow(rows, []any{&uid, &version, &sealed}, func() error {
		e := endpoints[uid]
		if k, err := s.OpenKey(uid, version, e.signing, sealed); err == nil {
			e.keys = append(e.keys, k)
		}
		return nil
	})
	return err
}

// Finish implements webhook.Queue.
func (s *Queue) Finish(ctx context.Context, t webhook.Task, r webhook.Result) error {
	state := "PENDING"
	switch {
	case r.Delivered:
		state = "DELIVERED"
	case r.Dead:
		state = "DEAD"
	}
	_, err := s.Pool.Exec(ctx, `WITH e AS (SELECT uid FROM webhook.endpoint WHERE uid = $1 FOR NO KEY UPDATE),
		done AS (
			UPDATE webhook.delivery d SET state = $4, lease_until = NULL,
				attempts = d.attempts + CASE WHEN $5 THEN 0 ELSE 1 END, next_time = now() + $6::interval,
				last_time = CASE WHEN $5 THEN d.last_time ELSE now() END,
				last_status = CASE WHEN $5 THEN d.last_status ELSE $7 END, last_failure = CASE WHEN $5 THEN d.last_failure ELSE $8 END
			FROM e WHERE d.uid = $2 AND d.fence = $3 AND d.endpoint_uid = e.uid RETURNING d.endpoint_uid)
		UPDATE webhook.endpoint e SET
			failures = CASE WHEN $5 THEN e.failures WHEN $9 THEN 0 ELSE e.failures + 1 END, fast = CASE WHEN $5 THEN e.fast ELSE $11 END,
			pause_until = greatest(e.pause_until, now() + $10::interval), due_time = greatest(e.pause_until, now() + $10::interval)
		FROM done WHERE e.uid = done.endpoint_uid`,
		t.EndpointUID, t.DeliveryUID, t.Fence, state, r.Released, r.Delay, r.Status, r.Failure, r.Delivered, r.Pause, r.Fast)
	if err != nil {
		return fmt.Errorf("finish: %w", err)
	}
	if r.Gone {
		return s.Gone(ctx, t.EndpointUID)
	}
	return nil
}

// Measure implements webhook.Queue.
func (s *Queue) Measure(ctx context.Context) (m webhook.Measures, err error) {
	err = s.Pool.QueryRow(ctx, `SELECT
			coalesce((SELECT now() - min(event_time) FROM webhook.event), '0'),
			coalesce(now() - min(due_time) FILTER (WHERE fast), '0'), coalesce(now() - min(due_time) FILTER (WHERE NOT fast), '0'),
			(SELECT count(*) FROM (SELECT FROM webhook.delivery WHERE state = 'DEAD' LIMIT $1) dead)
		FROM webhook.endpoint WHERE NOT disabled AND due_time <= now()`, webhook.MaxDead).Scan(&m.Events, &m.Fast, &m.Slow, &m.Dead)
	if err != nil {
		return m, fmt.Errorf("measure: %w", err)
	}
	return m, nil
}

// Sweep implements webhook.Queue.
func (s *Queue) Sweep(ctx context.Context) error {
	_, err := s.Pool.Exec(ctx, `DELETE FROM webhook.delivery WHERE uid IN (
		SELECT uid FROM webhook.delivery WHERE state <> 'PENDING' AND create_time < now() - $1::interval
			AND (state = 'DELIVERED' OR create_time < now() - $2::interval) ORDER BY create_time LIMIT $3 FOR UPDATE SKIP LOCKED)`,
		keepDelivered, keepDead, sweepBatch)
	if err == nil {
		_, err = s.Pool.Exec(ctx, `DELETE FROM webhook.key WHERE expire_time <= now()`)
	}
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	return nil
}
