package noisy

import (
	"fmt"
	"strings"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Action is what would help. The values are those of rowhouse.quota.v1.NoisyAction.
type Action int32

// The actions.
const (
	Nothing Action = iota + 1
	Limit
	Plan
	MoveToSchema
	MoveToDatabase
)

// Advice is one thing to do, and why.
type Advice struct {
	Action Action
	// Command does it; empty without one.
	Command string
	Reason  string
}

const (
	// noisyRatio and noisyShare are from where on a tenant counts as noisy: it took that many times its share, and that part
	// of all. Below either, whoever waits does so for somebody else, or for everybody.
	noisyRatio, noisyShare = 2, 0.05
	// farRatio and farShare are from where on a schema is not enough for a tenant that shares tables.
	farRatio, farShare = 10, 0.5
	// pressing is the part of its requests that a limit refuses of a tenant that needs another plan rather than a limit.
	pressing = 0.1
)

// advise says what would help against what the tenant takes the most of.
func advise(r Ranked, window time.Duration) Advice {
	worst := r.Uses[0]
	for _, u := range r.Uses { // what was refused, and how long others waited, is a consequence
		if u.Resource != Refusals && u.Resource != Delay {
			worst = u
			break
		}
	}
	facts := fmt.Sprintf("it took %.0f %% of the %s (%s) with %.1f %% of the weight, %.1f times its share in %s",
		100*worst.ShareOfCost, worst.Resource.words(), short(worst.Reporter), 100*worst.ShareOfWeight, worst.Ratio, words(window))
	if worst.Trend > 0 {
		facts += fmt.Sprintf(", %.1f times as much as before", worst.Trend)
	}
	if r.Delay > 0 {
		facts += fmt.Sprintf("; others waited %s for it", r.Delay.Round(time.Millisecond))
	}
	switch {
	case worst.sure < noisyShare || worst.sure < noisyRatio*worst.ShareOfWeight:
		return Advice{Action: Nothing, Reason: "it is within its share: " + facts}
	case worst.Resource.database() && r.Tenant.Model != tenant.ModelDatabase:
		return move(r, worst, facts)
	case !worst.Resource.database() && r.Delay == 0:
		return Advice{Action: Nothing, Reason: "it is in nobody's way: " + facts + ", and nobody waited"}
	case r.pressing():
		return Advice{
			Action: Plan,
			Reason: facts + "; its limits refuse it already and it goes on asking: offer it a plan with more weight and higher limits",
		}
	}
	return limit(r, worst, window, facts)
}

// move gives the tenant's data a place of its own.
func move(r Ranked, worst Use, facts string) Advice {
	if r.Tenant.Model == tenant.ModelSchema || worst.Ratio >= farRatio && worst.ShareOfCost >= farShare {
		return Advice{
			Action: MoveToDatabase,
			Reason: facts + "; in a database of its own its work, its vacuum and its connections are apart, and it can go to another cell",
		}
	}
	return Advice{
		Action: MoveToSchema,
		Reason: facts + "; its rows lie in tables with everybody's: in a schema of its own its indexes, statistics and vacuum are apart",
	}
}

// limit sets the tenant's rate to twice its share of the requests that there are now.
func limit(r Ranked, worst Use, window time.Duration, facts string) Advice {
	a := Advice{Action: Limit, Reason: facts + "; no limit on requests holds for it"}
	if r.Tenant.Limited {
		a.Reason = facts + "; the limit on its requests is higher than what there is for it"
	}
	for _, u := range r.Uses {
		if u.Resource == Requests && window > 0 {
			rate := float64(u.Amount) / window.Seconds() * min(1, 2/max(worst.Ratio, 1))
			a.Command = fmt.Sprintf("rowhouse limits set %s requests --tokens %d --period 1s", r.Tenant.ID, max(int64(rate), 1))
			break
		}
	}
	return a
}

// pressing reports whether a limit holds and refuses much of what the tenant asks for.
func (r Ranked) pressing() bool {
	var requests, refusals int64
	for _, u := range r.Uses {
		switch u.Resource {
		case Requests:
			requests += u.Amount
		case Refusals:
			refusals += u.Amount
		default:
		}
	}
	return r.Tenant.Limited && float64(refusals) >= pressing*float64(requests) && refusals > 0
}

// words names the resource in a sentence.
func (r Resource) words() string {
	switch r {
	case Requests:
		return "requests"
	case InFlight:
		return "apps' time"
	case Bytes:
		return "bytes"
	case Refusals:
		return "refusals"
	case Delay:
		return "delay"
	case DBTime:
		return "database time"
	case DBRows:
		return "rows"
	default:
		return "resource"
	}
}

// words writes a number of whole minutes.
func words(d time.Duration) string {
	if d == time.Hour {
		return "an hour"
	}
	return fmt.Sprintf("%d min", int(d.Minutes()))
}

// short is a reporter without the trust domain: what comes last in its SPIFFE URI, "app/notes".
func short(reporter string) string {
	parts := strings.Split(reporter, "/")
	return strings.Join(parts[max(len(parts)-2, 0):], "/")
}
