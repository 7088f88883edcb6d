package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rowhouse-platform/rowhouse/cmd/rowhouse/internal/gitops"
)

// needsApproval says how to go on with a plan that nobody may make alone, if it is one.
func needsApproval(p gitops.Plan) string {
	for _, c := range p.Changes {
		if c.Check == gitops.Refused && strings.Contains(c.Why, "APPROVAL_REQUIRED") {
			return "; what needs approval is proposed by --as-change"
		}
	}
	return ""
}

// propose makes one change of the plan, and submits it.
func (a *app) propose(c *cobra.Command, f *files, args []string, h *configHouse, id string, yes bool) error {
	if err := a.checkFormat(); err != nil {
		return err
	}
	if f.overrides != "refuse" {
		return usagef("--overrides %s is not possible with --as-change", f.overrides)
	}
	t, house, err := f.tree(c.Context(), c, h, args)
	if err != nil {
		return err
	}
	p, err := gitops.Compare(t, house, f.prune)
	if err != nil {
		return err
	}
	if !a.forPrograms(c) || len(p.Changes) == 0 { // what is proposed is told to programs at the end
		if err := a.showPlan(c, p); err != nil || len(p.Changes) == 0 {
			return err
		}
	}
	edits, err := p.Edits()
	if err != nil {
		return &proposalError{"nothing was proposed", err}
	}
	if _, err := h.propose(c.Context(), id, edits, true); err != nil {
		return &proposalError{"nothing was proposed", asRefusal(err)}
	}
	if err := a.agreed(c, yes, f.path, fmt.Sprintf("propose %d edits as changes/%s", len(edits), id)); err != nil {
		return err
	}
	change, err := h.propose(c.Context(), id, edits, false)
	if err != nil && change != nil {
		return &proposalError{change.GetName() + " is a draft, and was not submitted", err}
	}
	if err != nil {
		return &proposalError{"nothing was proposed", asRefusal(err)}
	}
	p.Proposed = change.GetName()
	if change, err = h.submit(c.Context(), change); err != nil {
		err = &proposalError{p.Proposed + " is a draft, and could not be submitted", asRefusal(err)}
	}
	if a.forPrograms(c) {
		return errors.Join(a.showPlan(c, p), err)
	}
	if err == nil {
		_, _ = fmt.Fprintf(c.OutOrStdout(), "proposed %s, which is %s; digest %s\n", p.Proposed, // it is proposed
			enumName(change.GetState().Descriptor().Values().ByNumber(change.GetState().Number())), change.GetDigest())
	}
	return err
}

// proposalError says what became of a proposal that failed.
type proposalError struct {
	what  string
	cause error
}

// Error implements error.
func (e *proposalError) Error() string { return e.what + ": " + e.cause.Error() }

// Unwrap returns why.
func (e *proposalError) Unwrap() error { return e.cause }
