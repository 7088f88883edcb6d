package tenantdb

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/readtoken"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// positionAnswer is what comes behind a commit.
type positionAnswer struct {
	pgx.BatchResults
	position
}

func (a positionAnswer) QueryRow() pgx.Row { return a }

func (a positionAnswer) Scan(dest ...any) error {
	*dest[0].(*int32), *dest[1].(*int64) = a.timeline, a.lsn
	return nil
}

// Parallel commits of one caller, here and in another process, are answered in any order.
func TestTokenCoversAllCommitsOfItsContext(t *testing.T) {
	t.Parallel()
	tokens, err := newTokens(nil)
	if err != nil {
		t.Fatal(err)
	}
	tc := tenanttest.NewIssuer(t, nil).Context(t, "acme")
	process := func() (*DB, place) {
		return &DB{tokens: tokens}, place{pool: &pool{readers: &readers{}}, tenant: tc}
	}
	db, at := process()
	ctx := readtoken.NewContext(t.Context(), "")
	commit := func(p position, want position) {
		t.Helper()
		db.committed(ctx, at, time.Now(), positionAnswer{position: p})
		token, _ := readtoken.FromContext(ctx)
		if got, ok := tokens.open(at, token); !ok || got != want {
			t.Errorf("after %v the token is of %v, %t; want %v", p, got, ok, want)
		}
	}
	commit(position{1, 100}, position{1, 100})
	commit(position{1, 90}, position{1, 100})
	db, at = process() // which does not know of that
	commit(position{1, 95}, position{1, 100})
	commit(position{2, 50}, position{2, 50})
	// The answer of a call to another process comes beside it.
	readtoken.Note(ctx, "", tokens.seal(at, position{2, 70}))
	if w, why := db.demand(ctx, at, txOptions{}); why != "" || w.commit != (position{2, 70}) {
		t.Errorf("the read waits for %v, %q", w.commit, why)
	}
	commit(position{2, 60}, position{2, 70})

	at.doubt(ctx)
	db.committed(ctx, at, time.Now(), positionAnswer{position: position{2, 80}})
	if token, _ := readtoken.FromContext(ctx); token != readtoken.Unknown {
		t.Errorf("a commit in doubt is forgotten for %q", token)
	}
}
