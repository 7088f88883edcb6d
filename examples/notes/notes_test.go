package notes

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// A request_id gives the note of the first request, changed or not, and is of no other request.
func TestCreateReplays(t *testing.T) {
	t.Parallel()
	db := dbtest.New(t, dbtest.Migrations(Migrations()))
	acme, notes := db.In(t, "acme"), New(db.DB, func(context.Context) Settings { return Settings{} })
	id := uuid.NewString()
	first, err := notes.Create(acme, id, "title", "body")
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range [][2]string{{"another title", "body"}, {"title", "another body"}} {
		if _, err := notes.Create(acme, id, other[0], other[1]); fault.ReasonOf(err) != fault.ReasonRequestIDReused {
			t.Errorf("%q: %v, want %s", other, err, fault.ReasonRequestIDReused)
		}
	}
	if _, err := notes.Update(acme, first.GetName(), "changed", ""); err != nil {
		t.Fatal(err)
	}
	again, err := notes.Create(acme, id, "title", "body")
	if err != nil || again.GetName() != first.GetName() || again.GetTitle() != "changed" {
		t.Errorf("the replay gives %v, %v; want the note as it is now", again, err)
	}
	if other, err := notes.Create(db.In(t, "globex"), id, "of globex", ""); err != nil || other.GetTitle() != "of globex" {
		t.Errorf("the same request_id of another tenant: %v, %v", other, err)
	}
}

func TestNamesThatAreNone(t *testing.T) {
	t.Parallel()
	const good = "6f3c2a9e-0b1d-4c5e-8f70-1a2b3c4d5e6f"
	if _, err := idOf("notes/" + good); err != nil {
		t.Error(err)
	}
	for _, name := range []string{
		"", "notes/", good, "note/" + good, "notes/x", "notes/" + good + "0", "notes/{" + good[2:] + "}",
		"notes/----6f3c2a9e0b1d4c5e8f701a2b3c4d5e6f", "notes/urn:uuid:" + good,
	} {
		if id, err := idOf(name); fault.ReasonOf(err) != fault.ReasonResourceNotFound {
			t.Errorf("%q: %s, %v", name, id, err)
		}
	}
}

// A reader of After sees a note that was begun before another and committed after it.
func TestAfterOvertakesNobody(t *testing.T) {
	t.Parallel()
	db := dbtest.New(t, dbtest.Migrations(Migrations()))
	acme, notes := db.In(t, "acme"), New(db.DB, func(context.Context) Settings { return Settings{} })
	var cursor Cursor
	var seen []string
	read := func() error {
		found, next, err := notes.After(acme, cursor)
		cursor = next
		for _, note := range found {
			seen = append(seen, note.GetTitle())
		}
		return err
	}
	first, second := make(chan error, 1), make(chan error, 1)
	written, may := make(chan struct{}), make(chan struct{})
	commit := sync.OnceFunc(func() { close(may) })
	defer commit()
	go func() {
		first <- db.DB.Tx(acme, func(tx *tenantdb.Tx) error {
			_, err := tx.Exec(acme, createNote, uuid.NewString(), "first", "", make([]byte, sha256.Size))
			close(written)
			<-may
			return err
		})
	}()
	<-written
	go func() {
		_, err := notes.Create(acme, "", "second", "")
		second <- err
	}()
	untilBlocked(t, db, second)
	err := read() // the second alone, if it did not wait
	commit()
	if err := errors.Join(err, <-first, <-second, read()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"first", "second"}; !slices.Equal(seen, want) {
		t.Errorf("seen %q, want %q", seen, want)
	}
}

// untilBlocked waits until a statement waits for a lock, or there is a result, which stays.
func untilBlocked(t *testing.T, db *dbtest.Database, result chan error) {
	t.Helper()
	for {
		var waits bool
		err := db.Admin.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
			WHERE NOT l.granted AND a.datname = current_database())`).Scan(&waits)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-result:
			result <- err
			return
		default:
		}
		if waits {
			return
		}
	}
}

// Whoever reads while many write sees each note once.
func TestAfterWhileManyWrite(t *testing.T) {
	t.Parallel()
	const writers, each = 6, 40
	db := dbtest.New(t, dbtest.Migrations(Migrations()), dbtest.Configure(func(c *tenantdb.Config) {
		to := c.Cells[tenanttest.Cell]
		to.MaxConns = writers + 1
		c.Cells[tenanttest.Cell] = to
	}))
	acme, notes := db.In(t, "acme"), New(db.DB, func(context.Context) Settings { return Settings{} })
	var g errgroup.Group
	for range writers {
		g.Go(func() error {
			for range each {
				if _, err := notes.Create(acme, "", "x", ""); err != nil {
					return err
				}
			}
			return nil
		})
	}
	done := make(chan error, 1)
	go func() { done <- g.Wait() }()
	seen := map[string]int{}
	var cursor Cursor
	for ended := false; ; {
		found, next, err := notes.After(acme, cursor)
		if err != nil {
			t.Fatal(err)
		}
		for _, note := range found {
			seen[note.GetName()]++
		}
		if ended && len(found) == 0 {
			break
		}
		cursor = next
		if ended {
			continue
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			ended = true
		default:
		}
	}
	for name, n := range seen {
		if n > 1 {
			t.Errorf("%s was seen %d times", name, n)
		}
	}
	if len(seen) != writers*each {
		t.Errorf("%d notes were seen of %d", len(seen), writers*each)
	}
}
