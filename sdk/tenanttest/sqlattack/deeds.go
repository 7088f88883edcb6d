package sqlattack

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// What attacks do that is more than a list of statements. An error that these functions return
// means that the arena is broken; what the attacker ran into is in the trace.

// everyTable reads all tables that the catalogs name, with the password alone.
func everyTable(ctx context.Context, a *arena) (trace, error) { return a.readAll(ctx, "") }

// everyTableSealed reads them inside the attacker's tenant.
func everyTableSealed(ctx context.Context, a *arena) (trace, error) {
	enter, err := a.enter(a.attacker)
	if err != nil {
		return trace{}, err
	}
	t, err := a.readAll(ctx, enter)
	t.err = nil // most tables are nobody's to read
	return t, err
}

func (a *arena) readAll(ctx context.Context, enter string) (t trace, err error) {
	s, err := connect(ctx, a.away)
	defer s.close(context.WithoutCancel(ctx))
	if err != nil {
		return trace{err: err}, nil
	}
	rows, _ := s.conn.Query(ctx, `
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
	AND (n.nspname = $1 OR n.nspname IN ('app', 'rowhouse', 'public') OR n.nspname LIKE 't\_%')`, a.their)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return trace{}, fmt.Errorf("list the tables: %w", err)
	}
	for _, table := range tables {
		for _, sql := range []string{"SELECT x::text FROM " + table + " x", "COPY " + table + " TO STDOUT", "SELECT count(*) FROM " + table} {
			if enter == "" {
				t.err = errors.Join(t.err, s.send(ctx, sql))
				continue
			}
			_ = s.send(ctx, "BEGIN; "+enter)
			t.err = errors.Join(t.err, s.send(ctx, sql))
			_ = s.send(ctx, "ROLLBACK")
		}
	}
	t.heard = s.heard.String()
	return t, nil
}

// leftover sets what carries the tenant for the whole session, as a thief of the password can, and an
// injection where set_config is anybody's. The victim is next on that session: a pooler's, say.
func leftover(ctx context.Context, a *arena) (t trace, err error) {
	sealed, err := a.carry("genuine")
	if err != nil {
		return t, err
	}
	enter, err := a.enter(a.victim)
	if err != nil {
		return t, err
	}
	for _, set := range a.sets {
		for _, value := range []string{"x", sealed, sealed + "0000000000000000"} {
			s, err := a.borrow(ctx, a.away)
			if err != nil {
				return t, err
			}
			_ = s.send(ctx, "SET "+set+" = '"+value+"'")
			err = s.send(ctx, "BEGIN; "+enter+"; SELECT count(*) FROM "+a.their+".note; COMMIT")
			t.err, t.stopped = cmp.Or(t.err, err), t.stopped || err != nil
			a.giveBack(ctx, s)
		}
	}
	return t, nil
}

// cancelled ends calls of the victim's wherever they are, and looks what the next tenant gets
// on that connection.
func cancelled(ctx context.Context, a *arena) (t trace, err error) {
	sql := "SELECT title FROM " + a.says(a.attacker) + ".note"
	for n := range 30 {
		short, cancel := context.WithTimeout(ctx, time.Duration(n*n)*3*time.Microsecond)
		_, _ = a.one(short, a.victim, "SELECT title FROM "+a.says(a.victim)+".note")
		cancel()
		heard, err := a.one(ctx, a.attacker, sql)
		t.heard += heard
		if err != nil {
			return trace{}, fmt.Errorf("the call after a cancelled one: %w", err)
		}
	}
	return t, nil
}

// cachedPlan has the victim run a statement until PostgreSQL keeps one plan for all.
func cachedPlan(ctx context.Context, a *arena) (t trace, err error) {
	sql := "SELECT title, body FROM %[1]s.note LEFT JOIN %[1]s.event USING (tenant_id) ORDER BY title"
	for range 8 {
		if _, err := a.one(ctx, a.victim, fmt.Sprintf(sql, a.says(a.victim))); err != nil {
			return trace{}, fmt.Errorf("the victim's statement: %w", err)
		}
	}
	t.heard, t.err = a.one(ctx, a.attacker, fmt.Sprintf(sql, a.says(a.attacker)))
	return t, nil
}

// sequence counts the victim's inserts between two values of a sequence.
func sequence(ctx context.Context, a *arena) (t trace, err error) {
	var seen [2]int
	for i := range seen {
		t.heard, t.err = a.one(ctx, a.attacker, "SELECT nextval(concat('"+a.own+"', '.note_n_seq')::regclass)::text")
		if t.err != nil {
			return t, nil //nolint:nilerr // the attacker's error, and all there is to know
		}
		seen[i], _ = strconv.Atoi(regexp.MustCompile(`\d+`).FindString(t.heard))
		if i == 0 {
			const sql = "INSERT INTO %s.note (tenant_id, id, title) SELECT '%s', n, n::text FROM generate_series(500, 502) n"
			if err := a.as(ctx, a.adminTheir, a.victim, fmt.Sprintf(sql, a.their, a.victim.UID)); err != nil {
				return t, err
			}
			if err := a.as(ctx, a.adminTheir, a.victim, fmt.Sprintf("DELETE FROM %s.note WHERE id >= 500", a.their)); err != nil {
				return t, err
			}
		}
	}
	t.told = seen[1] != seen[0]+1
	return t, nil
}

// slow compares how long a statement takes that names a value which the victim has, and one
// which nobody has: it sleeps on each row that it sees before the policy does. A machine that
// is slow by chance is not so every time.
func slow(ctx context.Context, a *arena) (t trace, err error) {
	const nap, times = 100 * time.Millisecond, 3
	sql := "SELECT title FROM " + a.own + ".note TABLESAMPLE SYSTEM (100) " +
		"WHERE CASE WHEN id = %s THEN (SELECT pg_sleep(0.1) IS NOT NULL) ELSE false END"
	for range times {
		var took [2]time.Duration
		for i, id := range []string{nobodysID, victimsID} {
			began := time.Now()
			t.heard, t.err = a.one(ctx, a.attacker, fmt.Sprintf(sql, id))
			took[i] = time.Since(began)
		}
		if t.told = took[0] < nap && took[1] >= nap; !t.told {
			break
		}
	}
	return t, nil
}

// rowCounts reads the planner's count of the rows in a table, which is in a catalog that everybody reads.
func rowCounts(ctx context.Context, a *arena) (t trace, err error) {
	s, err := connect(ctx, a.away)
	defer s.close(context.WithoutCancel(ctx))
	if err != nil {
		return trace{err: err}, nil
	}
	t.err = s.send(ctx, "SELECT reltuples FROM pg_class WHERE oid = '"+a.their+".note'::regclass")
	t.told, t.heard = t.err == nil && !strings.HasPrefix(s.heard.String(), "-1 "), s.heard.String()
	return t, nil
}

// estimates compares how many rows the planner expects of a value that the victim has in many
// rows, and of one that nobody has. Its statistics are of all rows, and EXPLAIN runs no policy. L0
// and L1 are planned for the session's tenant, which has too few rows here for a difference to show.
func estimates(ctx context.Context, a *arena) (t trace, err error) {
	many := fmt.Sprintf("INSERT INTO %s.event (tenant_id, id, body) SELECT '%s', n, CASE WHEN n %% 2 = 0 THEN '%s' ELSE n::text END "+
		"FROM generate_series(1000, 1999) n", a.their, a.victim.UID, victimsTitle)
	few := fmt.Sprintf("DELETE FROM %s.event WHERE tenant_id = '%s' AND id >= 1000", a.their, a.victim.UID)
	if err := errors.Join(a.as(ctx, a.adminTheir, a.victim, many), a.analyze(ctx)); err != nil {
		return t, err
	}
	defer func() {
		ctx := context.WithoutCancel(ctx)
		err = errors.Join(err, a.as(ctx, a.adminTheir, a.victim, few), a.analyze(ctx))
	}()
	s, err := connect(ctx, a.away)
	defer s.close(context.WithoutCancel(ctx))
	if err != nil {
		return trace{err: err}, nil
	}
	if enter, err := a.enter(a.attacker); err != nil {
		return t, err
	} else if !a.level.Ours() { // there the planner asks for a tenant; any will do
		t.err = s.send(ctx, "BEGIN; "+enter)
	}
	var expected [2]string
	for i, value := range []string{victimsTitle, nobodysTitle} {
		s.heard.Reset()
		t.err = cmp.Or(t.err, s.send(ctx, "EXPLAIN SELECT FROM "+a.their+".event WHERE body = '"+value+"'"))
		expected[i] = regexp.MustCompile(`rows=\d+`).FindString(s.heard.String())
	}
	t.told, t.heard = expected[0] != expected[1], strings.Join(expected[:], " ")
	return t, nil
}

// lockTable locks the victim's table, for which UPDATE on it is enough.
func lockTable(ctx context.Context, a *arena) (t trace, err error) {
	enter, err := a.enter(a.victim)
	if err != nil {
		return t, err
	}
	var thief, victim *session
	for _, s := range []**session{&thief, &victim} {
		*s, err = connect(ctx, a.away)
		defer (*s).close(context.WithoutCancel(ctx))
		if err != nil {
			return trace{err: err}, nil
		}
	}
	if t.err = thief.send(ctx, "BEGIN; LOCK TABLE "+a.their+".note IN ACCESS EXCLUSIVE MODE"); t.err == nil {
		err := victim.send(ctx, "BEGIN; "+enter+"; SET LOCAL lock_timeout = 50; SELECT count(*) FROM "+a.their+".note")
		t.stopped = err != nil && reason(err) == "55P03"
	}
	t.heard = thief.heard.String()
	return t, nil
}

// fenceLock waits for the lock that a mover takes. The victim's standing session holds it with
// others, so it is not to be had; but who comes now stands behind.
func fenceLock(ctx context.Context, a *arena) (t trace, err error) {
	enter, err := a.enter(a.victim)
	if err != nil {
		return t, err
	}
	thief, err := connect(ctx, a.away)
	defer thief.close(context.WithoutCancel(ctx))
	if err != nil {
		return trace{err: err}, nil
	}
	victim, err := connect(ctx, a.away)
	defer victim.close(context.WithoutCancel(ctx))
	if err != nil {
		return t, fmt.Errorf("connect as the victim: %w", err)
	}
	over := make(chan error, 1)
	go func() {
		over <- thief.send(ctx, "SET lock_timeout = '60s'; SELECT pg_advisory_lock("+a.door(a.victim.UID[:])+")")
	}()
	for waits := false; !waits && len(over) == 0; {
		const sql = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)"
		err := a.adminTheir.QueryRow(ctx, sql, thief.conn.PgConn().PID()).Scan(&waits)
		if err != nil {
			return t, errors.Join(err, <-over)
		}
	}
	err = victim.send(ctx, "BEGIN; "+enter+"; ROLLBACK")
	t.stopped = err != nil
	if err := thief.conn.PgConn().CancelRequest(ctx); err != nil { // of no effect where it does not wait
		return t, errors.Join(err, <-over)
	}
	if t.err = <-over; t.err != nil && reason(t.err) == "57014" {
		t.err = nil // it waited as long as it liked
	}
	t.heard = thief.heard.String()
	return t, nil
}

// startup presets the tenant in the message that opens a connection.
func startup(ctx context.Context, a *arena) (t trace, err error) {
	for _, set := range a.sets {
		config := a.away.Copy()
		config.RuntimeParams["options"] = "-c " + set + "=" + a.victim.UID.String()
		s, err := connect(ctx, config)
		if err == nil {
			err = s.send(ctx, "SELECT title FROM "+a.their+".note")
			t.entered = t.entered || a.isEntered(ctx, s)
		}
		s.close(context.WithoutCancel(ctx))
		t.heard, t.err = t.heard+s.heard.String(), err
	}
	return t, nil
}

// otherApp connects with the login of another app: it has the grants on tables, which all apps
// have, and no right to connect.
func otherApp(ctx context.Context, a *arena) (t trace, err error) {
	config := a.away.Copy()
	word := strings.ToLower(rand.Text()[:10])
	config.User, config.Password = "attacked_app_"+word, word
	_, err = a.admin.PgConn().Exec(ctx, "CREATE ROLE "+config.User+" LOGIN PASSWORD '"+config.Password+"'; "+
		"GRANT rowhouse_app TO "+config.User).ReadAll()
	if err != nil {
		return trace{}, fmt.Errorf("make another app's login: %w", err)
	}
	defer func() {
		if _, end := a.admin.Exec(context.WithoutCancel(ctx), "DROP ROLE "+config.User); err == nil {
			err = end
		}
	}()
	return a.play(ctx, config, []string{"SELECT 1"})
}

// commonDatabases connects to the databases that initdb makes, where nothing was taken away.
func commonDatabases(ctx context.Context, a *arena) (t trace, err error) {
	for _, name := range []string{"postgres", "template1"} {
		config := a.away.Copy()
		config.Database = name
		s, err := connect(ctx, config)
		s.close(context.WithoutCancel(ctx))
		if err == nil {
			return trace{heard: s.heard.String()}, nil
		}
		t.err = err
	}
	return t, nil
}

// enterWhile enters the attacker's own tenant while its placement is in a state.
func enterWhile(state cell.State) func(context.Context, *arena) (trace, error) {
	return func(ctx context.Context, a *arena) (t trace, err error) {
		if err := cell.SetPlacement(ctx, a.adminOwn, a.placement(a.attacker, state)); err != nil {
			return t, err
		}
		defer func() { err = errors.Join(err, a.resume(context.WithoutCancel(ctx))) }()
		enter, err := a.enter(a.attacker)
		if err != nil {
			return t, err
		}
		t, err = a.playOwn(ctx, "BEGIN", enter, "INSERT INTO "+a.own+".tag (note_id, tag) VALUES (1, 'behind')")
		t.wrote = t.err == nil
		return t, err
	}
}

// resume makes the attacker's placement active again, and takes away what it wrote meanwhile.
func (a *arena) resume(ctx context.Context) error {
	return errors.Join(cell.SetPlacement(ctx, a.adminOwn, a.placement(a.attacker, cell.Active)),
		a.as(ctx, a.adminOwn, a.attacker, "DELETE FROM "+a.own+".tag WHERE tag = 'behind'"))
}

// playOwn sends statements in the attacker's own database.
func (a *arena) playOwn(ctx context.Context, statements ...string) (trace, error) {
	return a.play(ctx, a.home, statements)
}

// oldSnapshot takes a snapshot before the fence goes up, and enters and writes after it.
func oldSnapshot(ctx context.Context, a *arena) (t trace, err error) {
	s, err := connect(ctx, a.home)
	defer s.close(context.WithoutCancel(ctx))
	if err != nil {
		return trace{}, fmt.Errorf("connect: %w", err)
	}
	enter, err := a.enter(a.attacker)
	if err != nil {
		return t, err
	}
	if err := s.send(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class"); err != nil {
		return t, fmt.Errorf("take a snapshot: %w", err)
	}
	if err := cell.SetPlacement(ctx, a.adminOwn, a.placement(a.attacker, cell.Fenced)); err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, a.resume(context.WithoutCancel(ctx))) }()
	t.err = s.send(ctx, enter)
	if t.err == nil {
		t.err = s.send(ctx, "INSERT INTO "+a.own+".tag (note_id, tag) VALUES (1, 'behind'); COMMIT")
		t.wrote = t.err == nil
	}
	t.heard = s.heard.String()
	return t, nil
}

// unlocked looks whether a mover could raise the fence while the attacker is in its tenant.
func unlocked(ctx context.Context, a *arena) (t trace, err error) {
	s, err := connect(ctx, a.home)
	defer s.close(context.WithoutCancel(ctx))
	if err != nil {
		return trace{}, fmt.Errorf("connect: %w", err)
	}
	enter, err := a.enter(a.attacker)
	if err != nil {
		return t, err
	}
	if t.err = s.send(ctx, "BEGIN; "+enter); t.err != nil {
		return t, nil
	}
	err = a.adminOwn.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock("+a.door(a.attacker.UID[:])+")").Scan(&t.wrote)
	return t, err
}

// locked enters while a mover holds the tenant for itself.
func locked(ctx context.Context, a *arena) (t trace, err error) {
	enter, err := a.enter(a.attacker)
	if err != nil {
		return t, err
	}
	err = pgx.BeginFunc(ctx, a.adminOwn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock("+a.door(a.attacker.UID[:])+")"); err != nil {
			return err
		}
		t, err = a.playOwn(ctx, "BEGIN", enter, "INSERT INTO "+a.own+".tag (note_id, tag) VALUES (1, 'behind')", "ROLLBACK")
		t.wrote = t.err == nil
		return err
	})
	return t, err
}

// door is the number of the lock of a tenant.
func (a *arena) door(uid []byte) string {
	return fmt.Sprintf("('x%s')::bit(64)::bigint", hex.EncodeToString(uid[8:]))
}
