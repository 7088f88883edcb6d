package rpc

import (
	"context"
	"regexp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/mask"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/fair"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/wire"
)

// plans serves PlanService.
type plans struct {
	tenancyv1.UnimplementedPlanServiceServer
	Config
}

// labelName checks a name of the form prefix{label} that stands inside a resource, where no rule beside the field does.
func labelName(field, prefix, name string) (string, error) {
	id := idOf(name)
	if !regexp.MustCompile(`^[a-z](-?[a-z0-9])*$`).MatchString(id) || name != prefix+id {
		return "", badField(field, "is not "+prefix+"{id}")
	}
	return id, nil
}

// GetPlan implements rowhouse.tenancy.v1.PlanService.
func (s *plans) GetPlan(ctx context.Context, req *tenancyv1.GetPlanRequest) (*tenancyv1.GetPlanResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.GetPlanResponse, error) {
		p, err := store.ReadPlan(ctx, tx, idOf(req.GetName()))
		tx.Audit(req.GetName())
		return &tenancyv1.GetPlanResponse{Plan: p}, err
	})
}

// ListPlans implements rowhouse.tenancy.v1.PlanService.
func (s *plans) ListPlans(ctx context.Context, req *tenancyv1.ListPlansRequest) (*tenancyv1.ListPlansResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.ListPlansResponse, error) {
		p, err := tx.Page(ctx, page.Query{Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		found, err := store.ListPlans(ctx, tx, first(p.After), p.Limit())
		if err != nil {
			return nil, err
		}
		found, next, err := page.Cut(p, found, func(m *tenancyv1.Plan) []string { return []string{idOf(m.GetName())} })
		for _, m := range found {
			tx.Audit(m.GetName())
		}
		return &tenancyv1.ListPlansResponse{Plans: found, NextPageToken: next}, err
	})
}

// CreatePlan implements rowhouse.tenancy.v1.PlanService.
func (s *plans) CreatePlan(ctx context.Context, req *tenancyv1.CreatePlanRequest) (*tenancyv1.CreatePlanResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.CreatePlanResponse, error) {
		m := new(tenancyv1.Plan)
		if req.GetPlan() != nil {
			if _, err := mask.Apply(m, req.GetPlan(), nil); err != nil {
				return nil, err
			}
		}
		uid, err := s.newUID()
		if err != nil {
			return nil, err
		}
		m.Name, m.Uid = "plans/"+req.GetPlanId(), uid.String()
		m.CreateTime, m.UpdateTime = timestamppb.New(tx.Now()), timestamppb.New(tx.Now())
		if err := completePlan(m); err != nil {
			return nil, err
		}
		tx.Audit(m.GetName())
		if err := store.InsertPlan(ctx, tx, req.GetPlanId(), m); err != nil {
			return nil, err
		}
		stampPlan(tx, m)
		return &tenancyv1.CreatePlanResponse{Plan: m}, wire.PublishPlan(tx, m)
	})
}

// completePlan fills in defaults and checks the fields against each other.
func completePlan(m *tenancyv1.Plan) error {
	shared := tenancyv1.IsolationModel_ISOLATION_MODEL_SHARED
	if len(m.GetAllowedModels()) == 0 {
		m.AllowedModels = []tenancyv1.IsolationModel{shared}
	}
	if m.GetDefaultModel() == 0 {
		m.DefaultModel = m.GetAllowedModels()[0]
		if slices.Contains(m.GetAllowedModels(), shared) {
			m.DefaultModel = shared
		}
	}
	if !slices.Contains(m.GetAllowedModels(), m.GetDefaultModel()) {
		return badField("plan.default_model", "is not among allowed_models")
	}
	if m.GetLossPolicy() == 0 {
		m.LossPolicy = tenancyv1.LossPolicy_LOSS_POLICY_SERVE
	}
	if m.GetWeight() == 0 {
		m.Weight = fair.DefaultWeight
	}
	for _, f := range []struct {
		field **durationpb.Duration
		value time.Duration
	}{
		{&m.StatementTimeout, 5 * time.Second}, {&m.LockTimeout, 2 * time.Second},
		{&m.IdleTransactionTimeout, 5 * time.Second}, {&m.Retention, 30 * 24 * time.Hour},
	} {
		if *f.field == nil {
			*f.field = durationpb.New(f.value)
		}
	}
	for _, d := range []*durationpb.Duration{m.GetStatementTimeout(), m.GetLockTimeout(), m.GetIdleTransactionTimeout()} {
		d.Nanos -= d.GetNanos() % int32(time.Millisecond)
	}
	m.Retention.Nanos = 0
	return nil
}

// stampPlan has the message get the change's revision.
func stampPlan(tx *change.Tx, m *tenancyv1.Plan) {
	m.Etag = etag.Of(m.GetUid(), m.GetRevision())
	tx.OnRevision(func(ctx context.Context, revision int64) error {
		m.Revision, m.Etag = revision, etag.Of(m.GetUid(), revision)
		return store.StampPlan(ctx, tx, idOf(m.GetName()), revision)
	})
}

// UpdatePlan implements rowhouse.tenancy.v1.PlanService.
func (s *plans) UpdatePlan(ctx context.Context, req *tenancyv1.UpdatePlanRequest) (*tenancyv1.UpdatePlanResponse, error) {
	id, err := labelName("plan.name", "plans/", req.GetPlan().GetName())
	if err != nil {
		return nil, err
	}
	resp, err := change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.UpdatePlanResponse, error) {
		m, err := store.LockPlan(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		tx.Audit(m.GetName())
		if err := etag.Check(req.GetPlan().GetEtag(), m.GetEtag()); err != nil {
			return nil, err
		}
		paths, err := mask.Apply(m, req.GetPlan(), req.GetUpdateMask())
		if err != nil || len(paths) == 0 {
			return &tenancyv1.UpdatePlanResponse{Plan: m}, err
		}
		tx.Audit(m.GetName(), paths...)
		m.UpdateTime = timestamppb.New(tx.Now())
		if err := s.update(ctx, tx, id, m, paths); err != nil {
			return nil, err
		}
		return &tenancyv1.UpdatePlanResponse{Plan: m}, nil
	})
	if err == nil {
		s.Worker.Kick()
	}
	return resp, err
}

// ownFields are the fields of a plan that the homes of its tenants know nothing of.
var ownFields = []string{"display_name", "loss_policy", "retention", "weight"} //nolint:gochecknoglobals // a constant in all but syntax

// update stores the plan; the worker has its tenants follow, of which one revision of a feed does not hold all.
func (s *plans) update(ctx context.Context, tx *change.Tx, id string, m *tenancyv1.Plan, paths []string) error {
	if err := completePlan(m); err != nil {
		return err
	}
	if err := store.UpdatePlan(ctx, tx, id, m); err != nil {
		return err
	}
	if slices.ContainsFunc(paths, func(p string) bool { return !slices.Contains(ownFields, p) }) {
		if err := store.OwePlan(ctx, tx, id); err != nil {
			return err
		}
	}
	if slices.Contains(paths, "loss_policy") {
		if err := store.OweFeeds(ctx, tx, id); err != nil {
			return err
		}
	}
	stampPlan(tx, m)
	if slices.Contains(paths, "weight") {
		return wire.PublishPlan(tx, m)
	}
	return nil
}

// DeletePlan implements rowhouse.tenancy.v1.PlanService.
func (s *plans) DeletePlan(ctx context.Context, req *tenancyv1.DeletePlanRequest) (*tenancyv1.DeletePlanResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.DeletePlanResponse, error) {
		tx.Audit(req.GetName())
		m, err := store.LockPlan(ctx, tx, idOf(req.GetName()))
		if fault.KindOf(err) == fault.NotFound && req.GetAllowMissing() {
			return &tenancyv1.DeletePlanResponse{}, nil
		}
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetEtag(), m.GetEtag()); err != nil {
			return nil, err
		}
		if err := store.DeletePlan(ctx, tx, idOf(req.GetName())); err != nil {
			return nil, err
		}
		return &tenancyv1.DeletePlanResponse{}, wire.RemovePlan(tx, idOf(req.GetName()))
	})
}
