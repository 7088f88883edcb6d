package rpc

import (
	"context"
	"strings"
	"sync"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/hook"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// asked is what hooks said of a change as it was then.
type asked struct {
	digest   string
	verdicts []hook.Verdict
}

// ask asks hooks about each document that a change would write or remove, side by side.
func (s *changeService) ask(ctx context.Context, name string) (asked, error) {
	c, err := store.ReadChange(ctx, s.Pool, strings.TrimPrefix(name, changePrefix))
	if fault.KindOf(err) == fault.NotFound {
		return asked{}, nil // the unit of work says so
	}
	if err != nil {
		return asked{}, pg.Fault(err)
	}
	a := asked{digest: c.GetDigest()}
	var documents []string
	for _, e := range c.Edits {
		if e.Layer != "" {
			documents = append(documents, e.Name)
		}
	}
	a.verdicts = make([]hook.Verdict, len(documents))
	var asking sync.WaitGroup
	for i, d := range documents {
		asking.Go(func() { a.verdicts[i] = s.askDocument(ctx, d, a.digest) })
	}
	asking.Wait()
	return a, nil
}

// unanswered is why hooks have to be asked again: none refused the step, and one that has to agree said nothing. It is nil
// when they are done.
func (a asked) unanswered() (why error) {
	for _, v := range a.verdicts {
		err := v.Settle(nil) // a job skips no hooks, so there is nothing to record
		switch {
		case err == nil:
		case fault.ReasonOf(err) == fault.ReasonHookUnavailable, fault.KindOf(err) == fault.Unavailable,
			fault.KindOf(err) == fault.DeadlineExceeded:
			why = err
		default:
			return nil
		}
	}
	return why
}

// settle ends the step if hooks refused it, or were asked about another content.
func (a asked) settle(tx *change.Tx, c *store.Change) error {
	if a.digest != c.GetDigest() {
		return fault.New(fault.Aborted, fault.ReasonEtagMismatch, "the change was written anew this moment: read it again")
	}
	for _, v := range a.verdicts {
		if err := v.Settle(tx); err != nil {
			return err
		}
	}
	return nil
}

// publication is the request in whose name a scheduled change becomes live.
func publication(name string) *configv1.PublishChangeRequest {
	return &configv1.PublishChangeRequest{Name: name}
}
