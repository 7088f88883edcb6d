package notes

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

const (
	// maxUpload bounds the body of an import, maxLine one of its rows.
	maxUpload = 1 << 30
	maxLine   = 64 << 10
	// shownImports is how many the page shows.
	shownImports = 5
)

// WithImports adds imports to the HTTP API and the page.
func WithImports(m *Imports) Option { return func(s *site) { s.imports = m } }

// routeImports adds the paths.
func (s *site) routeImports(mux *http.ServeMux) {
	if s.imports == nil {
		return
	}
	mux.HandleFunc("POST /imports", s.upload)
	mux.HandleFunc("GET /imports", s.answer(func(r *http.Request) (proto.Message, error) {
		all, err := s.imports.List(r.Context(), 0)
		return &notesv1.ListImportsResponse{Imports: all}, err
	}))
	mux.HandleFunc("GET /imports/{id}", s.answer(func(r *http.Request) (proto.Message, error) {
		return s.imports.Get(r.Context(), importNames+r.PathValue("id"))
	}))
	mux.HandleFunc("DELETE /imports/{id}", s.answer(func(r *http.Request) (proto.Message, error) {
		return s.imports.Cancel(r.Context(), importNames+r.PathValue("id"))
	}))
	mux.HandleFunc("POST /imports/{id}/retry", s.answer(func(r *http.Request) (proto.Message, error) {
		return s.imports.Retry(r.Context(), importNames+r.PathValue("id"))
	}))
}

// upload takes rows, a JSON object or a plain title in each line, as a body or as the file of the page's form, and starts their
// import. Nothing of it is held in memory but a part.
func (s *site) upload(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxUpload)
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		s.sorry(w, r, fault.New(fault.PermissionDenied, "CROSS_SITE", "the form was sent from another site"))
		return
	}
	form, rows, err := lines(r)
	var m *notesv1.Import
	if err == nil {
		m, err = s.stage(r, rows)
	}
	switch {
	case err != nil:
		s.sorry(w, r, err)
	case form:
		http.Redirect(w, r, "/", http.StatusSeeOther)
	default:
		s.answer(func(*http.Request) (proto.Message, error) { return m, nil })(w, r)
	}
}

// lines finds the rows of a request.
func lines(r *http.Request) (form bool, rows io.Reader, err error) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "multipart/form-data" {
		return false, r.Body, nil
	}
	parts, err := r.MultipartReader()
	if err != nil {
		return true, nil, invalid("file", "cannot be read")
	}
	for {
		part, err := parts.NextPart()
		if err != nil {
			return true, nil, invalid("file", "is required")
		}
		if part.FormName() == "file" {
			return true, part, nil
		}
	}
}

// stage keeps all rows, and starts the import.
func (s *site) stage(r *http.Request, from io.Reader) (*notesv1.Import, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	name, number := importNames+id.String(), int32(0)
	rows := make([]*notesv1.ImportRow, 0, partRows)
	flush := func() error { //nolint:contextcheck // the request's
		if len(rows) == 0 {
			return nil
		}
		if err := examine(&notesv1.AddImportRowsRequest{Name: name, Number: number, Rows: rows}); err != nil {
			return err
		}
		err := s.imports.Add(r.Context(), name, number, rows)
		rows, number = rows[:0], number+1
		return err
	}
	scan := bufio.NewScanner(from)
	scan.Buffer(make([]byte, 0, maxLine), maxLine)
	for scan.Scan() {
		row, err := rowOf(bytes.TrimSpace(scan.Bytes()))
		if err != nil {
			return nil, err
		}
		if row == nil {
			continue
		}
		if rows = append(rows, row); len(rows) == partRows {
			if err := flush(); err != nil {
				return nil, err
			}
		}
	}
	if err := scan.Err(); err != nil {
		return nil, unreadable(err)
	}
	if err := flush(); err != nil {
		return nil, err
	}
	if number == 0 {
		return nil, invalid("body", "holds no rows")
	}
	return s.imports.Start(r.Context(), name)
}

func unreadable(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return fault.New(fault.InvalidArgument, fault.ReasonTooLarge, "the body has more than %d bytes", maxUpload)
	}
	if errors.Is(err, bufio.ErrTooLong) {
		return invalid("body", "has a line of more than 64 KiB")
	}
	return invalid("body", "cannot be read")
}

// rowOf reads a line; nil for an empty one.
func rowOf(line []byte) (*notesv1.ImportRow, error) {
	switch {
	case len(line) == 0:
		return nil, nil //nolint:nilnil // an empty line is no row, and no mistake
	case line[0] != '{':
		return &notesv1.ImportRow{Title: string(bytes.ToValidUTF8(line, []byte("\uFFFD")))}, nil
	}
	row := new(notesv1.ImportRow)
	if !json.Valid(line) || protojson.Unmarshal(line, row) != nil {
		return nil, invalid("body", "has a line that is no row in JSON")
	}
	return row, nil
}

// recent returns what the page shows of imports.
func (s *site) recent(r *http.Request) (shown []*notesv1.Import, live bool, err error) {
	if s.imports == nil {
		return nil, false, nil
	}
	shown, err = s.imports.List(r.Context(), shownImports)
	for _, m := range shown {
		live = live || m.GetState() == notesv1.ImportState_IMPORT_STATE_QUEUED || m.GetState() == notesv1.ImportState_IMPORT_STATE_RUNNING
	}
	return shown, live, err
}
