package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
)

// Kind is a kind of job: what to do, and in which class of resources. Operators declare it for the app under the same name.
type Kind struct {
	// Name is a label of at most 40 characters.
	Name string
	// Class is the resource class in which its jobs run, one of Config.Classes.
	Class string
	// Step does the next rows of a job inside tx, which commits them together with the cursor that it returns. It may be called
	// again with the same step when a transaction did not commit, so it does nothing outside of tx that must not happen twice. Its
	// context ends with the slice.
	//
	// An error undoes the step. It is tried again, later each time, until Config.MaxFailures in a row: then the job is DEAD.
	// One of [Permanent] ends it at once. Errors of the database or of a context that has ended do not count.
	Step func(ctx context.Context, tx *tenantdb.Tx, s Step) (Progress, error)
	// End, when set, runs in the transaction that makes a job DONE or CANCELLED, to remove what it needed. What a DEAD job
	// needed stays for [Queue.Retry].
	End func(ctx context.Context, tx *tenantdb.Tx, j Job) error
}

// Step is what is to be done next.
type Step struct {
	// Job is the job's id, Args what it was asked for with.
	Job  uuid.UUID
	Args json.RawMessage
	// Cursor is what the last committed step returned; nil at the beginning.
	Cursor []byte
	// Rows is about how many rows to do: as many as take Config.StepTime, by the steps before.
	Rows int
	// RowsDone and RowsTotal are the job's progress so far.
	RowsDone, RowsTotal int64
}

// Progress is what a step did.
type Progress struct {
	// Cursor is where the next step goes on, at most 64 KiB.
	Cursor []byte
	// Rows is how many rows were done.
	Rows int64
	// Total is how many rows the job has, when the step has found that out; 0 leaves it as it was.
	Total int64
	// Done says that it was the last step.
	Done bool
}

// State is where a job is in its life.
type State string

// The states. A job that is QUEUED or RUNNING is live.
const (
	// StateQueued is a job that waits for its first step.
	StateQueued State = "QUEUED"
	// StateRunning is a job that has begun, also between its turns.
	StateRunning State = "RUNNING"
	// StateDone is a job whose last step is committed.
	StateDone State = "DONE"
	// StateCancelled is a job that somebody ended. The rows of its committed steps stay.
	StateCancelled State = "CANCELLED"
	// StateDead is a job that cannot go on by itself; Problem says why. See [Queue.Retry].
	StateDead State = "DEAD"
)

// Live reports whether the job goes on.
func (s State) Live() bool { return s == StateQueued || s == StateRunning }

// Job is a job as its tenant sees it.
type Job struct {
	// ID is the job's id, Kind the name of its kind, Args what it was asked for with.
	ID   uuid.UUID
	Kind string
	Args json.RawMessage
	// State is where it is in its life.
	State State
	// RowsDone and RowsTotal are its progress. RowsTotal is 0 while nobody knows it.
	RowsDone, RowsTotal int64
	// Remaining is how long it may take, as fast as it was since it began; 0 when nobody can tell.
	Remaining time.Duration
	// Failures is how many tries failed in a row, Problem why the last one did: a stable reason, and a sentence for people.
	Failures int
	Problem  string
	// CreateTime is when it was asked for; StartTime, UpdateTime and EndTime are those of its first, last and final step. Those
	// that have not come are zero.
	CreateTime, StartTime, UpdateTime, EndTime time.Time
}

// remaining is the rest at the mean speed since the beginning.
func (j *Job) remaining(now time.Time) time.Duration {
	if j.State != StateRunning || j.RowsDone <= 0 || j.RowsTotal <= j.RowsDone {
		return 0
	}
	each := float64(now.Sub(j.StartTime)) / float64(j.RowsDone)
	return time.Duration(each * float64(j.RowsTotal-j.RowsDone)).Round(time.Millisecond)
}

// New is a job to be.
type New struct {
	// ID is the job's id; nil makes one. When the tenant has a job with the id already, that one is returned and nothing is done:
	// callers that may ask twice choose the id.
	ID uuid.UUID
	// Kind is the name of one of Config.Kinds.
	Kind string
	// Args are written as JSON, at most 64 KiB.
	Args any
	// Rows is how many rows the job has; 0 when nobody knows yet.
	Rows int64
}

// permanent marks an error after which a job is DEAD.
type permanent struct{ error }

// Unwrap returns the error itself.
func (p permanent) Unwrap() error { return p.error }

// Permanent makes an error of a step that no other try will mend.
func Permanent(err error) error { return permanent{err} }

func isPermanent(err error) bool {
	_, is := errors.AsType[permanent](err)
	return is
}
