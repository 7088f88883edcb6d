package alloc

import (
	"math"
	"slices"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
)

// MarkOf returns a limit's numbers.
func MarkOf(l gcra.Limit) Mark {
	return Mark{Tokens: l.Tokens(), Period: l.Period().Nanoseconds(), Burst: l.Burst()}
}

// limit is the limit of the numbers; the zero Limit for those that make none.
func (m Mark) limit() gcra.Limit {
	l, err := gcra.New(m.Tokens, time.Duration(m.Period), m.Burst)
	if err != nil {
		return gcra.Limit{}
	}
	return l
}

// offer is a cell of an ask with what each rung of its ladder grants.
type offer struct {
	ask    lease.CellAsk
	tokens []int64
}

// offerOf prepares a cell: from what is wanted downwards, halving what is more than
// needed, as leases; and at last exactly what is needed, for immediate use.
func offerOf(a lease.CellAsk) (offer, Cell) {
	limit := a.Policy.Limit
	c := Cell{
		Key: a.Key, Mark: MarkOf(limit), Revision: a.Policy.Revision, Burst: burstOf(limit), Exact: limit.Cost(a.Need), Optional: a.Policy.Shadow,
		Reset: a.Policy.OnChange == lease.Reset,
	}
	o := offer{ask: a}
	if limit.Tokens() == 0 || a.Need > limit.Burst() {
		c.Burst, c.Exact = -1, 0 // which nothing fits
		return o, c
	}
	life := limit.Lifetime()
	c.Life = gcra.Of(life)
	n := min(a.Want, limit.Burst())
	for life > 0 && n > a.Need && n > 1 && len(c.Ladder) < Rungs {
		c.Ladder, o.tokens = append(c.Ladder, limit.Cost(n)), append(o.tokens, n)
		n = a.Need + (n-a.Need)/2
	}
	return o, c
}

// burstOf is what a limit's burst is worth.
func burstOf(l gcra.Limit) gcra.Ticks {
	if l.Tokens() == 0 {
		return 0
	}
	return l.Cost(l.Burst())
}

// convert says what a stale cell's state means under the cell's own mark.
func (c Cell) convert(stored State, now gcra.Ticks) Cell {
	c.Converted, c.From = true, stored
	if c.Reset && stored.Revision < c.Revision {
		c.To = 0
		return c
	}
	c.To = max(gcra.Convert(stored.Mark.limit(), c.Mark.limit(), stored.TAT, now), 0)
	return c
}

// answer says what a cell's outcome means for who asked.
func (o offer) answer(got CellCharged, charged bool, now gcra.Ticks) lease.CellAnswer {
	limit := o.ask.Policy.Limit
	out := lease.CellAnswer{OK: got.Rung != Unfit, Remaining: limit.Free(got.TAT, now), Revision: o.ask.Policy.Revision}
	switch {
	case !out.OK:
		out.RetryAfter = limit.Grant(got.TAT, now, o.ask.Need, o.ask.Need).RetryAfter
	case !charged:
	case got.Rung == Exact:
		out.Tokens, out.TAT = o.ask.Need, got.TAT
	default:
		out.Tokens, out.Lifetime, out.TAT = o.tokens[got.Rung], limit.Lifetime(), got.TAT
	}
	return out
}

// ChargeOf returns the charge of an ask whose cells are as yet unknown.
func ChargeOf(ask lease.Ask) Charge { return newJob(ask).charge }

// Converted returns those charges of a batch that were stale, with their cells' states
// converted, ready to be charged again.
func Converted(b Batch, got []Charged) Batch {
	again := Batch{Patience: b.Patience}
	for i, c := range b.Charges {
		if got[i].Stale {
			again.Charges = append(again.Charges, c.converted(got[i]))
		}
	}
	return again
}

// converted returns the charge with what is stale converted.
func (c Charge) converted(got Charged) Charge {
	c.Cells = slices.Clone(c.Cells)
	for i, cell := range got.Cells {
		if cell.Rung == Stale {
			c.Cells[i] = c.Cells[i].convert(cell.Stored, got.Now)
		}
	}
	return c
}

// Decide is what every driver does with a charge, given its cells' states: it is the
// reference that drivers are held to, and what those in Go call.
func (c Charge) Decide(states []State, now gcra.Ticks) Charged {
	out := Charged{OK: true, Now: now, Cells: make([]CellCharged, len(c.Cells))}
	for i, cell := range c.Cells {
		out.Cells[i] = cell.decide(states[i], now)
		switch {
		case out.Cells[i].Rung == Stale:
			out.Stale = true
		case out.Cells[i].Rung == Unfit && !cell.Optional:
			out.OK = false
		}
	}
	out.OK = out.OK && !out.Stale
	if !out.OK {
		return out
	}
	for i, cell := range c.Cells {
		got := &out.Cells[i]
		switch got.Rung {
		case Unfit:
		case Exact:
			got.TAT = max(got.TAT, now) + cell.Exact
		default:
			got.TAT = max(got.TAT, now+cell.Life) + cell.Ladder[got.Rung]
		}
	}
	return out
}

// decide finds the first rung that fits.
func (c Cell) decide(s State, now gcra.Ticks) CellCharged {
	tat := s.TAT
	if s.Mark != c.Mark && s.TAT > now { // a full cell is full under any limit
		if !c.Converted || s.TAT != c.From.TAT || s.Mark != c.From.Mark {
			return CellCharged{Rung: Stale, TAT: s.TAT, Stored: s}
		}
		tat = c.To
	}
	for i, cost := range c.Ladder {
		if max(tat, now+c.Life)+cost-now <= c.Burst {
			return CellCharged{Rung: i, TAT: tat}
		}
	}
	if max(tat, now)+c.Exact-now <= c.Burst {
		return CellCharged{Rung: Exact, TAT: tat}
	}
	return CellCharged{Rung: Unfit, TAT: tat}
}

// refund is what n tokens are worth when they are given back: less than they cost, as
// rounding goes to the strict side.
func refund(l gcra.Limit, n int64) gcra.Ticks {
	cost := l.Cost(n)
	if cost <= 0 || cost == math.MaxInt64 {
		return 0
	}
	return cost - 1
}
