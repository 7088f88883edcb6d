package quota_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/anishathalye/porcupine"
)

// What a tenant's two quotas are to their users, for porcupine: one state machine, in which each call takes effect at one
// moment between its first try and its answer.

// pair is an amount of each of the two quotas.
type pair [2]int64

func (p pair) plus(o pair, sign int64) pair { return pair{p[0] + sign*o[0], p[1] + sign*o[1]} }

// bounds are their amounts.
var bounds = pair{30, 50}

// verb is what a call does.
type verb int

const (
	reserving verb = iota
	// haunting is a try to reserve of which nobody knows whether it will still take effect: its caller was refused by a later
	// try, which the first one may outlive.
	haunting
	committing
	releasing
	setting
	reading
)

// call is one call of a tenant.
type call struct {
	tenant string
	verb   verb
	// id counts the reservations of a test; amount is reserved, committed or set.
	id        int
	amount    pair
	from, end int64
}

// answer is what it was answered.
type answer struct {
	ok         bool
	expire     int64
	used, held pair
}

// holding is what one reservation holds.
type holding struct {
	id     int
	amount pair
	expire int64
}

// whenever is the end of what may run out at any time.
const whenever = -1

// books is the state of a tenant.
type books struct {
	used  pair
	holds []holding
}

func (b books) held() (sum pair) {
	for _, h := range b.holds {
		sum = sum.plus(h.amount, 1)
	}
	return sum
}

func (b books) find(id int) int {
	return slices.IndexFunc(b.holds, func(h holding) bool { return h.id == id })
}

func (b books) with(h holding) books {
	holds := append(slices.Clone(b.holds), h)
	slices.SortFunc(holds, func(x, y holding) int { return x.id - y.id })
	return books{b.used, holds}
}

func (b books) without(i int) books {
	return books{b.used, slices.Delete(slices.Clone(b.holds), i, i+1)}
}

// aged are the states that there may be at some moment of a call: what ran out before it is free, what does in the middle of
// it may be.
func (b books) aged(from, end int64) []books {
	states := []books{{used: b.used}}
	for _, h := range b.holds {
		if h.expire <= from && h.expire != whenever {
			continue
		}
		for i, s := range slices.Clone(states) {
			states[i] = s.with(h)
			if h.expire <= end {
				states = append(states, s)
			}
		}
	}
	return states
}

func (b books) fits(amount pair) bool {
	sum := b.used.plus(b.held(), 1).plus(amount, 1)
	return sum[0] <= bounds[0] && sum[1] <= bounds[1]
}

// step is what a call makes of a state, nothing if it cannot have had its answer.
func step(b books, c call, a answer) []books {
	i := b.find(c.id)
	switch c.verb {
	case reserving:
		if a.ok == b.fits(c.amount) {
			if a.ok {
				return []books{b.with(holding{c.id, c.amount, a.expire})}
			}
			return []books{b}
		}
	case haunting:
		if b.fits(c.amount) {
			return []books{b, b.with(holding{c.id, c.amount, a.expire})}
		}
		return []books{b}
	case committing:
		if a.ok && i >= 0 {
			after := b.without(i)
			after.used = after.used.plus(c.amount, 1)
			return []books{after}
		}
	case releasing:
		if a.ok && i >= 0 {
			return []books{b.without(i)}
		}
	case setting: // of the quota id
		b.used[c.id] = c.amount[0]
		return []books{b}
	case reading:
		if b.used == a.used && b.held() == a.held {
			return []books{b}
		}
	}
	return nil
}

// model is the state machine of one tenant, for histories of many.
func model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			by := map[string][]porcupine.Operation{}
			for _, o := range history {
				tenant := o.Input.(call).tenant
				by[tenant] = append(by[tenant], o)
			}
			var parts [][]porcupine.Operation
			for _, part := range by {
				parts = append(parts, part)
			}
			return parts
		},
		Init: func() []any { return []any{books{}} },
		Step: func(state, input, output any) (next []any) {
			c := input.(call)
			for _, b := range state.(books).aged(c.from, c.end) {
				for _, after := range step(b, c, output.(answer)) {
					next = append(next, after)
				}
			}
			return next
		},
		Equal: func(x, y any) bool {
			a, b := x.(books), y.(books)
			return a.used == b.used && slices.Equal(a.holds, b.holds)
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
	}
	return m.ToModel()
}

// The model refuses what must not be: so a clean history says something.
func TestModelFindsWhatIsNotLinearizable(t *testing.T) {
	t.Parallel()
	const never = 1 << 40
	at := func(from, end int64, c call, a answer) porcupine.Operation {
		c.tenant, c.from, c.end = "acme", from, end
		return porcupine.Operation{Input: c, Output: a, Call: from, Return: end}
	}
	all, half := pair{30, 50}, pair{20, 1}
	take := func(id int, p pair) call { return call{verb: reserving, id: id, amount: p} }
	ok, no := answer{ok: true, expire: never}, answer{}
	for what, tt := range map[string]struct {
		history []porcupine.Operation
		want    bool
	}{
		"one after the other":     {[]porcupine.Operation{at(1, 2, take(1, all), ok), at(3, 4, take(2, half), no)}, true},
		"two winners":             {[]porcupine.Operation{at(1, 4, take(1, all), ok), at(2, 3, take(2, half), ok)}, false},
		"refused with room":       {[]porcupine.Operation{at(1, 2, take(1, half), no)}, false},
		"half of it taken":        {[]porcupine.Operation{at(1, 2, take(1, pair{1, 49}), ok), at(3, 4, take(2, pair{1, 2}), ok)}, false},
		"a release at some time":  {[]porcupine.Operation{at(1, 2, take(1, all), ok), at(3, 9, call{verb: releasing, id: 1}, ok), at(4, 5, take(2, half), ok)}, true},
		"a commit that is lost":   {[]porcupine.Operation{at(1, 2, take(1, all), ok), at(3, 4, call{verb: committing, id: 1, amount: all}, ok), at(5, 6, take(2, half), ok)}, false},
		"a stale read":            {[]porcupine.Operation{at(1, 2, take(1, half), ok), at(3, 4, call{verb: reading}, answer{})}, false},
		"a double commit":         {[]porcupine.Operation{at(1, 2, take(1, half), ok), at(3, 4, call{verb: committing, id: 1, amount: half}, ok), at(5, 6, call{verb: reading}, answer{used: half.plus(half, 1)})}, false},
		"it ran out before":       {[]porcupine.Operation{at(1, 2, take(1, all), answer{ok: true, expire: 5}), at(6, 7, take(2, half), ok)}, true},
		"it is not yet out":       {[]porcupine.Operation{at(1, 2, take(1, all), answer{ok: true, expire: 9}), at(6, 7, take(2, half), ok)}, false},
		"an orphan refuses":       {[]porcupine.Operation{at(1, 2, take(1, all), answer{ok: true, expire: 5}), at(6, 7, take(2, half), no)}, false},
		"a ghost that comes late": {[]porcupine.Operation{at(1, never, call{verb: haunting, id: 1, amount: all}, answer{expire: never}), at(2, 3, take(2, half), ok), at(4, 5, call{verb: releasing, id: 2}, ok), at(6, 7, take(3, half), no)}, true},
	} {
		if got := porcupine.CheckOperations(model(), tt.history); got != tt.want {
			t.Errorf("%s: linearizable %v, want %v", what, got, tt.want)
		}
	}
}
