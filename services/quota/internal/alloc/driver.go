package alloc

import (
	"context"
	"errors"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
)

// Driver keeps cells and slots in a store that other processes use as well. It adds and
// compares and never divides, so that all drivers decide alike; the arithmetic is in this
// package. The store's clock decides. A driver is safe for concurrent use.
type Driver interface {
	// Charge decides charges and applies those that fit, each as a whole. Charges of one
	// scope are decided in their order. An error says that what became of them is not
	// known; a charge whose own Err is set may be unknown alone.
	Charge(ctx context.Context, b Batch) ([]Charged, error)
	// Give lowers cells that are as their gives say, and reports which were.
	Give(ctx context.Context, gives []Give) (taken []bool, err error)
	// Read returns the state of cells that nobody has to charge, and the store's time.
	Read(ctx context.Context, refs []Ref) (states []State, now gcra.Ticks, err error)
	// Acquire takes slots for a hold, of all cells or of none.
	Acquire(ctx context.Context, h Hold) (Acquired, error)
	// Renew begins the TTL of a hold anew; false when the holder has no such hold.
	Renew(ctx context.Context, h Hold) (bool, error)
	// Release ends a hold; false when the holder has no such hold.
	Release(ctx context.Context, h Hold) (bool, error)
	// Held returns how many slots of each cell are held.
	Held(ctx context.Context, refs []Ref) ([]int64, error)
	// Present notes that holders live and returns how many do: those noted within life.
	Present(ctx context.Context, holders []string, life time.Duration) (int, error)
	// Collect removes what means nothing any more, a part at each call.
	Collect(ctx context.Context) error
	// Erase removes all cells and holds of a scope.
	Erase(ctx context.Context, scope lease.Scope) error
}

// ErrBusy is the error of a charge or a hold whose cells others had locked for too long.
// It was not charged.
var ErrBusy = errors.New("alloc: the cells are locked by others")

// ErrAgain is the error of a charge that met another one in a way that only a new
// attempt resolves. It was not charged.
var ErrAgain = errors.New("alloc: another process was in the way")

// Ref names a cell.
type Ref struct {
	Scope lease.Scope
	Key   lease.Key
}

// Mark is the numbers under which a cell was charged. Cells of another mark are stale.
type Mark struct{ Tokens, Period, Burst int64 }

// State is a cell as it is stored. The zero State is that of a full cell, stored or not.
type State struct {
	TAT  gcra.Ticks
	Mark Mark
	// Revision is the highest of those that charged it.
	Revision int64
}

// Batch is what one trip to the store decides.
type Batch struct {
	Charges []Charge
	// Patience is how long to wait for cells that others have locked. 0 means not at all:
	// such charges come back with ErrBusy, and delay no others.
	Patience time.Duration
}

// Charge is an ask made ready: what to compare and what to add.
type Charge struct {
	Scope lease.Scope
	Cells []Cell
}

// Rungs is how many sizes of a lease a cell offers at most.
const Rungs = 7

// Exact is the rung of a grant of just what is needed, for immediate use.
const Exact = Rungs

// Rungs that are none.
const (
	// Unfit is a cell that has not what is needed.
	Unfit = -1
	// Stale is a cell that was charged under another mark: nothing was decided.
	Stale = -2
)

// Cell is one cell of a charge.
type Cell struct {
	Key      lease.Key
	Mark     Mark
	Revision int64
	// Burst is how far the state may be ahead of the time after the charge.
	Burst gcra.Ticks
	// Life is how long a lease lasts, in ticks.
	Life gcra.Ticks
	// Ladder is the costs of leases, the dearest first; Exact the cost of what is needed.
	// The first that fits is charged.
	Ladder []gcra.Ticks
	Exact  gcra.Ticks
	// Optional says that the charge goes on without this cell when it does not fit.
	Optional bool
	// Reset says that a new revision begins with a full cell; for this package alone.
	Reset bool
	// From and To, when Converted, are the state that the cell is expected in, of another
	// mark, and the time that it means under this one.
	Converted bool
	From      State
	To        gcra.Ticks
}

// Charged is what became of a charge.
type Charged struct {
	// Err is why it was not decided, ErrBusy or what a part of the store said.
	Err error
	// OK says that it was applied; Stale that a cell was, and nothing decided.
	OK, Stale bool
	// Now is the store's time at the decision.
	Now   gcra.Ticks
	Cells []CellCharged
}

// CellCharged is what became of a cell.
type CellCharged struct {
	// Rung is the index in Ladder, Exact, Unfit or Stale.
	Rung int
	// TAT is the state after the charge; of a charge that was not applied, the state as it
	// is, converted.
	TAT gcra.Ticks
	// Stored is, for a stale cell, what is stored.
	Stored State
}

// Give lowers a cell by By, if it is at TAT under the mark.
type Give struct {
	Ref
	Mark Mark
	TAT  gcra.Ticks
	By   gcra.Ticks
}

// Hold is slots that one holder asks for or has.
type Hold struct {
	Scope  lease.Scope
	ID     lease.HoldID
	Holder string
	Cells  []SlotCell
	// TTL is how long the hold lasts unless it is renewed.
	TTL time.Duration
	// Patience is how long to wait for cells that others have locked.
	Patience time.Duration
}

// SlotCell is one cell of a hold: how many slots are wanted and how many there are.
type SlotCell struct {
	Key         lease.Key
	Slots, Most int64
	// Optional says that the hold goes on without this cell when it does not fit.
	Optional bool
}

// Acquired is what became of an ask for slots.
type Acquired struct {
	OK bool
	// Taken says that another holder has a hold of this id.
	Taken bool
	Cells []CellAcquired
}

// CellAcquired is what became of a cell.
type CellAcquired struct {
	// OK says that it had as many slots as were asked for.
	OK bool
	// Held is how many are held of it afterwards.
	Held int64
	// Free is after how long the first hold of it ends unless it is renewed; 0 without one.
	Free time.Duration
}
