package rpc

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// entitledTo is entitled for all that a change does.
func entitledTo(who operator.Principal, c *store.Change) error {
	const permission = "config.rollouts.create"
	if c.GetRollout() != nil && !who.Has(permission) {
		return lacking(who, permission, "the rollout")
	}
	return entitled(who, c.GetEdits())
}

// authorsBetween is between the authors of a change, in what says who wrote what it became.
const authorsBetween = ", "

// hurries reports whether who goes on with a rollout by hand is alone in that: others have approved its steps with its content.
func hurries(r *store.Rollout, who string) bool {
	return r.Approvals > 0 && slices.Contains(strings.Split(r.Author, authorsBetween), who)
}

// stage plans the rollout of a change that has one, after its edit.
func (s *changeService) stage(p *plan, c *store.Change) error {
	const field = "change.rollout"
	if c.GetRollout() == nil || len(p.steps) == 0 {
		return nil
	}
	if len(p.steps) > 1 {
		return badField(field, "is for a change of one document")
	}
	st := p.steps[0]
	if st.edit.Layer == "" || st.edit.Content == nil {
		return badField(field, "is for an edit that writes a document, not for one of a namespace, and none that removes one")
	}
	if st.write == nil || !p.good() {
		return nil // there is nothing left to do, or it cannot be done
	}
	r := c.GetRollout()
	var err error
	p.rollout, err = s.plannedFor(st.write, &configv1.Rollout{
		Steps: r.GetSteps(), Canaries: r.GetCanaries(), Bake: r.GetBake(), Guards: r.GetGuards(),
	})
	return inStage(err)
}

// inStage says of a rollout's fields where they are in a change.
func inStage(err error) error {
	refusal, ok := fault.As(err)
	if !ok {
		return err
	}
	for i, f := range refusal.Fields {
		rest, ok := strings.CutPrefix(f.Field, "rollout.")
		switch {
		case rest == "document":
			refusal.Fields[i].Field = "change.edits[0].name"
		case ok:
			refusal.Fields[i].Field = "change.rollout." + rest
		}
	}
	return refusal
}

// changeRolloutOf is a rollout that was planned as a change tells of it, with its defaults.
func changeRolloutOf(r *store.Rollout) *configv1.ChangeRollout {
	from := rolloutOf(r)
	return &configv1.ChangeRollout{
		Steps: from.GetSteps(), Canaries: from.GetCanaries(), Bake: durationpb.New(r.Plan.Bake), Guards: from.GetGuards(),
	}
}
