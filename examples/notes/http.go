package notes

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"html/template"
	"io"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
)

// maxBody bounds a request's body.
const maxBody = 64 << 10

// policy lets the page show itself with the tenant's brand and send its form, and nothing else.
const policy = "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; form-action 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'"

// noLogo is the source of an image that shows nothing, until the style sheet of a draft has a logo for it.
const noLogo = "data:,"

//go:embed page.html
var page string

// Look is how the page of a tenant looks.
type Look struct {
	// Name is the tenant's brand.
	Name string
	// CSS holds custom properties of checked colours, for hosts that serve no style sheet of the brand.
	CSS template.CSS
	// Inline is a data URI of a checked image, Logo the address of an uploaded one; both may be empty.
	Inline, Logo template.URL
	// Icons are what a browser shows for the page.
	Icons []Icon
	// Count says whether the page tells how many notes it shows: the flag "note-count".
	Count bool
}

// Icon is a link of the page's head.
type Icon struct{ Rel, Path string }

// lookOf is how the page looks that has a brand.
func lookOf(b settings.Brand) Look {
	look := Look{
		Name: b.Name, CSS: template.CSS(b.CSS()), //nolint:gosec // checked by BrandFor
		Inline: template.URL(b.Logo), Logo: template.URL(b.Logos["light"].Path()), //nolint:gosec // checked by BrandFor
	}
	for _, i := range []struct{ icon, rel string }{{"svg", "icon"}, {"32", "icon"}, {"180", "apple-touch-icon"}} {
		if path := b.Icons[i.icon].Path(); path != "" {
			look.Icons = append(look.Icons, Icon{i.rel, path})
		}
	}
	return look
}

// below is the look of the page below a prefix of a host that tenants share: a brand's files are on tenants' own hosts alone.
func (l Look) below(prefix string) (look Look, sheet string) {
	if prefix != "" {
		l.Logo, l.Icons = l.Inline, nil
	} else {
		l.Logo, sheet = cmp.Or(l.Logo, l.Inline), settings.BrandPath+"brand.css"
	}
	l.Logo = cmp.Or(l.Logo, noLogo)
	return l, sheet
}

// site is the HTTP API and the page.
type site struct {
	notes *Notes
	look  func(ctx context.Context) Look
	page  *template.Template

	imports *Imports // nil without any
}

// Option adds to what [Handler] serves.
type Option func(*site)

// Handler returns the HTTP API and the page. look tells how the context's tenant
// looks. It expects a verified tenant context in every request: see
// [tenanthttp.Handler].
func Handler(n *Notes, look func(ctx context.Context) Look, options ...Option) http.Handler {
	s := &site{notes: n, look: look, page: template.Must(template.New("page").Parse(page))}
	for _, o := range options {
		o(s)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /notes", s.answer(s.list))
	mux.HandleFunc("POST /notes", s.answer(s.create))
	mux.HandleFunc("GET /notes/{id}", s.answer(s.get))
	mux.HandleFunc("PUT /notes/{id}", s.answer(s.update))
	mux.HandleFunc("DELETE /notes/{id}", s.answer(s.remove))
	mux.HandleFunc("GET /{$}", s.show)
	mux.HandleFunc("POST /{$}", s.post)
	s.routeImports(mux)
	mux.HandleFunc("/", s.nothing)
	s.hole(mux)
	return mux
}

// answer writes what a handler returns as JSON, or the problem.
func (s *site) answer(handle func(r *http.Request) (proto.Message, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		m, err := handle(r)
		if err != nil {
			tenanthttp.WriteProblem(w, r, err)
			return
		}
		b, err := protojson.Marshal(m)
		if err != nil {
			tenanthttp.WriteProblem(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "private, no-store")
		_, _ = w.Write(append(b, '\n')) // the client has gone: nobody to tell
	}
}

func (s *site) list(r *http.Request) (proto.Message, error) {
	size, err := strconv.ParseInt("0"+r.URL.Query().Get("page_size"), 10, 32)
	if err != nil {
		return nil, invalid("page_size", "is a number")
	}
	in := &notesv1.ListNotesRequest{PageSize: int32(size), Query: r.URL.Query().Get("query")}
	if err := examine(in); err != nil {
		return nil, err
	}
	notes, err := s.notes.List(r.Context(), in.GetPageSize(), in.GetQuery())
	return &notesv1.ListNotesResponse{Notes: notes}, err
}

func (s *site) get(r *http.Request) (proto.Message, error) {
	return s.notes.Get(r.Context(), namePrefix+r.PathValue("id"))
}

func (s *site) create(r *http.Request) (proto.Message, error) {
	note, err := read(r)
	if err != nil {
		return nil, err
	}
	return s.write(r, note)
}

// write writes a new note of the API's or the page's.
func (s *site) write(r *http.Request, note *notesv1.Note) (*notesv1.Note, error) {
	if err := examine(&notesv1.CreateNoteRequest{Note: note}); err != nil {
		return nil, err
	}
	return s.notes.Create(r.Context(), "", note.GetTitle(), note.GetBody())
}

func (s *site) update(r *http.Request) (proto.Message, error) {
	note, err := read(r)
	if err == nil {
		err = examine(&notesv1.UpdateNoteRequest{Note: note})
	}
	if err != nil {
		return nil, err
	}
	return s.notes.Update(r.Context(), namePrefix+r.PathValue("id"), note.GetTitle(), note.GetBody())
}

func (s *site) remove(r *http.Request) (proto.Message, error) {
	return &notesv1.DeleteNoteResponse{}, s.notes.Delete(r.Context(), namePrefix+r.PathValue("id"))
}

// examine holds what came over HTTP to the same rules as what comes over gRPC.
func examine(in proto.Message) error { return tenantgrpc.Examine(in, tenantgrpc.Examination{}) }

// read reads a note from a JSON body.
func read(r *http.Request) (*notesv1.Note, error) {
	b, err := io.ReadAll(r.Body)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, fault.New(fault.InvalidArgument, fault.ReasonTooLarge, "the body has more than %d bytes", maxBody)
	}
	if err != nil {
		return nil, invalid("body", "cannot be read")
	}
	note := new(notesv1.Note)
	if !json.Valid(b) || protojson.Unmarshal(b, note) != nil {
		return nil, invalid("body", "is not a note in JSON")
	}
	return note, nil
}

// view is what the page shows.
type view struct {
	Look    Look
	Sheet   string // the brand's style sheet, on the tenant's own hosts
	Tenant  string
	Plan    string
	Prefix  string
	Notes   []*notesv1.Note
	Problem string // why what was asked for was not done; empty when it was
	Title   string // what was typed and not taken

	CanImport bool
	Imports   []*notesv1.Import
	Live      bool // one of them goes on: the page looks again
}

// show writes the page.
func (s *site) show(w http.ResponseWriter, r *http.Request) { s.render(w, r, nil) }

// nothing answers paths that lead nowhere.
func (s *site) nothing(w http.ResponseWriter, r *http.Request) {
	s.sorry(w, r, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "there is nothing here"))
}

// sorry answers a refusal: browsers get the page that says so, programs the problem.
func (s *site) sorry(w http.ResponseWriter, r *http.Request, err error) {
	refusal, ok := fault.As(err)
	if !ok || tenanthttp.Status(err) == http.StatusInternalServerError || !strings.Contains(r.Header.Get("Accept"), "text/html") {
		tenanthttp.WriteProblem(w, r, err)
		return
	}
	s.render(w, r, refusal)
}

// render writes the page, with a refusal when there is one.
func (s *site) render(w http.ResponseWriter, r *http.Request, refusal *fault.Error) {
	tc, err := tenant.FromContext(r.Context())
	if err != nil {
		tenanthttp.WriteProblem(w, r, err)
		return
	}
	notes, err := s.notes.List(r.Context(), 0, "")
	if err != nil {
		tenanthttp.WriteProblem(w, r, err)
		return
	}
	v := view{Tenant: tc.ID().String(), Plan: tc.Plan(), Prefix: r.Header.Get("X-Forwarded-Prefix"), Notes: notes}
	v.Look, v.Sheet = s.look(r.Context()).below(v.Prefix)
	v.CanImport = s.imports != nil
	if v.Imports, v.Live, err = s.recent(r); err != nil {
		tenanthttp.WriteProblem(w, r, err)
		return
	}
	status := http.StatusOK
	if refusal != nil {
		v.Problem, v.Title, status = refusal.Message, r.PostForm.Get("title"), tenanthttp.Status(refusal)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "private, no-store")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = s.page.Execute(w, v) // the client has gone: nobody to tell
}

// post writes a note from the page's form and shows the page again.
func (s *site) post(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		s.sorry(w, r, fault.New(fault.PermissionDenied, "CROSS_SITE", "the form was sent from another site"))
		return
	}
	note := &notesv1.Note{Title: r.PostFormValue("title"), Body: r.PostFormValue("body")}
	if _, err := s.write(r, note); err != nil {
		s.sorry(w, r, err)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther) // below a shared host the gateway puts the prefix before it
}
