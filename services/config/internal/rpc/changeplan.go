package rpc

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/governance"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// plan is what a change would do if it became live now. Nothing is written before all of it is known to be good: the
// revisions that writing takes keep all other writers waiting, kills too.
type plan struct {
	steps []*planned
	// rollout is begun instead of a write, unless it is nil.
	rollout *store.Rollout
	// required is how many must approve.
	required int
	// refusal is why it cannot become live, approvals apart; nil when it can.
	refusal error
}

// planned is one edit, as it would be made now.
type planned struct {
	edit        *store.Edit
	differences []sdk.Difference
	conflicts   []settings.Conflict
	// idle says that nothing is left to do.
	idle bool
	// write is of a document, which it removes if it has no object; namespace is what a namespace becomes.
	write     *write
	namespace *configv1.Namespace
}

// spot is a namespace in which a change edits.
type spot struct {
	namespace *configv1.Namespace
	rule      governance.Rule
	schema    *settings.Schema
	// state is what is written there after the edits so far. It is read if there are several; for a single one less will
	// do.
	state   *settings.State
	several bool
}

// allowed refuses what may not become live now, and otherwise takes that step.
func (p *plan) allowed(way *governance.Change) error {
	if err := way.Publish(p.required); err != nil {
		return err
	}
	return p.refusal
}

// plan finds out what a change would do. With store.LockNamespace it stays true until the transaction ends. An error is
// that of a database, or a defect.
func (s *changeService) plan(ctx context.Context, tx *change.Tx, c *store.Change, read namespaceReader) (*plan, error) {
	p := new(plan)
	spots, err := spotsOf(ctx, tx, c, read)
	if err != nil {
		return p, p.refuse(err)
	}
	for i, e := range c.Edits {
		st := &planned{edit: e}
		p.steps = append(p.steps, st)
		if err := s.one(ctx, tx, p, st, spots[namespaceOf(e)]); err != nil {
			if err := p.refuse(inEdit(i, e, err)); err != nil {
				return nil, err
			}
		}
		if len(st.conflicts) > 0 {
			_ = p.refuse(conflictIn(i, e, st.conflicts)) // a fault
		}
	}
	return p, p.refuse(s.stage(p, c))
}

// refuse keeps the first refusal, and returns what is none.
func (p *plan) refuse(err error) error {
	if err == nil {
		return nil
	}
	if f, ok := fault.As(err); !ok || f.Kind == fault.Internal || f.Kind == fault.Unavailable {
		return err
	}
	if p.refusal == nil {
		p.refusal = err
	}
	return nil
}

func (p *plan) good() bool { return p.refusal == nil }

// namespaceOf is the id of the namespace of an edit.
func namespaceOf(e *store.Edit) string {
	return e.Name[strings.LastIndexByte(e.Name, '/')+1:]
}

// spotsOf reads the namespaces of a change, in an order that is the same for all who lock several.
func spotsOf(ctx context.Context, tx *change.Tx, c *store.Change, read namespaceReader) (map[string]*spot, error) {
	spots := make(map[string]*spot)
	for _, e := range c.Edits {
		if at, ok := spots[namespaceOf(e)]; ok {
			at.several = true
			continue
		}
		spots[namespaceOf(e)] = new(spot)
	}
	for _, id := range slices.SortedFunc(maps.Keys(spots), store.CompareLocks) {
		at := spots[id]
		var err error
		if at.namespace, err = read(ctx, tx, id); err != nil {
			return nil, err
		}
		if at.rule, err = ruleOf(at.namespace); err != nil {
			return nil, err
		}
		bare, err := stateOf(at.namespace)
		if err != nil {
			return nil, err
		}
		at.schema = bare.Schema
	}
	return spots, nil
}

// required is how many must approve a change, by the rules that stand now.
func (s *changeService) required(ctx context.Context, tx *change.Tx, c *store.Change) (int, error) {
	spots, err := spotsOf(ctx, tx, c, store.ReadNamespace)
	if err != nil {
		return 0, err
	}
	required := 0
	for _, e := range c.Edits {
		n, err := needs(spots[namespaceOf(e)], e)
		if err != nil {
			return 0, err
		}
		required = max(required, n)
	}
	return required, nil
}

// needs is how many must approve an edit. That of a namespace needs as many as any of its documents.
func needs(at *spot, e *store.Edit) (int, error) {
	if e.Layer == "" {
		return at.rule.Count, nil
	}
	o, _, err := settings.ParseName(e.Name)
	if err != nil {
		return 0, fmt.Errorf("a stored edit of %q: %w", e.Name, err)
	}
	return at.rule.Needs(o), nil
}

// one plans one edit after those before it.
func (s *changeService) one(ctx context.Context, tx *change.Tx, p *plan, st *planned, at *spot) error {
	n, err := needs(at, st.edit)
	if err != nil {
		return err
	}
	p.required = max(p.required, n)
	if at.namespace.GetUid() != st.edit.NamespaceUID {
		return another(namespacePrefix + namespaceOf(st.edit))
	}
	if st.edit.Layer == "" {
		return s.oneNamespace(ctx, tx, p, st, at)
	}
	return s.oneDocument(ctx, tx, p, st, at)
}

func another(name string) error {
	return fault.New(fault.Aborted, fault.ReasonEtagMismatch, "%s is another one than when the change was written", name)
}

func (s *changeService) oneDocument(ctx context.Context, tx *change.Tx, p *plan, st *planned, at *spot) error {
	o, namespace, err := settings.ParseName(st.edit.Name)
	if err != nil {
		return fmt.Errorf("a stored edit of %q: %w", st.edit.Name, err)
	}
	place, err := s.documents.place(tx, o)
	if err != nil {
		return err
	}
	place.Namespace, place.NamespaceUID = namespace, at.namespace.GetUid()
	if place.ID != st.edit.LayerID {
		return another(o.String())
	}
	if err := writable(place); err != nil {
		return err
	}
	before, err := s.before(ctx, tx, at, place)
	if err != nil {
		return err
	}
	w, err := s.beginIn(ctx, tx, place, before)
	if err != nil {
		return err
	}
	merged, err := st.rebase(at.schema.Merge, w.document.GetContent())
	if err != nil || len(st.conflicts) > 0 || st.idle {
		return err
	}
	var layer *sdk.Layer
	if merged != nil {
		if err := s.there(o); err != nil {
			return err
		}
		if w.object, w.document.Content, err = settings.Content(string(sdk.Canonical(merged))); err != nil {
			return malformedField("document.content", err)
		}
		layer = &sdk.Layer{Object: w.object}
	}
	st.write = w
	if !p.good() {
		return nil // what comes after a bad edit cannot be judged
	}
	if err := w.check(ctx, tx, layer); err != nil {
		return err
	}
	if at.several {
		after := w.as(layer).After()
		at.state = &after
	}
	return nil
}

// before is what an edit at a place is judged by.
func (s *changeService) before(ctx context.Context, tx *change.Tx, at *spot, place store.Place) (settings.State, error) {
	if !at.several {
		return s.around(ctx, tx, at.namespace, place)
	}
	return s.all(ctx, tx, at)
}

// all is all that is written in a namespace, after the edits so far.
func (s *changeService) all(ctx context.Context, tx *change.Tx, at *spot) (settings.State, error) {
	if at.state == nil {
		state, err := s.state(ctx, tx, at.namespace, store.Scope{})
		if err != nil {
			return state, err
		}
		at.state = &state
	}
	return *at.state, nil
}

// rebase does the edit to the current content, "" for none, and notes what that would change.
func (st *planned) rebase(schema *sdk.Schema, content string) (sdk.Object, error) {
	var objects [3]sdk.Object
	for i, t := range []string{text(st.edit.Base), text(st.edit.Content), content} {
		if t == "" {
			continue
		}
		var err error
		if objects[i], err = sdk.Parse([]byte(t)); err != nil {
			return nil, fmt.Errorf("a stored document: %w", err)
		}
	}
	merged, conflicts := settings.Rebase(schema, objects[0], objects[1], objects[2])
	st.conflicts, st.differences = conflicts, sdk.Diff(objects[2], merged)
	st.idle = len(conflicts) == 0 && len(st.differences) == 0 && (merged == nil) == (objects[2] == nil)
	return merged, nil
}

func (s *changeService) oneNamespace(ctx context.Context, tx *change.Tx, p *plan, st *planned, at *spot) error {
	current, err := namespaceObject(at.namespace)
	if err != nil {
		return err
	}
	merged, err := st.rebase(nil, string(sdk.Canonical(current)))
	if err != nil || len(st.conflicts) > 0 || st.idle {
		return err
	}
	next, ok := proto.Clone(at.namespace).(*configv1.Namespace)
	if !ok {
		return fmt.Errorf("clone %s", at.namespace.GetName())
	}
	if err := become(next, merged); err != nil {
		return err
	}
	schema, err := compile(namespaceOf(st.edit), next.GetSchema(), at.namespace.GetSchema())
	if err != nil {
		return err
	}
	next.Schema = schema.Text
	if !p.good() {
		return nil // what comes after a bad edit cannot be judged
	}
	before, err := s.all(ctx, tx, at)
	if err != nil {
		return err
	}
	to := settings.Change{Before: before, Schema: schema}
	if err := judge(to); err != nil {
		return err
	}
	if err := s.besideRollout(ctx, tx, at.namespace, next, to, judge); err != nil {
		return err
	}
	before.Schema = schema
	at.state, at.schema, at.namespace, st.namespace = &before, schema, next, next
	return nil
}

// keepKills refuses schemas without a safe value for what is killed. It locks the kills, which are the last that are locked
// of all namespaces, so it is for what is about to become live.
func (p *plan) keepKills(ctx context.Context, tx *change.Tx) error {
	for i, st := range p.steps {
		if st.namespace == nil {
			continue
		}
		if err := keepsKills(ctx, tx, namespaceOf(st.edit), st.namespace.GetSchema()); err != nil {
			if err := p.refuse(inEdit(i, st.edit, err)); err != nil {
				return err
			}
		}
	}
	return nil
}

// become makes a namespace what its document says.
func become(n *configv1.Namespace, o sdk.Object) error {
	const field = "document.content"
	for name := range o {
		if name != "schema" && name != "approval" {
			return badField(field+sdk.Pointer(name), "is no member of a namespace: schema and approval are")
		}
	}
	schema, ok := o["schema"].(sdk.Object)
	if !ok {
		return badField(field+"/schema", "is not an object")
	}
	n.Schema, n.Approval = string(sdk.Canonical(schema)), nil
	if approval, ok := o["approval"]; ok {
		r, err := governance.RuleOf(approval)
		if err != nil {
			return badField(field+"/approval", err.Error())
		}
		n.Approval = approvalOf(r)
	}
	return nil
}

// goLive writes what was planned, or begins the rollout by which it reaches tenants step by step. It is the one place where
// a change becomes live.
func (s *changeService) goLive(ctx context.Context, tx *change.Tx, c *store.Change, p *plan) error {
	reason := c.GetReason() + " (" + c.GetName() + ")"
	for i, st := range p.steps {
		if st.idle {
			continue
		}
		if tx.Call().ValidateOnly {
			continue // revisions keep others waiting
		}
		if p.rollout != nil {
			p.rollout.Reason, p.rollout.Approvals = reason, len(c.GetApprovals())
			st.write.author = strings.Join(c.GetAuthors(), authorsBetween)
			if err := s.startRollout(ctx, tx, st.write, p.rollout); err != nil {
				return err
			}
			c.StartedRollout = rolloutName(p.rollout.Namespace, p.rollout.UID)
			continue
		}
		revision, err := s.write1(ctx, tx, c, st, reason)
		if err != nil {
			return err
		}
		if err := store.SetEditRevision(ctx, tx, c, i, revision); err != nil {
			return err
		}
	}
	c.Refusal = nil
	return nil
}

// write1 writes one edit and returns its revision.
func (s *changeService) write1(ctx context.Context, tx *change.Tx, c *store.Change, st *planned, reason string) (int64, error) {
	if n := st.namespace; n != nil {
		tx.Audit(n.GetName(), "schema", "approval")
		n.UpdateTime = timestamppb.New(tx.Now())
		if err := number(ctx, tx, n); err != nil {
			return 0, err
		}
		if err := store.UpdateNamespace(ctx, tx, n); err != nil {
			return 0, err
		}
		return n.GetRevision(), publishNamespace(tx, namespaceOf(st.edit), n)
	}
	w := st.write
	w.author = strings.Join(c.GetAuthors(), authorsBetween)
	tx.Audit(w.place.String(), "content")
	if w.object == nil {
		return w.drop(ctx, tx, reason)
	}
	w.remark(tx)
	if err := w.commit(ctx, tx, reason); err != nil {
		return 0, err
	}
	return w.document.GetRevision(), nil
}

// inEdit says of which edit a refusal is.
func inEdit(i int, e *store.Edit, err error) error {
	f, ok := fault.As(err)
	if !ok {
		return err
	}
	out := fault.New(f.Kind, f.Reason, "%s: %s", e.Name, f.Message).WithDomain(f.Domain)
	out.Metadata, out.RetryAfter, out.Quotas = f.Metadata, f.RetryAfter, f.Quotas
	for _, v := range f.Fields {
		if rest, ok := strings.CutPrefix(v.Field, "document."); ok {
			v.Field = fmt.Sprintf("change.edits[%d].%s", i, rest)
		}
		out.Fields = append(out.Fields, v)
	}
	return out
}

// conflictIn refuses an edit of what somebody else changed meanwhile, with the three values of each place.
func conflictIn(i int, e *store.Edit, conflicts []settings.Conflict) error {
	const most = 50
	refusal := fault.New(fault.Aborted, fault.ReasonEtagMismatch, "%s: %d values were changed by somebody else since the change was written; "+
		"update it", e.Name, len(conflicts))
	for _, c := range conflicts[:min(len(conflicts), most)] {
		refusal = refusal.WithField(fault.FieldViolation{
			Field: fmt.Sprintf("change.edits[%d].content%s", i, c.Pointer), Reason: "CONFLICT",
			Description: fmt.Sprintf("was %s, is %s now, and the change wants %s", brief(c.Base), brief(c.Current), brief(c.Wanted)),
		})
	}
	return refusal
}

// brief is a value for a sentence.
func brief(json string) string {
	const most = 100
	if json == "" {
		return "nothing"
	}
	if runes := []rune(json); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return json
}
