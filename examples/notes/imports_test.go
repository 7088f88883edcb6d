package notes

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/jobs"
	"github.com/rowhouse-platform/rowhouse/sdk/jobs/jobstest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

// importing is a site with imports that run.
func importing(t *testing.T) (*dbtest.Database, func(id, method, path, kind, body string) *httptest.ResponseRecorder) {
	t.Helper()
	db := dbtest.New(t, dbtest.Migrations(Migrations()))
	queue := jobstest.Open(t, db, jobs.Config{
		Kinds: []jobs.Kind{ImportJob()}, Classes: map[string]jobs.Class{importClass: {}}, Weight: WeightOf,
	})
	jobstest.Run(t, queue)
	site := Handler(New(db.DB, func(context.Context) Settings { return Settings{} }), func(context.Context) Look { return Look{} },
		WithImports(NewImports(db.DB, queue)))
	return db, func(id, method, path, kind, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(db.In(t, id), method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		site.ServeHTTP(w, r)
		return w
	}
}

// The app's migration is the SDK's.
func TestMigrationIsTheSDKs(t *testing.T) {
	t.Parallel()
	f, err := Migrations().Open("0004_job.sql")
	must(t, err)
	text, err := io.ReadAll(f)
	must(t, err)
	if string(text) != jobs.Migration() {
		t.Error("0004_job.sql is not jobs.Migration()")
	}
}

// Lines become notes, in their order, once each, and nothing of the upload is left.
func TestImport(t *testing.T) {
	t.Parallel()
	const many = 6000
	db, ask := importing(t)
	body := "a plain title\n\n" + `{"title":"an object","body":"with a body"}` + "\n" + strings.Repeat("again\n", many-2)
	var asked struct{ Name, RowsTotal string }
	w := ask("acme", "POST", "/imports", "application/x-ndjson", body)
	if err := json.Unmarshal(w.Body.Bytes(), &asked); err != nil || asked.RowsTotal != "6000" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(ask("acme", "GET", "/"+asked.Name, "", "").Body.String(), "IMPORT_STATE_DONE") {
		if time.Now().After(deadline) {
			t.Fatalf("never done: %s", ask("acme", "GET", "/"+asked.Name, "", "").Body)
		}
	}
	var notes, parts, first int
	must(t, db.Admin.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE number = 2 AND title = 'an object' AND body = 'with a body'),
		(SELECT count(*) FROM app.import_part) FROM app.note`).Scan(&notes, &first, &parts))
	if notes != many || first != 1 || parts != 0 {
		t.Errorf("%d notes, %d in its place, %d parts are left", notes, first, parts)
	}
	if w := ask("globex", "GET", "/"+asked.Name, "", ""); w.Code != 404 {
		t.Errorf("another tenant reads %s", w.Body)
	}
	var form bytes.Buffer
	m := multipart.NewWriter(&form)
	file, err := m.CreateFormFile("file", "notes.txt")
	must(t, err)
	_, err = io.WriteString(file, "from the page\n")
	must(t, err)
	must(t, m.Close())
	if w := ask("globex", "POST", "/imports", m.FormDataContentType(), form.String()); w.Code != 303 {
		t.Errorf("the page's form: %d %s", w.Code, w.Body)
	}
	for what, body := range map[string]string{
		"nothing": "\n\n", "no JSON": "{\n", "no row": `{"a":1}`, "a long title": strings.Repeat("x", 201), "a long line": strings.Repeat("x", 1<<17),
	} {
		if w := ask("hooli", "POST", "/imports", "text/plain", body); w.Code != 400 {
			t.Errorf("%s: %d %s", what, w.Code, w.Body)
		}
	}
	if w := ask("hooli", "DELETE", "/imports/"+strings.TrimPrefix(asked.Name, "imports/"), "", ""); w.Code != 404 {
		t.Errorf("another tenant cancels: %d", w.Code)
	}
}
