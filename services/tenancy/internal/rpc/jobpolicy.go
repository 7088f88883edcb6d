package rpc

import (
	"cmp"
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/mask"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

// What a declaration says that leaves a field out.
const (
	defaultContextsAMinute = 30
	defaultTenantsAMinute  = 1000
	// longestOriginAge is also how long keys are kept that may have signed an origin.
	longestOriginAge = 7 * 24 * time.Hour
	maxKind          = 40
)

// jobPolicies serves JobPolicyService.
type jobPolicies struct {
	tenancyv1.UnimplementedJobPolicyServiceServer
	Config
}

// policyID cuts the name of a declaration, whose form was checked.
func policyID(name string) (app, kind string) {
	app, kind, _ = strings.Cut(idOf(name), "/jobPolicies/")
	return app, kind
}

// GetJobPolicy implements rowhouse.tenancy.v1.JobPolicyService.
func (s *jobPolicies) GetJobPolicy(ctx context.Context, req *tenancyv1.GetJobPolicyRequest) (*tenancyv1.GetJobPolicyResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.GetJobPolicyResponse, error) {
		tx.Audit(req.GetName())
		app, kind := policyID(req.GetName())
		m, err := store.ReadJobPolicy(ctx, tx, app, kind)
		return &tenancyv1.GetJobPolicyResponse{JobPolicy: m}, err
	})
}

// ListJobPolicies implements rowhouse.tenancy.v1.JobPolicyService.
func (s *jobPolicies) ListJobPolicies(
	ctx context.Context, req *tenancyv1.ListJobPoliciesRequest,
) (*tenancyv1.ListJobPoliciesResponse, error) {
	app := idOf(req.GetParent())
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.ListJobPoliciesResponse, error) {
		tx.Audit(req.GetParent())
		if _, err := store.ReadApp(ctx, tx, app); err != nil {
			return nil, err
		}
		p, err := tx.Page(ctx, page.Query{Parent: req.GetParent(), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		all, err := store.ListJobPolicies(ctx, tx, app, first(p.After), p.Limit())
		if err != nil {
			return nil, err
		}
		all, next, err := page.Cut(p, all, func(m *tenancyv1.JobPolicy) []string {
			_, kind := policyID(m.GetName())
			return []string{kind}
		})
		return &tenancyv1.ListJobPoliciesResponse{JobPolicies: all, NextPageToken: next}, err
	})
}

// UpdateJobPolicy implements rowhouse.tenancy.v1.JobPolicyService.
func (s *jobPolicies) UpdateJobPolicy(
	ctx context.Context, req *tenancyv1.UpdateJobPolicyRequest,
) (*tenancyv1.UpdateJobPolicyResponse, error) {
	name := req.GetJobPolicy().GetName()
	app, kind := policyID(name)
	if _, err := labelName("job_policy.name", "apps/", "apps/"+app); err != nil || name != store.JobPolicyName(app, kind) {
		return nil, badField("job_policy.name", "is not apps/{app}/jobPolicies/{kind}")
	}
	if _, err := labelName("job_policy.name", "kinds/", "kinds/"+kind); err != nil || len(kind) > maxKind {
		return nil, badField("job_policy.name", "has a kind that is no label of at most 40 characters")
	}
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.UpdateJobPolicyResponse, error) {
		tx.Audit(name)
		m, err := s.lockOrNew(ctx, tx, req)
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetJobPolicy().GetEtag(), m.GetEtag()); err != nil {
			return nil, err
		}
		paths, err := mask.Apply(m, req.GetJobPolicy(), req.GetUpdateMask())
		if err != nil || len(paths) == 0 && m.GetRevision() > 0 {
			return &tenancyv1.UpdateJobPolicyResponse{JobPolicy: m}, err
		}
		tx.Audit(name, paths...)
		completeJobPolicy(m)
		m.UpdateTime, m.Revision = timestamppb.New(tx.Now()), m.GetRevision()+1
		m.Etag = etag.Of(m.GetUid(), m.GetRevision())
		return &tenancyv1.UpdateJobPolicyResponse{JobPolicy: m}, store.PutJobPolicy(ctx, tx, app, kind, m)
	})
}

// completeJobPolicy fills in defaults.
func completeJobPolicy(m *tenancyv1.JobPolicy) {
	m.ContextsPerMinute = cmp.Or(m.GetContextsPerMinute(), defaultContextsAMinute)
	m.TenantsPerMinute = cmp.Or(m.GetTenantsPerMinute(), defaultTenantsAMinute)
	if m.GetMaxOriginAge() == nil {
		m.MaxOriginAge = durationpb.New(longestOriginAge)
	}
}

// lockOrNew returns the declaration as it is, or a new one where the call allows it. The app's lock comes first: two calls
// do not declare the same kind.
func (s *jobPolicies) lockOrNew(ctx context.Context, tx *change.Tx, req *tenancyv1.UpdateJobPolicyRequest) (*tenancyv1.JobPolicy, error) {
	app, kind := policyID(req.GetJobPolicy().GetName())
	if _, err := store.LockApp(ctx, tx, app); err != nil {
		return nil, err
	}
	m, err := store.LockJobPolicy(ctx, tx, app, kind)
	if fault.KindOf(err) != fault.NotFound || !req.GetAllowMissing() {
		return m, err
	}
	uid, err := s.newUID()
	if err != nil {
		return nil, err
	}
	return &tenancyv1.JobPolicy{Name: store.JobPolicyName(app, kind), Uid: uid.String(), CreateTime: timestamppb.New(tx.Now())}, nil
}

// DeleteJobPolicy implements rowhouse.tenancy.v1.JobPolicyService.
func (s *jobPolicies) DeleteJobPolicy(
	ctx context.Context, req *tenancyv1.DeleteJobPolicyRequest,
) (*tenancyv1.DeleteJobPolicyResponse, error) {
	app, kind := policyID(req.GetName())
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.DeleteJobPolicyResponse, error) {
		tx.Audit(req.GetName())
		m, err := store.LockJobPolicy(ctx, tx, app, kind)
		if fault.KindOf(err) == fault.NotFound && req.GetAllowMissing() {
			return &tenancyv1.DeleteJobPolicyResponse{}, nil
		}
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetEtag(), m.GetEtag()); err != nil {
			return nil, err
		}
		return &tenancyv1.DeleteJobPolicyResponse{}, store.DeleteJobPolicy(ctx, tx, app, kind)
	})
}
