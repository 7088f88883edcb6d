// Package notes is the example app: a product service that keeps its tenants' notes.
//
// It is written as a product team would: it imports the SDK and nothing else of ours.
// Three places make it tenant-safe, and they are all there is: the verifier that reads
// the tenant from each call (in [Run]), the database handle that enters it (in [Open]),
// and migrations whose tables are secured. No query and no handler names a tenant.
package notes

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
)

// The statements. None of them names a tenant: PostgreSQL does.
//
//nolint:gochecknoglobals // statements are constants in all but syntax
var (
	listNotes = tenantdb.Stmt(`SELECT id::text, title, body, create_time FROM app.note
		ORDER BY create_time DESC, id LIMIT $1`)
	findNotes = tenantdb.Stmt(`SELECT id::text, title, body, create_time FROM app.note
		WHERE strpos(title, $2) > 0 ORDER BY create_time DESC, id LIMIT $1`)
	laterNotes = tenantdb.Stmt(`SELECT id::text, title, body, create_time, number FROM app.note
		WHERE (number, id) > ($1, $2) ORDER BY number, id LIMIT 1000`)
	getNote    = tenantdb.Stmt(`SELECT id::text, title, body, create_time FROM app.note WHERE id = $1`)
	createNote = tenantdb.Stmt(`WITH next AS (INSERT INTO app.note_count AS count (last) VALUES (1)
		ON CONFLICT (tenant_id) DO UPDATE SET last = count.last + 1 RETURNING last)
		INSERT INTO app.note (id, title, body, request_digest, number) SELECT $1, $2, $3, $4, last FROM next
		ON CONFLICT (tenant_id, id) DO UPDATE SET id = excluded.id
		RETURNING id::text, title, body, create_time, coalesce(request_digest = $4, true)`)
	updateNote = tenantdb.Stmt(`UPDATE app.note SET title = $2, body = $3 WHERE id = $1
		RETURNING id::text, title, body, create_time`)
	deleteNote = tenantdb.Stmt(`DELETE FROM app.note WHERE id = $1`)
)

const (
	namePrefix  = "notes/"
	defaultPage = 50
	maxPage     = 1000
)

// Settings are what operators may set for a plan or a tenant: the namespace "notes" of
// the config service.
type Settings struct {
	// PageSize is how many notes a list holds that asks for no number. Default 50.
	PageSize int `json:"page_size"`
}

// Notes are the notes of whichever tenant a context is for.
type Notes struct {
	db       *tenantdb.DB
	settings func(context.Context) Settings
}

// New returns the notes in db. settings tells what holds for the context's tenant.
func New(db *tenantdb.DB, settings func(context.Context) Settings) *Notes {
	return &Notes{db, settings}
}

// List returns the newest notes, all or those whose title holds query.
func (n *Notes) List(ctx context.Context, size int32, query string) ([]*notesv1.Note, error) {
	limit := min(cmp.Or(int(size), n.settings(ctx).PageSize, defaultPage), maxPage)
	if query != "" {
		return n.collect(n.db.Query(ctx, findNotes, limit, query))
	}
	return n.collect(n.db.Query(ctx, listNotes, limit))
}

// Cursor is how far a reader of [Notes.After] has come. The zero value is before all.
type Cursor struct {
	number int64
	id     uuid.UUID
}

// After returns notes in the order in which they appeared, from after the cursor on, and
// where to go on. A note that is committed later never comes before the cursor.
func (n *Notes) After(ctx context.Context, c Cursor) ([]*notesv1.Note, Cursor, error) {
	rows, err := n.db.Query(ctx, laterNotes, c.number, c.id.String())
	if err != nil {
		return nil, c, err
	}
	notes, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*notesv1.Note, error) { return scan(row, &c.number) })
	if err == nil && len(notes) > 0 {
		c.id, err = uuid.Parse(strings.TrimPrefix(notes[len(notes)-1].GetName(), namePrefix))
	}
	return notes, c, err
}

// Get returns one note.
func (n *Notes) Get(ctx context.Context, name string) (*notesv1.Note, error) {
	id, err := idOf(name)
	if err != nil {
		return nil, err
	}
	return found(scan(n.db.QueryRow(ctx, getNote, id)))
}

// Create writes a note. With the id of an earlier call it returns that note as it is
// now, if that call asked for the same.
func (n *Notes) Create(ctx context.Context, id, title, body string) (*notesv1.Note, error) {
	if id == "" {
		id = uuid.NewString()
	}
	digest := sha256.Sum256([]byte(title + "\x00" + body)) // requests hold no NUL
	var same bool
	note, err := scan(n.db.QueryRow(ctx, createNote, id, title, body, digest[:]), &same)
	if err == nil && !same {
		return nil, fault.New(fault.InvalidArgument, fault.ReasonRequestIDReused, "the request_id belongs to another request")
	}
	return note, err
}

// Update changes a note.
func (n *Notes) Update(ctx context.Context, name, title, body string) (*notesv1.Note, error) {
	id, err := idOf(name)
	if err != nil {
		return nil, err
	}
	return found(scan(n.db.QueryRow(ctx, updateNote, id, title, body)))
}

// Delete removes a note.
func (n *Notes) Delete(ctx context.Context, name string) error {
	id, err := idOf(name)
	if err != nil {
		return err
	}
	rows, err := n.db.Exec(ctx, deleteNote, id)
	if err == nil && rows == 0 {
		return missing()
	}
	return err
}

func (n *Notes) collect(rows *tenantdb.Rows, err error) ([]*notesv1.Note, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*notesv1.Note, error) { return scan(row) })
}

// scan reads one note, and into more what stands behind it.
func scan(row interface{ Scan(dest ...any) error }, more ...any) (*notesv1.Note, error) {
	note := new(notesv1.Note)
	var id string
	var created time.Time
	if err := row.Scan(append([]any{&id, &note.Title, &note.Body, &created}, more...)...); err != nil {
		return nil, err
	}
	note.Name, note.CreateTime = namePrefix+id, timestamppb.New(created)
	return note, nil
}

// found tells a note that is not there, or another tenant's: nobody can tell which.
func found(note *notesv1.Note, err error) (*notesv1.Note, error) {
	if errors.Is(err, tenantdb.ErrNoRows) {
		return nil, missing()
	}
	return note, err
}

func missing() error {
	return fault.New(fault.NotFound, fault.ReasonResourceNotFound, "there is no such note")
}

func invalid(field, rule string) error {
	return fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "%s %s", field, rule).
		WithField(fault.FieldViolation{Field: field, Description: rule})
}

// idOf reads "notes/{uuid}".
func idOf(name string) (string, error) {
	const uuidText = 36 // other spellings are other names
	id, ok := strings.CutPrefix(name, namePrefix)
	if !ok || len(id) != uuidText || uuid.Validate(id) != nil {
		return "", missing()
	}
	return id, nil
}
