package notes

import (
	"testing"

	"github.com/google/uuid"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

// A request_id gives the note of the first request, changed or not, and is of no other request.
func TestCreateReplays(t *testing.T) {
	t.Parallel()
	db := dbtest.New(t, dbtest.Migrations(Migrations()))
	acme, notes := db.In(t, "acme"), New(db.DB)
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
