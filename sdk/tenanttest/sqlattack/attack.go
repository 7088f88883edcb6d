package sqlattack

import (
	"cmp"
	"context"
	"slices"
)

// Family is what a group of attacks goes for.
type Family string

// The families.
const (
	Inline    Family = "context change inside one statement"
	Stacked   Family = "stacked and utility statements"
	Seals     Family = "forged and stale seals"
	Context   Family = "missing and stale context"
	Residue   Family = "residue on a pooled session"
	Oracles   Family = "oracles"
	Writes    Family = "writes into another tenant"
	Objects   Family = "objects outside row security"
	Roles     Family = "roles and grants"
	Plans     Family = "plans and functions"
	Catalogs  Family = "catalogs, statistics, EXPLAIN"
	Channels  Family = "replication and side channels"
	Backfills Family = "backfills by the owner"
	Fences    Family = "around a fence"
	Homes     Family = "other tenants' homes"
)

// Families returns the families in the order of reports.
func Families() []Family {
	return []Family{Inline, Stacked, Seals, Context, Residue, Oracles, Writes, Objects, Roles, Plans, Catalogs, Channels,
		Backfills, Fences, Homes}
}

// Vector is what the attacker has.
type Vector string

// The vectors.
const (
	// Injection puts text into one statement that an application sends for its own tenant.
	Injection Vector = "injection"
	// Password is the stolen password of the app's login and nothing else.
	Password Vector = "password"
	// Seal is the stolen password, and a fresh seal of the attacker's own tenant.
	Seal Vector = "password and own seal"
	// Mistake is a migration of the app's own developers that opens a door.
	Mistake Vector = "careless migration"
)

// Outcome is what came of an attack.
type Outcome string

// The outcomes, from good to bad.
const (
	// Refused says that PostgreSQL or the SDK refused it, for the reason that was expected.
	Refused Outcome = "refused"
	// Harmless says that it ran and showed nothing but the attacker's own, as it may.
	Harmless Outcome = "harmless"
	// Accepted says that it went through and that nothing can be done about it: no superuser
	// prepared the database, where PostgreSQL's own functions are then anybody's, or it is a limit
	// that the threat model names. The detail says what came of it, as an outcome.
	Accepted Outcome = "accepted"
	// Ran says that it ran where it is to be refused, and showed nothing but the attacker's own.
	Ran Outcome = "ran"
	// Astray says that it failed for another reason than it should: it shows nothing.
	Astray Outcome = "astray"
	// Told says that the attacker learnt whether another tenant has a value.
	Told Outcome = "told"
	// Stopped says that another tenant's session was ended or held up.
	Stopped Outcome = "stopped"
	// Entered says that the session was in another tenant.
	Entered Outcome = "entered"
	// Wrote says that another tenant's rows changed, or what guards them, or rows behind a fence.
	Wrote Outcome = "wrote"
	// Read says that bytes of another tenant came back.
	Read Outcome = "read"
)

// Leak reports whether the attacker got what the attack was for.
func (o Outcome) Leak() bool { return o.rank() >= slices.Index(outcomes(), Told) }

// Held reports whether the defence stood as it should.
func (o Outcome) Held() bool { return o.rank() <= slices.Index(outcomes(), Accepted) }

func (o Outcome) rank() int { return slices.Index(outcomes(), o) }

func outcomes() []Outcome {
	return []Outcome{Refused, Harmless, Accepted, Ran, Astray, Told, Stopped, Entered, Wrote, Read}
}

// Attack is one attack. What it sends is not exported: [Run] fills it in for the place that is
// attacked.
type Attack struct {
	// ID is a stable short name.
	ID string
	// Family is what it goes for, Vector what the attacker has.
	Family Family
	Vector Vector
	// Tries says in words what it does.
	Tries string
	// Success is the outcome that would be a success for the attacker.
	Success Outcome

	script
}

// script is what an attack sends. One of inject, statement and session is set, or do.
//
// In the texts {victim} is the other tenant's uid, {own} and {their} the schemas of attacker
// and victim, {set} a setting that carries the tenant, {enter} the statement by which the
// attacker enters its own tenant; arena.fill has the others.
type script struct {
	before    string // what the victim's application sends first, on the same session
	do        func(context.Context, *arena) (trace, error)
	inject    string   // appended to SELECT title FROM app.note WHERE id = 1
	statement string   // one statement through the SDK
	session   []string // sent one after the other on a connection of the attacker's
	migration string   // what a developer ships first
	undo      string   // takes the migration back
	oracle    bool     // tried with {probe} as a value that the victim has, and as one that nobody has

	refused string // SQLSTATEs, or words for errors of the SDK, of which one is expected; "" if it may run
	first   bool   // the first statement must be the one that is refused, whatever comes of the rest
	revoked bool   // the refusal is a right that only a superuser can take
	limit   bool   // it goes through in some model, and nothing can be done: see docs/threat-model.md
	models  string // the models where it makes sense; "" is all
	ours    bool   // makes sense on our rungs only
}

// Attacks returns all attacks, by family.
func Attacks() []Attack {
	return slices.Concat(inline(), stacked(), seals(), contexts(), residue(), oracles(), writes(), objects(), roles(), plans(),
		catalogs(), channels(), backfills(), fences(), homes())
}

// each fills in what all of a list have in common.
func each(f Family, v Vector, success Outcome, list []Attack) []Attack {
	for i := range list {
		a := &list[i]
		a.Family, a.Vector, a.Success = f, cmp.Or(a.Vector, v), cmp.Or(a.Success, success)
	}
	return list
}
