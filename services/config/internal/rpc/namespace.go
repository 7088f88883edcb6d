package rpc

import (
	"context"
	"crypto/rand"
	"reflect"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/mask"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/governance"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// namespaceService serves NamespaceService.
type namespaceService struct {
	configv1.UnimplementedNamespaceServiceServer
	Config
}

// namespaceID reads the name of a namespace, which the call concerns.
func namespaceID(tx *change.Tx, field, name string) (string, error) {
	tx.Audit(name)
	id, err := settings.ParseNamespace(name)
	if err != nil {
		return "", badField(field, "is not the name of a namespace")
	}
	return id, nil
}

// GetNamespace implements rowhouse.config.v1.NamespaceService.
func (s *namespaceService) GetNamespace(ctx context.Context, req *configv1.GetNamespaceRequest) (*configv1.GetNamespaceResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.GetNamespaceResponse, error) {
		id, err := namespaceID(tx, "name", req.GetName())
		if err != nil {
			return nil, err
		}
		n, err := store.ReadNamespace(ctx, tx, id)
		return &configv1.GetNamespaceResponse{Namespace: n}, err
	})
}

// ListNamespaces implements rowhouse.config.v1.NamespaceService.
func (s *namespaceService) ListNamespaces(
	ctx context.Context, req *configv1.ListNamespacesRequest,
) (*configv1.ListNamespacesResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.ListNamespacesResponse, error) {
		p, err := tx.Page(ctx, page.Query{Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		p = few(p)
		found, err := store.ListNamespaces(ctx, tx, last(p), p.Limit())
		if err != nil {
			return nil, err
		}
		found, next, err := page.Cut(p, found, func(n *configv1.Namespace) []string {
			return []string{strings.TrimPrefix(n.GetName(), "namespaces/")}
		})
		return &configv1.ListNamespacesResponse{Namespaces: found, NextPageToken: next}, err
	})
}

// last is the key of the page before, "" on the first page.
func last(p page.Page) string {
	if len(p.After) == 1 {
		return p.After[0]
	}
	return ""
}

// CreateNamespace implements rowhouse.config.v1.NamespaceService.
func (s *namespaceService) CreateNamespace(
	ctx context.Context, req *configv1.CreateNamespaceRequest,
) (*configv1.CreateNamespaceResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.CreateNamespaceResponse, error) {
		n, err := s.create(ctx, tx, req.GetNamespaceId(), req.GetNamespace())
		return &configv1.CreateNamespaceResponse{Namespace: n}, err
	})
}

func (c Config) create(ctx context.Context, tx *change.Tx, id string, given *configv1.Namespace) (*configv1.Namespace, error) {
	tx.Audit("namespaces/" + id)
	schema, err := compile(id, given.GetSchema(), "")
	if err != nil {
		return nil, err
	}
	r, err := ruleIn(given)
	if err != nil {
		return nil, err
	}
	uid, err := tenant.NewUID(c.Clock(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := timestamppb.New(tx.Now())
	n := &configv1.Namespace{
		Name: "namespaces/" + id, Uid: uid.String(), Schema: schema.Text, Approval: approvalOf(r), CreateTime: now, UpdateTime: now,
	}
	if err := number(ctx, tx, n); err != nil {
		return nil, err
	}
	if err := store.InsertNamespace(ctx, tx, id, n); err != nil {
		return nil, err
	}
	return n, publishNamespace(tx, id, n)
}

// number gives a namespace its new revision. A call that only validates has none.
func number(ctx context.Context, tx *change.Tx, n *configv1.Namespace) (err error) {
	if tx.Call().ValidateOnly {
		return nil
	}
	if n.Revision, err = store.Tick(ctx, tx); err == nil {
		n.Etag = etag.Of(n.GetUid(), n.GetRevision())
	}
	return err
}

func publishNamespace(tx *change.Tx, id string, n *configv1.Namespace) error {
	return tx.Publish(sdk.FeedName, sdk.NamespaceKey(id), &configv1.SettingsEntry{Schema: n.GetSchema(), Revision: n.GetRevision()})
}

// UpdateNamespace implements rowhouse.config.v1.NamespaceService.
func (s *namespaceService) UpdateNamespace(
	ctx context.Context, req *configv1.UpdateNamespaceRequest,
) (*configv1.UpdateNamespaceResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.UpdateNamespaceResponse, error) {
		id, err := namespaceID(tx, "namespace.name", req.GetNamespace().GetName())
		if err != nil {
			return nil, err
		}
		n, err := store.LockNamespace(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetNamespace().GetEtag(), n.GetEtag()); err != nil {
			return nil, err
		}
		paths, err := s.reschema(ctx, tx, id, n, req)
		if err != nil || len(paths) == 0 {
			return &configv1.UpdateNamespaceResponse{Namespace: n}, err
		}
		if err := keepsKills(ctx, tx, id, n.GetSchema()); err != nil {
			return nil, err
		}
		tx.Audit(n.GetName(), paths...)
		n.UpdateTime = timestamppb.New(tx.Now())
		if err := number(ctx, tx, n); err != nil {
			return nil, err
		}
		if err := store.UpdateNamespace(ctx, tx, n); err != nil {
			return nil, err
		}
		return &configv1.UpdateNamespaceResponse{Namespace: n}, publishNamespace(tx, id, n)
	})
}

// reschema gives n the schema and the approval rule that the request wants and returns what changed.
func (s *namespaceService) reschema(
	ctx context.Context, tx *change.Tx, id string, n *configv1.Namespace, req *configv1.UpdateNamespaceRequest,
) ([]string, error) {
	before, err := s.state(ctx, tx, n, store.Scope{})
	if err != nil {
		return nil, err
	}
	old, err := ruleOf(n)
	if err != nil {
		return nil, err
	}
	if paths, err := mask.Apply(n, req.GetNamespace(), req.GetUpdateMask()); err != nil || len(paths) == 0 {
		return nil, err
	}
	r, err := ruleIn(n)
	if err != nil {
		return nil, err
	}
	n.Approval = approvalOf(r)
	schema, err := compile(id, n.GetSchema(), before.Schema.Text)
	if err != nil {
		return nil, err
	}
	n.Schema = schema.Text
	var paths []string
	if schema.Text != before.Schema.Text { // and not another way to write the same
		paths = append(paths, "schema")
		shadow := req.GetOverrides() == configv1.OverridePolicy_OVERRIDE_POLICY_SHADOW
		if err := judgeWith(settings.Change{Before: before, Schema: schema}, shadow); err != nil {
			return nil, err
		}
		to := settings.Change{Before: before, Schema: schema}
		if err := s.besideRollout(ctx, tx, n, n, to, func(c settings.Change) error { return judgeWith(c, shadow) }); err != nil {
			return nil, err
		}
	}
	if len(paths) > 0 || r.Weaker(old) {
		if err := needsChange(n.GetName(), old.Count); err != nil {
			return nil, err
		}
	}
	if !reflect.DeepEqual(r, old) {
		if running, err := store.RunningRollout(ctx, tx, n.GetUid()); err != nil {
			return nil, err
		} else if running != nil {
			return nil, runs(running) // else it would go on without those who have to approve
		}
		paths = append(paths, "approval")
	}
	return paths, nil
}

// ruleIn is the approval rule that a request gives a namespace.
func ruleIn(n *configv1.Namespace) (governance.Rule, error) {
	r, err := governance.NewRule(n.GetApproval().GetLayers(), int(n.GetApproval().GetCount()))
	if err != nil {
		return r, badField("namespace.approval", "is not acceptable: "+err.Error())
	}
	return r, nil
}

// needsChange refuses what is done directly and needs approvals.
func needsChange(name string, required int) error {
	if required == 0 {
		return nil
	}
	return refuse(fault.FailedPrecondition, governance.ReasonApprovalRequired,
		"%s changes only by a change that is approved by %d people who did not write it", name, required).
		WithMetadata("required", strconv.Itoa(required))
}

// DeleteNamespace implements rowhouse.config.v1.NamespaceService.
func (s *namespaceService) DeleteNamespace(
	ctx context.Context, req *configv1.DeleteNamespaceRequest,
) (*configv1.DeleteNamespaceResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.DeleteNamespaceResponse, error) {
		id, err := namespaceID(tx, "name", req.GetName())
		if err != nil {
			return nil, err
		}
		if _, ours := builtIn()[id]; ours {
			return nil, refuse(fault.FailedPrecondition, namespaceInUse, "the platform itself uses namespaces/%s", id)
		}
		n, err := store.LockNamespace(ctx, tx, id)
		if fault.KindOf(err) == fault.NotFound && req.GetAllowMissing() {
			return &configv1.DeleteNamespaceResponse{}, nil
		}
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetEtag(), n.GetEtag()); err != nil {
			return nil, err
		}
		if err := keepsKills(ctx, tx, id, "{}"); err != nil {
			return nil, err
		}
		// Else it could be made anew without its rule.
		if err := needsChange(n.GetName(), int(n.GetApproval().GetCount())); err != nil {
			return nil, err
		}
		gone, err := store.DeleteNamespace(ctx, tx, n.GetUid())
		if err != nil {
			return nil, err
		}
		if !gone {
			return nil, refuse(fault.FailedPrecondition, namespaceInUse, "documents or secrets exist in namespaces/%s", id)
		}
		if r, err := store.RunningRollout(ctx, tx, n.GetUid()); err != nil {
			return nil, err
		} else if r != nil {
			return nil, runs(r)
		}
		return &configv1.DeleteNamespaceResponse{}, tx.Publish(sdk.FeedName, sdk.NamespaceKey(id), nil)
	})
}
