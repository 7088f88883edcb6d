package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/apiattack"
)

const importService = "notes.v1.ImportService"

// imports is the API of a tenant's imports, through the front door.
func (n neighbours) imports(t *testing.T, id string) notesv1.ImportServiceClient {
	t.Helper()
	return notesv1.NewImportServiceClient(n.h.front(t, app+"."+id+".localhost", false))
}

// stage has a tenant keep one row of an import, and begins it.
func stageImport(ctx context.Context, c notesv1.ImportServiceClient, title string, start bool) (name string, err error) {
	name = "imports/" + uuid.NewString()
	_, err = c.AddImportRows(ctx, &notesv1.AddImportRowsRequest{Name: name, Rows: []*notesv1.ImportRow{{Title: title}}})
	if err == nil && start {
		_, err = c.StartImport(ctx, &notesv1.StartImportRequest{Name: name})
	}
	return name, err
}

// crossImport is the case of a method that names an import: B names A's.
func crossImport(call func(context.Context, notesv1.ImportServiceClient, string) error) func(context.Context, *testing.T, neighbours) error {
	return func(ctx context.Context, t *testing.T, n neighbours) error {
		name, err := stageImport(ctx, n.imports(t, n.a), ofA, true)
		if err != nil {
			return err
		}
		return absent(call(ctx, n.imports(t, n.b), name))
	}
}

// crossAddedRows has B add rows to an import of A's.
func crossAddedRows(ctx context.Context, t *testing.T, n neighbours) error {
	a, b := n.imports(t, n.a), n.imports(t, n.b)
	name, err := stageImport(ctx, a, ofA, false)
	if err != nil {
		return err
	}
	rows := []*notesv1.ImportRow{{Title: "of B"}}
	if _, err := b.AddImportRows(ctx, &notesv1.AddImportRowsRequest{Name: name, Number: 1, Rows: rows}); err != nil {
		return err
	}
	started, err := a.StartImport(ctx, &notesv1.StartImportRequest{Name: name})
	return crossed(err, started.GetImport().GetRowsTotal() != 1)
}

// crossStart has B start an import of A's.
func crossStart(ctx context.Context, t *testing.T, n neighbours) error {
	name, err := stageImport(ctx, n.imports(t, n.a), ofA, false)
	if err != nil {
		return err
	}
	_, err = n.imports(t, n.b).StartImport(ctx, &notesv1.StartImportRequest{Name: name})
	return absent(err)
}

// crossList has B list imports.
func crossList(ctx context.Context, t *testing.T, n neighbours) error {
	name, err := stageImport(ctx, n.imports(t, n.a), ofA, true)
	if err != nil {
		return err
	}
	list, err := n.imports(t, n.b).ListImports(ctx, &notesv1.ListImportsRequest{PageSize: 1000})
	return crossed(err, strings.Contains(list.String(), name))
}

// doneImport is an import that was begun and is over: nothing of it changes by itself any more.
func doneImport(ctx context.Context, c notesv1.ImportServiceClient, title string) (name string, err error) {
	if name, err = stageImport(ctx, c, title, true); err != nil {
		return "", err
	}
	return name, poll(ctx, settle, func() error {
		got, err := c.GetImport(ctx, &notesv1.GetImportRequest{Name: name})
		if err == nil && got.GetImport().GetEndTime() == nil {
			err = fmt.Errorf("%s goes on", name)
		}
		return err
	})
}

// attackImports is the service as the generated attacks see it: there is an import of A's to reach for.
func attackImports(t *testing.T, n neighbours) apiattack.Target {
	through := func(id string) apiattack.Party {
		return apiattack.Party{Conn: n.h.front(t, app+"."+id+".localhost", false)}
	}
	at := apiattack.Target{Victim: through(n.a), Attacker: through(n.b), Intruders: []apiattack.Intruder{
		{Name: "past the front door", Party: apiattack.Party{Conn: n.h.as(t, "gateway", app)}},
	}}
	at.Skip = map[string]string{ // whoever sends an import's name has an import of that name, of its own
		"/notes.v1.ImportService/AddImportRows": "the caller chooses the name: crossings tries it by hand",
	}
	at.Victim.Plant = func(ctx context.Context, secret string) ([]string, error) {
		name, err := doneImport(ctx, n.imports(t, n.a), secret)
		return []string{name}, err
	}
	at.Attacker.Plant = func(ctx context.Context, secret string) ([]string, error) {
		name, err := doneImport(ctx, n.imports(t, n.b), secret)
		return []string{name}, err
	}
	return at
}

// importOf is what the HTTP API says of an import.
type importOf struct {
	Name, State         string
	RowsDone, RowsTotal string
	CreateTime, EndTime string
}

func (h *house) importAt(t *testing.T, host, path string) (i importOf) {
	t.Helper()
	a := h.visit(t, visit{host: host, path: path})
	if err := json.Unmarshal([]byte(a.body), &i); err != nil || a.status != http.StatusOK {
		t.Fatalf("GET %s: %d %s", path, a.status, a.body)
	}
	return i
}

// upload begins an import of so many lines.
func (h *house) upload(t *testing.T, host, title string, rows int) (i importOf) {
	t.Helper()
	var body strings.Builder
	for n := range rows {
		fmt.Fprintf(&body, "%s %d\n", title, n)
	}
	a := h.visit(t, visit{method: http.MethodPost, host: host, path: "/imports", body: body.String()})
	if err := json.Unmarshal([]byte(a.body), &i); err != nil || a.status != http.StatusOK {
		t.Fatalf("upload: %d %s", a.status, a.body)
	}
	return i
}

// While a tenant imports many rows, whatever model it lives in, others read, and the ten rows that another imports do not wait for
// it. Every row is there once.
func TestImportsShareTheHouse(t *testing.T) {
	t.Parallel()
	const many, few = 30_000, 10
	h := hijacked(t)
	large, small := h.tenantIn(t, "import-large", inSchema), h.tenantIn(t, "import-small", inDatabase)
	reader := h.tenantIn(t, "import-reader", inShared)
	h.write(t, reader, "a note to read")
	first := h.upload(t, large, "row", many)
	second := h.upload(t, small, "row", few)
	if first.RowsTotal != strconv.Itoa(many) || second.RowsTotal != strconv.Itoa(few) {
		t.Errorf("asked for: %+v, %+v", first, second)
	}
	ended := map[string]importOf{}
	eventually(t, startWithin, func() error {
		if a := h.visit(t, visit{host: reader, path: "/notes"}); a.status != http.StatusOK || !strings.Contains(a.body, "a note to read") {
			t.Fatalf("a reader: %d %s", a.status, a.body)
		}
		for host, i := range map[string]importOf{large: first, small: second} {
			if now := h.importAt(t, host, "/"+i.Name); now.EndTime != "" {
				ended[host] = now
			}
		}
		if len(ended) < 2 {
			return errors.New("an import goes on")
		}
		return nil
	})
	if ended[small].EndTime >= ended[large].EndTime {
		t.Errorf("the small import waited for the large one: %+v, %+v", ended[small], ended[large])
	}
	for host, want := range map[string]int{large: many, small: few} {
		i := ended[host]
		if i.State != "IMPORT_STATE_DONE" || i.RowsDone != strconv.Itoa(want) {
			t.Errorf("%s: %+v, want %d rows", host, i, want)
		}
		list := h.visit(t, visit{host: host, path: "/notes?page_size=1000"})
		if got := strings.Count(list.body, `"title"`); got != min(want, 1000) {
			t.Errorf("%s lists %d notes", host, got)
		}
	}
	if page := h.visit(t, visit{host: small, path: "/"}); !strings.Contains(page.body, `id="imports"`) || !strings.Contains(page.body, "10 of 10") {
		t.Errorf("the page does not show the import: %s", page.body)
	}
}
