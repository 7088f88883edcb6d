package sqlattack

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// attackAll runs every attack that makes sense here.
func (a *arena) attackAll(ctx context.Context) ([]Result, error) {
	var all []Result
	for _, attack := range Attacks() {
		if attack.models != "" && attack.models != a.model.String() || attack.ours && !a.level.Ours() {
			continue
		}
		outcome, detail, err := a.attack(ctx, &attack)
		if err != nil {
			return all, fmt.Errorf("attack %s: %w", attack.ID, err)
		}
		all = append(all, Result{
			Attack: attack.ID, Family: attack.Family, Vector: attack.Vector, Tries: attack.Tries,
			Model: a.model.String(), Level: a.level, Outcome: outcome, Detail: detail,
		})
	}
	return all, nil
}

// attack runs one attack in all its variants: each setting that might carry the tenant, each
// database that the attacker can reach. The worst outcome counts.
func (a *arena) attack(ctx context.Context, attack *Attack) (worst Outcome, detail string, err error) {
	sets := a.sets
	if !strings.Contains(attack.text(), "{set}") {
		sets = sets[:1]
	}
	places := []*pgx.ConnConfig{a.away}
	if a.home.Database != a.away.Database && attack.session != nil && attack.migration == "" && attack.models == "" {
		places = append(places, a.home)
	}
	for _, set := range sets {
		for _, place := range places {
			outcome, why, err := a.try(ctx, attack, set, place)
			if err != nil {
				return "", "", err
			}
			if worst == "" || outcome.rank() > worst.rank() {
				worst, detail = outcome, why
			}
		}
	}
	return worst, detail, nil
}

// text is all that the attack sends.
func (s *script) text() string {
	return s.before + s.inject + s.statement + strings.Join(s.session, ";") + s.migration
}

// try runs one variant and says what came of it. An error means that the arena is broken.
func (a *arena) try(ctx context.Context, attack *Attack, set string, place *pgx.ConnConfig) (Outcome, string, error) {
	probes := []string{""}
	if attack.oracle {
		probes = []string{victimsID, nobodysID}
	}
	var answers []string
	var first trace
	for i, probe := range probes {
		t, err := a.perform(ctx, attack, place, map[string]string{"set": set, "probe": probe})
		if err != nil {
			return "", "", err
		}
		if i == 0 {
			first = t
		}
		answers = append(answers, a.anonymous(t.heard, probe))
	}
	alive := a.stands(ctx)
	if !alive {
		if err := a.stand(ctx); err != nil {
			return "", "", err
		}
	}
	state, err := a.snapshot(ctx)
	if err != nil {
		return "", "", err
	}
	changed := state != a.state
	if changed {
		if err := errors.Join(a.clear(ctx), a.seed(ctx)); err != nil {
			return "", "", err
		}
		if a.state, err = a.snapshot(ctx); err != nil {
			return "", "", err
		}
	}
	outcome, detail := a.judge(attack, first, changed, !alive, len(answers) == 2 && answers[0] != answers[1])
	switch {
	case outcome == Ran && set == a.inert:
		outcome, detail = Harmless, "the setting carries nothing here"
	case a.guest && attack.revoked && a.level.Ours() && outcome == Astray:
		outcome = Refused
	case a.level.Ours() && (a.guest && attack.revoked && !outcome.Held() || attack.limit && (outcome == Told || outcome == Stopped)):
		outcome, detail = Accepted, string(outcome)
	}
	return outcome, detail, nil
}

// trace is what an attacker got.
type trace struct {
	heard   string
	err     error // the first one
	ran     bool  // its first statement was let in
	entered bool  // the session was in the victim at the end
	wrote   bool  // it wrote what it may not
	told    bool  // it learnt whether the victim has something
	stopped bool  // the victim could not work
}

func (a *arena) judge(attack *Attack, t trace, changed, stopped, differs bool) (Outcome, string) {
	state := ""
	if t.err != nil {
		state = reason(t.err)
	}
	switch expected := strings.Fields(attack.refused); {
	case len(a.watch.Search("attacker", "answer", []byte(t.heard))) > 0:
		return Read, state
	case changed || t.wrote:
		return Wrote, state
	case t.entered:
		return Entered, state
	case stopped || t.stopped:
		return Stopped, state
	case differs || t.told:
		return Told, state
	case t.err == nil && len(expected) == 0:
		return Harmless, ""
	case t.err == nil || attack.first && t.ran:
		return Ran, state
	case !a.level.Ours() || a.expects(attack, state):
		return Refused, state
	}
	return Astray, state + ": " + t.err.Error()
}

// expects reports whether an attack may fail for that reason here.
func (a *arena) expects(attack *Attack, state string) bool {
	// Who brings a seal to a database of another tenant does not come in.
	return slices.Contains(strings.Fields(attack.refused), state) ||
		a.model == tenant.ModelDatabase && attack.session != nil && state == "RH001"
}

// anonymous is an answer without the value that the attacker asked for.
func (a *arena) anonymous(heard, probe string) string {
	for _, value := range a.probes(probe) {
		heard = strings.ReplaceAll(heard, value, "?")
	}
	return heard
}

// probes are the values that go with a probe: its id and its title.
func (a *arena) probes(id string) []string {
	if id == victimsID {
		return []string{victimsID, victimsTitle}
	}
	return []string{nobodysID, nobodysTitle}
}

// perform does what the attack says.
func (a *arena) perform(ctx context.Context, attack *Attack, place *pgx.ConnConfig, values map[string]string) (t trace, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	texts, err := a.fill(attack, values)
	if err != nil {
		return trace{}, err
	}
	if texts.migration != "" {
		if err := a.ship(ctx, texts.migration); err != nil {
			return trace{heard: told(err), err: err}, nil
		}
		defer func() { err = cmp.Or(err, a.withdraw(ctx, texts.undo)) }()
	}
	switch {
	case attack.do != nil:
		return attack.do(ctx, a)
	case texts.session != nil:
		return a.play(ctx, place, texts.session)
	}
	before := cmp.Or(texts.before, "SELECT title FROM "+a.says(a.victim)+".note WHERE title <> '"+a.canary+" asked'")
	_, _ = a.one(ctx, a.victim, before) // that the SDK refuses it is one of the defences
	sql := texts.statement
	if texts.inject != "" {
		sql = "SELECT title FROM " + a.says(a.attacker) + ".note WHERE id = 1" + texts.inject
	}
	t.heard, t.err = a.one(ctx, a.attacker, sql)
	return t, nil
}

// says is what the application calls the schema of its tables in SQL for the tenant: the SDK
// puts the tenant's own in its place.
func (a *arena) says(t tenant.TenantState) string {
	switch {
	case a.level.Ours():
		return "app"
	case t.UID == a.victim.UID:
		return a.their
	}
	return a.own
}

// play sends the statements of a session one after the other, whatever comes of each, on a
// connection on which the victim was before: a pool hands it on.
func (a *arena) play(ctx context.Context, place *pgx.ConnConfig, statements []string) (t trace, err error) {
	s, err := a.borrow(ctx, place)
	if err != nil {
		return trace{heard: told(err), err: err}, nil
	}
	defer func() { a.giveBack(ctx, s) }()
	if place.Database == a.away.Database {
		enter, err := a.enter(a.victim)
		if err != nil {
			return trace{}, err
		}
		if _, err := s.conn.PgConn().Exec(ctx, "BEGIN; "+enter+"; SELECT title FROM "+a.their+".note WHERE title <> '"+
			a.canary+" asked'; COMMIT").ReadAll(); err != nil {
			return trace{}, fmt.Errorf("the victim's transaction: %w", err)
		}
		s.heard.Reset()
	}
	for i, sql := range statements {
		began, err := a.began(ctx, s, sql)
		if err != nil {
			return trace{}, err
		}
		err = s.send(ctx, strings.ReplaceAll(sql, "{began}", began))
		t.ran = t.ran || i == 0 && err == nil
		t.err = cmp.Or(t.err, err)
	}
	t.entered = a.isEntered(ctx, s)
	t.err = cmp.Or(t.err, s.send(ctx, "COMMIT"))
	t.heard = s.heard.String()
	return t, nil
}

// began is what rung L2a has behind the seal that it carries: when the transaction began. It is
// asked for where the statement has it.
func (a *arena) began(ctx context.Context, s *session, sql string) (at string, err error) {
	if !a.level.Ours() || !strings.Contains(sql, "{began}") {
		return "", nil
	}
	// Simple: the session forgets what it prepared, and pgx does not.
	err = s.conn.QueryRow(ctx, "SELECT encode(timestamptz_send(now()), 'hex')", pgx.QueryExecModeSimpleProtocol).Scan(&at)
	if err != nil {
		return "", fmt.Errorf("ask when the transaction began: %w", err)
	}
	return at, nil
}

// isEntered asks the database in which tenant the session is.
func (a *arena) isEntered(ctx context.Context, s *session) bool {
	sql := "SELECT current_setting('app.tenant_id', true)"
	if a.level.Ours() {
		sql = "SELECT rowhouse.tenant_id()"
	}
	results, err := s.conn.PgConn().Exec(ctx, sql).ReadAll()
	return err == nil && len(results) == 1 && len(results[0].Rows) == 1 && string(results[0].Rows[0][0]) == a.victim.UID.String()
}

var hole = regexp.MustCompile(`\{[a-z-]+(:[a-z-]+)?\}`)

// fill puts the place into the attack's texts.
func (a *arena) fill(attack *Attack, values map[string]string) (script, error) {
	enter, err := a.enter(a.attacker)
	if err != nil {
		return script{}, err
	}
	victim := a.victim.UID.String()
	if values["set"] == "backtrace_functions" {
		victim = hex.EncodeToString(a.victim.UID[:])
	}
	title, free := nobodysTitle, "title IS NULL"
	if values["probe"] == victimsID {
		title, free = victimsTitle, "flag"
	}
	known := map[string]string{
		"{victim}": victim, "{uid}": a.victim.UID.String(), "{own}": a.own, "{their}": a.their, "{app}": a.app,
		"{set}": values["set"], "{enter}": enter, "{probe}": values["probe"], "{title}": title, "{free}": free,
		"{pid}": a.pid, "{door}": a.door(a.victim.UID[:]), "{needle}": a.canary[1:11], "{secret}": a.canary,
		"{admin}": pgx.Identifier{a.admin.Config().User}.Sanitize(), "{owner}": a.owner, "{role}": a.role, "{unfilled}": a.unfilled,
		"{began}":    "{began}", // play fills it in
		"{database}": pgx.Identifier{a.away.Database}.Sanitize(),
	}
	replace := func(text string) string {
		return hole.ReplaceAllStringFunc(text, func(name string) string {
			if kind, is := strings.CutPrefix(name, "{forge:"); is {
				expression, failed := a.forge(strings.TrimSuffix(kind, "}"))
				err = cmp.Or(err, failed)
				return expression
			}
			if kind, is := strings.CutPrefix(name, "{carry:"); is {
				carried, failed := a.carry(strings.TrimSuffix(kind, "}"))
				err = cmp.Or(err, failed)
				return carried
			}
			value, is := known[name]
			if !is {
				err = cmp.Or(err, fmt.Errorf("attack %s: %s is unknown", attack.ID, name))
			}
			return value
		})
	}
	filled := attack.script
	filled.before, filled.inject, filled.statement = replace(filled.before), replace(filled.inject), replace(filled.statement)
	filled.migration, filled.undo = replace(filled.migration), replace(filled.undo)
	filled.session = nil
	for _, sql := range attack.session {
		filled.session = append(filled.session, replace(sql))
	}
	return filled, err
}
