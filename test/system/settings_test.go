package system

import (
	"context"
	"fmt"
	"testing"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

// What an operator sets for a tenant shapes the app's answers to that tenant, and to no other, until it is taken back.
func TestSettingsShapeTheApp(t *testing.T) {
	t.Parallel()
	h := shared(t)
	const many = 3
	clients := map[string]notesv1.NotesServiceClient{}
	for _, id := range []string{"shaped", "unshaped"} {
		host := h.tenant(t, id)
		for i := range many {
			h.write(t, host, fmt.Sprintf("note %d", i))
		}
		clients[id] = notesv1.NewNotesServiceClient(h.front(t, host, false))
	}
	want := func(ctx context.Context, id string, size int32, want int) error {
		list, err := clients[id].ListNotes(ctx, &notesv1.ListNotesRequest{PageSize: size})
		if err == nil && len(list.GetNotes()) != want {
			err = fmt.Errorf("%s gets %d notes, want %d", id, len(list.GetNotes()), want)
		}
		return err
	}
	if err := want(t.Context(), "shaped", 0, many); err != nil {
		t.Fatal(err)
	}
	documents := configv1.NewDocumentServiceClient(h.operator(t, "config"))
	const name = "tenants/shaped/config/" + app
	_, err := documents.UpdateDocument(t.Context(), &configv1.UpdateDocumentRequest{
		Document: &configv1.Document{Name: name, Content: `{"page_size":2}`}, AllowMissing: true, Reason: "a test of settings",
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, settle, func() error { return want(t.Context(), "shaped", 0, 2) })
	for id, size := range map[string]int32{"unshaped": 0, "shaped": many} { // the neighbour; who asks for a number
		if err := want(t.Context(), id, size, many); err != nil {
			t.Error(err)
		}
	}
	_, err = documents.UpdateDocument(t.Context(), &configv1.UpdateDocumentRequest{
		Document: &configv1.Document{Name: name, Content: `{"page_size":0}`}, AllowMissing: true, Reason: "a test of settings",
	})
	if got := verdict(err); got != "InvalidArgument SCHEMA_VIOLATION" {
		t.Errorf("a page of none: %s", got)
	}
	if _, err := documents.DeleteDocument(t.Context(), &configv1.DeleteDocumentRequest{Name: name}); err != nil {
		t.Fatal(err)
	}
	eventually(t, settle, func() error { return want(t.Context(), "shaped", 0, many) })
}
