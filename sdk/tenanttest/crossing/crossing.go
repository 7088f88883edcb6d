// Package crossing looks for tenants that meet on a shared connection.
//
// Many clients run transactions of many tenants through the few backends of a pooler. Some
// transactions are cancelled in the middle, some panic, some run out of time, some fail in
// the database. What the next user of the backend then sees of another tenant is a crossing;
// a sound transaction that fails was poisoned by another.
//
// [Sealed] is how tenantdb does it, and never crosses. [Session] is a recipe in wide use, a
// setting of the session: through a pooler in transaction mode it crosses at once, which
// shows that the search finds what there is. The package needs no testing.T. Start at [Run].
package crossing

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
)

// Hurt is what befalls a transaction in the middle.
type Hurt uint8

// The hurts.
const (
	// Sound transactions end well.
	Sound Hurt = iota
	// Cancelled ones lose their context between two statements.
	Cancelled
	// Panicked ones panic.
	Panicked
	// TimedOut ones reach their deadline while the database works for them.
	TimedOut
	// Failed ones send a statement that the database refuses.
	Failed

	hurts
)

// String returns the name.
func (h Hurt) String() string {
	return [...]string{"sound", "cancelled", "panicked", "timed out", "failed"}[h]
}

const (
	// patience is the deadline of a transaction that is to time out, in its slow statement
	// or on the way to it.
	patience = 20 * time.Millisecond
	// oneIn so many transactions is hurt in each way.
	oneIn = 25
	// places is how many rows a tenant has: few, so that looking at all is cheap, and
	// several, so that transactions of one tenant seldom wait for one another.
	places = 8
	// shown bounds the examples of a report.
	shown = 5
)

// Options say how much to run.
type Options struct {
	// Clients run at the same time.
	Clients int
	// Transactions is how many they run in all.
	Transactions int
	// Tenants is how many tenants there are; they are numbered from 0.
	Tenants int
	// Seed makes the same choices again. What meets what stays up to the scheduler.
	Seed uint64
}

// Visit is one transaction: the recipe counts a visit to a place of the tenant, and shows
// whose rows it sees before and after.
type Visit struct {
	// Tenant is whom the transaction is for. Rows that it writes carry this number.
	Tenant int
	// Place is the row to count at.
	Place int
	// Hurt is for the recipe to arrange by [Visit.Middle].
	Hurt Hurt

	cancel context.CancelFunc
	seen   []int
}

// Saw notes the owner of a row that the transaction could read.
func (v *Visit) Saw(owner int) { v.seen = append(v.seen, owner) }

// Middle hurts the transaction, where slow and bad send a slow statement and one that fails.
func (v *Visit) Middle(slow, bad func() error) error {
	switch v.Hurt {
	case Cancelled:
		v.cancel()
	case Panicked:
		panic(v)
	case TimedOut:
		return slow()
	case Failed:
		return bad()
	}
	return nil
}

// errEnter is the error of a recipe that got no context of the tenant, so that the database saw
// nothing of the transaction.
var errEnter = errors.New("no context of the tenant")

// Recipe runs one transaction.
type Recipe func(context.Context, *Visit) error

// Report is what a run found.
type Report struct {
	// Transactions is how many ran, and Hurt how many of them in which way, by name.
	Transactions int            `json:"transactions"`
	Hurt         map[string]int `json:"hurt"`
	// Seen counts the rows that were looked at.
	Seen int64 `json:"rows_seen"`
	// Crossed counts the transactions that saw a row of another tenant, or none where
	// they had just written one.
	Crossed int64 `json:"crossed"`
	// Poisoned counts the sound transactions that failed.
	Poisoned int64 `json:"poisoned"`
	// Overloaded counts the sound transactions that waited too long for a connection.
	Overloaded int64 `json:"overloaded"`
	// Unentered counts the sound transactions that did not begin, for want of a context of
	// their tenant: they show nothing.
	Unentered int64 `json:"unentered"`
	// Took is the time of all.
	Took time.Duration `json:"took"`
	// Examples are the first few of Crossed and Poisoned, in words.
	Examples []string `json:"examples,omitempty"`
}

// String returns one line.
func (r Report) String() string {
	hurt := make([]string, 0, len(r.Hurt))
	for h := Cancelled; h < hurts; h++ {
		hurt = append(hurt, fmt.Sprintf("%d %s", r.Hurt[h.String()], h))
	}
	line := fmt.Sprintf("%d transactions (%s), %d rows seen: %d crossed, %d poisoned, %d overloaded, %d not entered, in %s",
		r.Transactions, strings.Join(hurt, ", "), r.Seen, r.Crossed, r.Poisoned, r.Overloaded, r.Unentered, r.Took.Round(time.Millisecond))
	if len(r.Examples) > 0 {
		line += "; " + strings.Join(r.Examples, "; ")
	}
	return line
}

// run is a run in progress.
type run struct {
	options Options
	recipe  Recipe
	left    atomic.Int64

	mu     sync.Mutex
	report Report // guarded by mu
}

// Run runs the transactions, and at the end a sound one of every tenant, which sees what all
// others left. The error is one of the options; what the transactions met is in the report.
func Run(ctx context.Context, o Options, recipe Recipe) (Report, error) {
	if o.Clients < 1 || o.Transactions < 1 || o.Tenants < 2 {
		return Report{}, errors.New("crossing: want clients, transactions and at least two tenants")
	}
	r := &run{options: o, recipe: recipe, report: Report{Hurt: map[string]int{}}}
	r.left.Store(int64(o.Transactions))
	start := time.Now()
	var clients sync.WaitGroup
	for client := range o.Clients {
		clients.Go(func() { r.client(ctx, rand.New(rand.NewPCG(o.Seed, uint64(client)))) }) //nolint:gosec // a repeatable choice
	}
	clients.Wait()
	for tenant := range o.Tenants {
		r.visit(ctx, &Visit{Tenant: tenant})
	}
	r.report.Took = time.Since(start)
	return r.report, ctx.Err()
}

// client runs transactions until there are enough.
func (r *run) client(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil && r.left.Add(-1) >= 0 {
		hurt := Sound
		if h := random.IntN(oneIn); h < int(hurts) {
			hurt = Hurt(h) //nolint:gosec // below hurts
		}
		r.visit(ctx, &Visit{Tenant: random.IntN(r.options.Tenants), Place: random.IntN(places), Hurt: hurt})
	}
}

// visit runs one transaction and judges what it saw.
func (r *run) visit(ctx context.Context, v *Visit) {
	if v.Hurt == TimedOut {
		ctx, v.cancel = context.WithTimeout(ctx, patience)
	} else {
		ctx, v.cancel = context.WithCancel(ctx)
	}
	defer v.cancel()
	err := guarded(ctx, r.recipe, v)
	r.note(v, err)
}

// guarded turns the visit's own panic into an error. Others go on.
func guarded(ctx context.Context, recipe Recipe, v *Visit) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case v:
			err = errors.New("panic")
		default:
			panic(p)
		}
	}()
	return recipe(ctx, v)
}

func (r *run) note(v *Visit, err error) {
	foreign := slices.IndexFunc(v.seen, func(owner int) bool { return owner != v.Tenant })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Transactions++
	r.report.Hurt[v.Hurt.String()]++
	r.report.Seen += int64(len(v.seen))
	sound := v.Hurt == Sound
	switch {
	case foreign >= 0:
		r.report.Crossed++
		r.examplef("tenant %d saw a row of tenant %d", v.Tenant, v.seen[foreign])
	case sound && err == nil && len(v.seen) == 0:
		r.report.Crossed++
		r.examplef("tenant %d did not see its own row", v.Tenant)
	case sound && errors.Is(err, tenantdb.ErrAdmission):
		r.report.Overloaded++
	case sound && errors.Is(err, errEnter):
		r.report.Unentered++
	case sound && err != nil:
		r.report.Poisoned++
		r.examplef("tenant %d: %v", v.Tenant, err)
	}
}

func (r *run) examplef(format string, args ...any) {
	if len(r.report.Examples) < shown {
		r.report.Examples = append(r.report.Examples, fmt.Sprintf(format, args...))
	}
}
