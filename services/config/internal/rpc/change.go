package rpc

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/audit"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/mask"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/governance"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// changeService serves ChangeService.
type changeService struct {
	configv1.UnimplementedChangeServiceServer
	Config

	documents *documentService
}

const (
	changePrefix  = "changes/"
	leastReason   = 10
	farthest      = 366 * 24 * time.Hour
	pathState     = "state"
	pathApprovals = "approvals"
)

// changeReader is store.ReadChange or store.LockChange.
type changeReader func(ctx context.Context, q store.Querier, id string) (*store.Change, error)

// open reads what a call is about. The record goes to the chains of all tenants whose documents it is about, and to the
// platform's.
func (s *changeService) open(ctx context.Context, tx *change.Tx, field, name string, read changeReader) (*store.Change, error) {
	tx.Tenant(audit.Platform)
	tx.Audit(name)
	id, ok := strings.CutPrefix(name, changePrefix)
	if !ok {
		return nil, badField(field, "is not the name of a change")
	}
	c, err := read(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	concern(tx, c)
	return c, nil
}

// concern names what a change is about in the call's record.
func concern(tx *change.Tx, c *store.Change) {
	for _, e := range c.Edits {
		tx.Audit(e.Name)
		switch settings.Kind(e.Layer) {
		case settings.Tenant, settings.Environment:
			uid, _ := store.CutEnvironment(e.LayerID)
			tx.Tenant(uid)
		}
	}
}

// wayOf is what matters of a change for the steps that it may take. Approvals of those who could not give them now do not
// count: what the house knows of people is what its files say at this moment.
func (s *changeService) wayOf(c *store.Change) *governance.Change {
	way := &governance.Change{
		State: governance.State(strings.TrimPrefix(c.GetState().String(), statePrefix)), Authors: c.GetAuthors(), Digest: c.GetDigest(),
	}
	for _, a := range c.GetApprovals() {
		way.Approvals = append(way.Approvals, governance.Approval{
			Approver: a.GetApprover(), Digest: c.GetDigest(), Lapsed: !s.Caller(a.GetApprover()).Has(approving),
		})
	}
	return way
}

const statePrefix = "CHANGE_STATE_"

// take writes down which step a change took.
func take(tx *change.Tx, c *store.Change, way *governance.Change) {
	c.State = configv1.ChangeState(configv1.ChangeState_value[statePrefix+string(way.State)])
	c.Authors, c.Digest, c.UpdateTime = way.Authors, way.Digest, timestamppb.New(tx.Now())
}

// step locks a change, has decide say what becomes of it, and writes that.
func (s *changeService) step(
	ctx context.Context, tx *change.Tx, name, given string, decide func(*store.Change, *governance.Change) error,
) (*configv1.Change, error) {
	c, err := s.open(ctx, tx, "name", name, store.LockChange)
	if err != nil {
		return nil, err
	}
	if err := etag.Check(given, c.GetEtag()); err != nil {
		return nil, err
	}
	way := s.wayOf(c)
	if err := decide(c, way); err != nil {
		return nil, err
	}
	tx.Audit(c.GetName(), pathState)
	take(tx, c, way)
	return c.Change, store.UpdateChange(ctx, tx, c)
}

// CreateChange implements rowhouse.config.v1.ChangeService.
func (s *changeService) CreateChange(ctx context.Context, req *configv1.CreateChangeRequest) (*configv1.CreateChangeResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.CreateChangeResponse, error) {
		tx.Tenant(audit.Platform)
		tx.Audit(changePrefix + req.GetChangeId())
		uid, err := tenant.NewUID(s.Clock(), rand.Reader)
		if err != nil {
			return nil, err
		}
		c := &store.Change{Change: &configv1.Change{
			Name: changePrefix + req.GetChangeId(), Uid: uid.String(), CreateTime: timestamppb.New(tx.Now()),
			State: configv1.ChangeState_CHANGE_STATE_DRAFT, Reason: req.GetChange().GetReason(), Edits: req.GetChange().GetEdits(),
			Rollout: req.GetChange().GetRollout(),
		}}
		if err := s.write(ctx, tx, c); err != nil {
			return nil, err
		}
		return &configv1.CreateChangeResponse{Change: c.Change}, store.InsertChange(ctx, tx, req.GetChangeId(), c)
	})
}

// UpdateChange implements rowhouse.config.v1.ChangeService.
func (s *changeService) UpdateChange(ctx context.Context, req *configv1.UpdateChangeRequest) (*configv1.UpdateChangeResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.UpdateChangeResponse, error) {
		c, err := s.open(ctx, tx, "change.name", req.GetChange().GetName(), store.LockChange)
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetChange().GetEtag(), c.GetEtag()); err != nil {
			return nil, err
		}
		if err := s.wayOf(c).Cancellable(); err != nil {
			return nil, err
		}
		paths, err := mask.Apply(c.Change, req.GetChange(), req.GetUpdateMask())
		if err != nil || len(paths) == 0 {
			return &configv1.UpdateChangeResponse{Change: c.Change}, err
		}
		if slices.Contains(paths, "edits") {
			c.Edits = nil
		}
		tx.Audit(c.GetName(), paths...)
		if err := s.write(ctx, tx, c); err != nil {
			return nil, err
		}
		return &configv1.UpdateChangeResponse{Change: c.Change}, store.RewriteChange(ctx, tx, c)
	})
}

// write has the caller write a change: what its message asks for, unless it has edits already. It is checked as if it were
// to be published.
func (s *changeService) write(ctx context.Context, tx *change.Tx, c *store.Change) error {
	if utf8.RuneCountInString(strings.TrimSpace(c.GetReason())) < leastReason {
		return badField("change.reason", "has fewer than 10 characters")
	}
	if err := entitledTo(tx.Call().Principal, c); err != nil {
		return err
	}
	if c.Edits == nil {
		edits, err := s.compile(ctx, tx, c.GetEdits())
		if err != nil {
			return err
		}
		c.Tell(edits)
	}
	concern(tx, c)
	p, err := s.plan(ctx, tx, c, store.ReadNamespace)
	if err == nil {
		err = p.refusal
	}
	if err != nil {
		return err
	}
	if p.rollout != nil {
		c.Rollout = changeRolloutOf(p.rollout)
	}
	way := s.wayOf(c)
	if err := way.Edit(tx.Call().Principal.Name, digestOf(c)); err != nil {
		return err
	}
	take(tx, c, way)
	c.Approvals, c.NotBefore, c.Scheduler, c.Refusal, c.ClosingReason = nil, nil, "", nil, ""
	return nil
}

// entitled refuses who could not make the edits directly: a change is no way around permissions.
func entitled(who operator.Principal, edits []*configv1.ChangeEdit) error {
	for _, e := range edits {
		permission := "config.documents.update"
		switch {
		case strings.HasPrefix(e.GetName(), namespacePrefix):
			permission = "config.namespaces.update"
		case e.GetForm() == configv1.ChangeEditForm_CHANGE_EDIT_FORM_DELETE:
			permission = "config.documents.delete"
		}
		if !who.Has(permission) {
			return lacking(who, permission, "an edit")
		}
	}
	return nil
}

// approving is the permission to approve changes, and to have approved them.
const approving = "config.changes.approve"

// publishing is the permission to publish changes, and to have them published.
const publishing = "config.changes.publish"

func lacking(who operator.Principal, permission, what string) error {
	return fault.New(fault.PermissionDenied, fault.ReasonPermissionMissing, "%s lacks the permission %s, which %s needs",
		who.Name, permission, what).WithMetadata("permission", permission)
}

// GetChange implements rowhouse.config.v1.ChangeService.
func (s *changeService) GetChange(ctx context.Context, req *configv1.GetChangeRequest) (*configv1.GetChangeResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.GetChangeResponse, error) {
		c, err := s.open(ctx, tx, "name", req.GetName(), store.ReadChange)
		if err != nil {
			return nil, err
		}
		out := &configv1.GetChangeResponse{Change: c.Change}
		switch c.GetState() {
		case configv1.ChangeState_CHANGE_STATE_LIVE, configv1.ChangeState_CHANGE_STATE_CANCELLED:
			return out, nil
		}
		p, err := s.plan(ctx, tx, c, store.ReadNamespace)
		if err != nil {
			return nil, err
		}
		out.Review = p.review(ctx)
		return out, nil
	})
}

// ListChanges implements rowhouse.config.v1.ChangeService.
func (s *changeService) ListChanges(ctx context.Context, req *configv1.ListChangesRequest) (*configv1.ListChangesResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.ListChangesResponse, error) {
		p, err := tx.Page(ctx, page.Query{
			Size: req.GetPageSize(), Token: req.GetPageToken(), Filter: req.GetState().String() + " " + req.GetNamespace(),
		})
		if err != nil {
			return nil, err
		}
		p = few(p)
		var l store.ListedChanges
		if req.GetState() != configv1.ChangeState_CHANGE_STATE_UNSPECIFIED {
			l.State = strings.TrimPrefix(req.GetState().String(), statePrefix)
		}
		if req.GetNamespace() != "" {
			n, err := store.ReadNamespace(ctx, tx, strings.TrimPrefix(req.GetNamespace(), namespacePrefix))
			if err != nil {
				return nil, err
			}
			l.NamespaceUID = n.GetUid()
		}
		if len(p.After) == 2 {
			if l.Before, err = time.Parse(time.RFC3339Nano, p.After[0]); err != nil {
				return nil, err
			}
			l.UID = p.After[1]
		}
		found, err := store.ListChanges(ctx, tx, l, p.Limit())
		if err != nil {
			return nil, err
		}
		found, next, err := page.Cut(p, found, func(c *configv1.Change) []string {
			return []string{c.GetCreateTime().AsTime().Format(time.RFC3339Nano), c.GetUid()}
		})
		return &configv1.ListChangesResponse{Changes: found, NextPageToken: next}, err
	})
}

// SubmitChange implements rowhouse.config.v1.ChangeService.
func (s *changeService) SubmitChange(ctx context.Context, req *configv1.SubmitChangeRequest) (*configv1.SubmitChangeResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.SubmitChangeResponse, error) {
		c, err := s.step(ctx, tx, req.GetName(), req.GetEtag(), func(c *store.Change, way *governance.Change) error {
			p, err := s.plan(ctx, tx, c, store.ReadNamespace)
			if err != nil {
				return err
			}
			if err := way.Submit(p.required); err != nil {
				return err
			}
			return p.refusal
		})
		return &configv1.SubmitChangeResponse{Change: c}, err
	})
}

// ApproveChange implements rowhouse.config.v1.ChangeService.
func (s *changeService) ApproveChange(ctx context.Context, req *configv1.ApproveChangeRequest) (*configv1.ApproveChangeResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.ApproveChangeResponse, error) {
		c, err := s.step(ctx, tx, req.GetName(), "", func(c *store.Change, way *governance.Change) error {
			required, err := s.required(ctx, tx, c)
			if err != nil {
				return err
			}
			who := tx.Call().Principal.Name
			if added, err := way.Approve(who, req.GetDigest(), required); err != nil || !added {
				return err
			}
			tx.Audit(c.GetName(), pathApprovals)
			return store.AddApproval(ctx, tx, c, &configv1.ChangeApproval{
				Approver: who, Comment: req.GetReason(), ApproveTime: timestamppb.New(tx.Now()),
			})
		})
		return &configv1.ApproveChangeResponse{Change: c}, err
	})
}

// RejectChange implements rowhouse.config.v1.ChangeService.
func (s *changeService) RejectChange(ctx context.Context, req *configv1.RejectChangeRequest) (*configv1.RejectChangeResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.RejectChangeResponse, error) {
		c, err := s.step(ctx, tx, req.GetName(), req.GetEtag(), func(c *store.Change, way *governance.Change) error {
			c.ClosingReason = req.GetReason()
			return way.Reject()
		})
		return &configv1.RejectChangeResponse{Change: c}, err
	})
}

// ScheduleChange implements rowhouse.config.v1.ChangeService.
func (s *changeService) ScheduleChange(ctx context.Context, req *configv1.ScheduleChangeRequest) (*configv1.ScheduleChangeResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.ScheduleChangeResponse, error) {
		c, err := s.step(ctx, tx, req.GetName(), req.GetEtag(), func(c *store.Change, way *governance.Change) error {
			if err := entitledTo(tx.Call().Principal, c); err != nil {
				return err
			}
			p, err := s.plan(ctx, tx, c, store.ReadNamespace)
			if err != nil {
				return err
			}
			if err := way.Schedule(p.required); err != nil {
				return err
			}
			at := req.GetNotBefore().AsTime()
			if !at.After(tx.Now()) || at.After(tx.Now().Add(farthest)) {
				return badField("not_before", "is not in the future, or more than 366 days from now")
			}
			c.NotBefore, c.Refusal, c.Scheduler = timestamppb.New(at), nil, tx.Call().Principal.Name
			c.Attempt, c.TryTime = c.Attempt+1, nil // what hooks said of an earlier schedule is of that one
			return p.refusal
		})
		return &configv1.ScheduleChangeResponse{Change: c}, err
	})
}

// PublishChange implements rowhouse.config.v1.ChangeService.
func (s *changeService) PublishChange(ctx context.Context, req *configv1.PublishChangeRequest) (*configv1.PublishChangeResponse, error) {
	asked, err := s.ask(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.PublishChangeResponse, error) {
		c, err := s.step(ctx, tx, req.GetName(), req.GetEtag(), func(c *store.Change, way *governance.Change) error {
			if err := entitledTo(tx.Call().Principal, c); err != nil {
				return err
			}
			if err := asked.settle(tx, c); err != nil {
				return err
			}
			p, err := s.plan(ctx, tx, c, store.LockNamespace)
			if err == nil {
				err = p.keepKills(ctx, tx)
			}
			if err != nil {
				return err
			}
			if err := p.allowed(way); err != nil {
				return err
			}
			return s.goLive(ctx, tx, c, p)
		})
		return &configv1.PublishChangeResponse{Change: c}, err
	})
}

// CancelChange implements rowhouse.config.v1.ChangeService.
func (s *changeService) CancelChange(ctx context.Context, req *configv1.CancelChangeRequest) (*configv1.CancelChangeResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.CancelChangeResponse, error) {
		c, err := s.step(ctx, tx, req.GetName(), req.GetEtag(), func(c *store.Change, way *governance.Change) error {
			c.ClosingReason = req.GetReason()
			return way.Cancel()
		})
		return &configv1.CancelChangeResponse{Change: c}, err
	})
}

// review is what a change would do now, on the wire.
func (p *plan) review(ctx context.Context) *configv1.ChangeReview {
	out := &configv1.ChangeReview{Refusal: tenantgrpc.StatusIn(ctx, p.refusal).Proto()}
	out.RequiredApprovals = int32(p.required) //nolint:gosec // at most 3
	for _, st := range p.steps {
		one := &configv1.ChangeEditReview{Name: st.edit.Name}
		for _, d := range st.differences {
			one.Differences = append(one.Differences, &configv1.LeafDifference{Pointer: d.Pointer, Before: d.Before, After: d.After})
		}
		for _, c := range st.conflicts {
			one.Conflicts = append(one.Conflicts, &configv1.LeafConflict{Pointer: c.Pointer, Base: c.Base, Current: c.Current, Wanted: c.Wanted})
		}
		out.Edits = append(out.Edits, one)
	}
	return out
}
