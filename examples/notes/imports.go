package notes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/jobs"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
)

// Imports are a kind of job. Operators declare it for the app under this name: rowhouse job-policies set.
const (
	ImportKind  = "import"
	importClass = "bulk"
	importNames = "imports/"
	// maxImport bounds the rows of one import, maxStaged those that a tenant has waiting.
	maxImport = 2_000_000
	maxStaged = 2 * maxImport
	// partRows is how many rows of an upload become a part.
	partRows = 2500
)

//nolint:gochecknoglobals // statements are constants in all but syntax
var (
	stagedRows = tenantdb.Stmt(`SELECT coalesce(sum(rows) FILTER (WHERE import = $1), 0)::bigint, coalesce(sum(rows), 0)::bigint,
		EXISTS (SELECT FROM app.job WHERE id = $1) FROM app.import_part`)
	addPart = tenantdb.Stmt(`INSERT INTO app.import_part (import, number, rows, data) VALUES ($1, $2, $3, $4)
		ON CONFLICT (tenant_id, import, number) DO NOTHING`)
	nextPart = tenantdb.Stmt(`SELECT number, data FROM app.import_part WHERE import = $1 AND number >= $2 ORDER BY number LIMIT 1`)
	dropPart = tenantdb.Stmt(`DELETE FROM app.import_part WHERE import = $1 AND number = $2`)
	// Uploads that nobody started for a day go, too.
	dropParts = tenantdb.Stmt(`DELETE FROM app.import_part p WHERE import = $1 OR create_time < now() - interval '1 day'
		AND NOT EXISTS (SELECT FROM app.job j WHERE j.id = p.import)`)
	takeNumbers = tenantdb.Stmt(`INSERT INTO app.note_count AS count (last) VALUES ($1)
		ON CONFLICT (tenant_id) DO UPDATE SET last = count.last + $1 RETURNING last - $1`)
	importNotes = tenantdb.Into("app.note", "id uuid", "title text", "body text", "number bigint")
)

// Imports are the imports of whichever tenant a context is for.
type Imports struct {
	db    *tenantdb.DB
	queue *jobs.Queue
}

// NewImports returns the imports in db, which queue runs: a queue with the kind of [ImportJob].
func NewImports(db *tenantdb.DB, queue *jobs.Queue) *Imports { return &Imports{db, queue} }

// ImportJob is what a queue does for imports.
func ImportJob() jobs.Kind {
	return jobs.Kind{Name: ImportKind, Class: importClass, Step: importStep, End: importEnd}
}

// WeightOf is a tenant's share of the workers, by its plan.
func WeightOf(tc tenant.Context) int {
	switch tc.Plan() {
	case "enterprise":
		return 4
	case "business":
		return 2
	default:
		return 1
	}
}

// place is how far an import is: a part, and a row in it.
type place struct {
	Part int32 `json:"part"`
	Row  int   `json:"row"`
}

// importStep writes the next rows of one part. A note's id follows from its place in the import.
func importStep(ctx context.Context, tx *tenantdb.Tx, s jobs.Step) (p jobs.Progress, err error) {
	var at place
	if s.Cursor != nil {
		if err := json.Unmarshal(s.Cursor, &at); err != nil {
			return p, jobs.Permanent(err)
		}
	}
	number, rows, err := part(ctx, tx, s.Job, at.Part)
	if errors.Is(err, tenantdb.ErrNoRows) {
		return jobs.Progress{Done: true}, nil
	}
	if err != nil {
		return p, err
	}
	if number != at.Part {
		at = place{Part: number}
	}
	some := rows[min(at.Row, len(rows)):min(at.Row+s.Rows, len(rows))]
	var last int64
	if err := tx.QueryRow(ctx, takeNumbers, len(some)).Scan(&last); err != nil {
		return p, err
	}
	if _, err := tx.InsertRows(ctx, importNotes, notesOf(s.Job, at, some, last)); err != nil {
		return p, err
	}
	at.Row += len(some)
	if at.Row >= len(rows) {
		if _, err := tx.Exec(ctx, dropPart, s.Job, at.Part); err != nil {
			return p, err
		}
		at = place{Part: at.Part + 1}
	}
	p.Rows = int64(len(some))
	p.Cursor, err = json.Marshal(at)
	return p, err
}

// part reads the first part from a number on.
func part(ctx context.Context, tx *tenantdb.Tx, id uuid.UUID, from int32) (number int32, rows []*notesv1.ImportRow, err error) {
	var data []byte
	if err := tx.QueryRow(ctx, nextPart, id, from).Scan(&number, &data); err != nil {
		return 0, nil, err
	}
	var p notesv1.ImportPart
	if err := proto.Unmarshal(data, &p); err != nil {
		return 0, nil, jobs.Permanent(fmt.Errorf("part %d: %w", number, err))
	}
	return number, p.GetRows(), nil
}

func notesOf(id uuid.UUID, at place, rows []*notesv1.ImportRow, last int64) iter.Seq[[]any] {
	return func(yield func([]any) bool) {
		for i, row := range rows {
			where := strconv.Itoa(int(at.Part)) + "/" + strconv.Itoa(at.Row+i)
			id := uuid.NewSHA1(id, []byte(where))
			if !yield([]any{[16]byte(id), row.GetTitle(), row.GetBody(), last + int64(i) + 1}) {
				return
			}
		}
	}
}

// importEnd removes what was uploaded.
func importEnd(ctx context.Context, tx *tenantdb.Tx, j jobs.Job) error {
	_, err := tx.Exec(ctx, dropParts, j.ID)
	return err
}

// Add keeps a part of an import.
func (m *Imports) Add(ctx context.Context, name string, number int32, rows []*notesv1.ImportRow) error {
	id, err := importID(name)
	if err != nil {
		return err
	}
	data, err := proto.Marshal(&notesv1.ImportPart{Rows: rows})
	if err != nil {
		return fmt.Errorf("encode a part: %w", err)
	}
	return m.db.Tx(ctx, func(tx *tenantdb.Tx) error {
		var here, all int64
		var started bool
		if err := tx.QueryRow(ctx, stagedRows, id).Scan(&here, &all, &started); err != nil {
			return err
		}
		switch n := int64(len(rows)); {
		case started:
			return fault.New(fault.FailedPrecondition, "IMPORT_STARTED", "the import was started already")
		case here+n > maxImport, all+n > maxStaged:
			return fault.New(fault.ResourceExhausted, "IMPORT_TOO_LARGE", "an import has at most %d rows, and as many again may wait", maxImport)
		}
		_, err := tx.Exec(ctx, addPart, id, number, len(rows), data)
		return err
	})
}

// Start begins an import: the job is there when the transaction commits that counts its rows.
func (m *Imports) Start(ctx context.Context, name string) (*notesv1.Import, error) {
	id, err := importID(name)
	if err != nil {
		return nil, err
	}
	var j jobs.Job
	err = m.queue.Tx(ctx, func(tx *jobs.Tx) error {
		var here, all int64
		var started bool
		if err := tx.QueryRow(ctx, stagedRows, id).Scan(&here, &all, &started); err != nil {
			return err
		}
		if !started && here == 0 {
			return noImport()
		}
		j, err = tx.Enqueue(ctx, jobs.New{ID: id, Kind: ImportKind, Rows: here})
		return err
	})
	return importOf(j), err
}

// Get returns how far an import is.
func (m *Imports) Get(ctx context.Context, name string) (*notesv1.Import, error) {
	return m.do(ctx, name, m.queue.Get)
}

// Cancel ends an import.
func (m *Imports) Cancel(ctx context.Context, name string) (*notesv1.Import, error) {
	return m.do(ctx, name, m.queue.Cancel)
}

// Retry has a dead import go on.
func (m *Imports) Retry(ctx context.Context, name string) (*notesv1.Import, error) {
	return m.do(ctx, name, m.queue.Retry)
}

func (m *Imports) do(
	ctx context.Context, name string, what func(context.Context, uuid.UUID) (jobs.Job, error),
) (*notesv1.Import, error) {
	id, err := importID(name)
	if err != nil {
		return nil, err
	}
	j, err := what(ctx, id)
	if err != nil {
		return nil, err
	}
	return importOf(j), nil
}

// List returns the newest imports.
func (m *Imports) List(ctx context.Context, size int32) ([]*notesv1.Import, error) {
	if size == 0 {
		size = defaultPage
	}
	all, err := m.queue.List(ctx, ImportKind, int(size))
	imports := make([]*notesv1.Import, len(all))
	for i, j := range all {
		imports[i] = importOf(j)
	}
	return imports, err
}

func importOf(j jobs.Job) *notesv1.Import {
	m := &notesv1.Import{
		Name: importNames + j.ID.String(), RowsDone: j.RowsDone, RowsTotal: j.RowsTotal, Problem: j.Problem,
		State:      notesv1.ImportState(notesv1.ImportState_value["IMPORT_STATE_"+string(j.State)]),
		CreateTime: timestamppb.New(j.CreateTime),
	}
	if j.Remaining > 0 {
		m.Remaining = durationpb.New(j.Remaining)
	}
	if !j.EndTime.IsZero() {
		m.EndTime = timestamppb.New(j.EndTime)
	}
	return m
}

// importID reads "imports/{uuid}".
func importID(name string) (uuid.UUID, error) {
	const uuidText = 36 // other spellings are other names
	text, ok := strings.CutPrefix(name, importNames)
	id, err := uuid.Parse(text)
	if !ok || err != nil || len(text) != uuidText || id.String() != text {
		return uuid.UUID{}, noImport()
	}
	return id, nil
}

func noImport() error {
	return fault.New(fault.NotFound, fault.ReasonResourceNotFound, "there is no such import")
}
