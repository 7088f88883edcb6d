package rpc

import (
	"context"
	"strings"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/google/uuid"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

const (
	// lookEvery is how often a waiting call looks for progress that another replica made.
	lookEvery   = 250 * time.Millisecond
	defaultWait = 10 * time.Second
	maxWait     = 25 * time.Second // below the deadline of admin calls
)

// operations serves google.longrunning.Operations.
type operations struct {
	longrunningpb.UnimplementedOperationsServer
	Config
}

// operationOf returns an operation as the API shows it.
func operationOf(o store.Operation) (*longrunningpb.Operation, error) {
	meta, err := anypb.New(o.Meta)
	if err != nil {
		return nil, err
	}
	m := &longrunningpb.Operation{Name: "operations/" + o.ID, Metadata: meta, Done: o.Done()}
	switch {
	case !o.Done():
	case o.Error != nil:
		status := new(spb.Status)
		if err := proto.Unmarshal(o.Error, status); err != nil {
			return nil, err
		}
		m.Result = &longrunningpb.Operation_Error{Error: status}
	default:
		packed := new(anypb.Any)
		if err := proto.Unmarshal(o.Output, packed); err != nil {
			return nil, err
		}
		m.Result = &longrunningpb.Operation_Response{Response: packed}
	}
	return m, nil
}

// await reads an operation until it has ended, stop says so, or ctx ends; then it returns what it saw last.
func (c Config) await(ctx context.Context, id string, stop func(store.Operation) bool) (store.Operation, error) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		moved := c.Worker.Moved()
		o, err := store.ReadOperation(context.WithoutCancel(ctx), c.Pool, id)
		if err != nil || o.Done() || stop(o) {
			return o, err
		}
		select {
		case <-ctx.Done():
			return o, nil
		case <-moved:
		case <-look.C:
		}
	}
}

// operationID reads "operations/{id}". A name of another form names nothing.
func operationID(name string) (string, error) {
	id, ok := strings.CutPrefix(name, "operations/")
	parsed, err := uuid.Parse(id)
	if !ok || err != nil || parsed.String() != id {
		return "", store.NotFound("the operation")
	}
	return id, nil
}

// GetOperation implements google.longrunning.Operations.
func (s *operations) GetOperation(ctx context.Context, req *longrunningpb.GetOperationRequest) (*longrunningpb.Operation, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*longrunningpb.Operation, error) {
		o, err := s.read(ctx, tx, req.GetName())
		if err != nil {
			return nil, err
		}
		return operationOf(o)
	})
}

// read finds an operation and names it in the audit event, in the chain of the tenant that it works on.
func (s *operations) read(ctx context.Context, tx *change.Tx, name string) (store.Operation, error) {
	id, err := operationID(name)
	if err != nil {
		return store.Operation{}, err
	}
	o, err := store.ReadOperation(ctx, tx, id)
	if err != nil {
		return store.Operation{}, err
	}
	tx.Tenant(string(o.Input))
	tx.Audit(name)
	tx.Audit(o.Target)
	return o, nil
}

// ListOperations implements google.longrunning.Operations. The newest come first; the filter may be empty or
// target = "tenants/{tenant}".
func (s *operations) ListOperations(
	ctx context.Context, req *longrunningpb.ListOperationsRequest,
) (*longrunningpb.ListOperationsResponse, error) {
	if name := req.GetName(); name != "" && name != "operations" {
		return nil, badField("name", `is empty or "operations"`)
	}
	target, err := parseTarget(req.GetFilter())
	if err != nil {
		return nil, err
	}
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*longrunningpb.ListOperationsResponse, error) {
		p, err := tx.Page(ctx, page.Query{Filter: req.GetFilter(), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		found, err := store.ListOperations(ctx, tx, target, first(p.After), p.Limit())
		if err != nil {
			return nil, err
		}
		all := make([]*longrunningpb.Operation, len(found))
		for i, o := range found {
			if all[i], err = operationOf(o); err != nil {
				return nil, err
			}
		}
		all, next, err := page.Cut(p, all, func(m *longrunningpb.Operation) []string { return []string{idOf(m.GetName())} })
		for _, m := range all {
			tx.Audit(m.GetName())
		}
		return &longrunningpb.ListOperationsResponse{Operations: all, NextPageToken: next}, err
	})
}

// first returns the one part of a page's key, or "" on the first page.
func first(after []string) string {
	if len(after) == 0 {
		return ""
	}
	return after[0]
}

func parseTarget(filter string) (string, error) {
	if filter == "" {
		return "", nil
	}
	field, value, ok := strings.Cut(filter, "=")
	value = strings.Trim(strings.TrimSpace(value), `"`)
	if !ok || strings.TrimSpace(field) != "target" || !strings.HasPrefix(value, "tenants/") || len(filter) > 256 {
		return "", fault.New(fault.InvalidArgument, fault.ReasonFilterInvalid, `filter is empty or target = "tenants/{tenant}"`)
	}
	return value, nil
}

// WaitOperation implements google.longrunning.Operations. It answers when the operation has ended, at the latest after
// the timeout, default 10 s and at most 25 s.
func (s *operations) WaitOperation(ctx context.Context, req *longrunningpb.WaitOperationRequest) (*longrunningpb.Operation, error) {
	wait := defaultWait
	if req.GetTimeout() != nil {
		wait = req.GetTimeout().AsDuration()
	}
	if _, err := s.GetOperation(ctx, &longrunningpb.GetOperationRequest{Name: req.GetName()}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, max(0, min(wait, maxWait)))
	defer cancel()
	o, err := s.await(ctx, idOf(req.GetName()), func(store.Operation) bool { return false })
	if err != nil {
		return nil, err
	}
	return operationOf(o)
}

// CancelOperation implements google.longrunning.Operations. Only the creation of a tenant can be cancelled; for others,
// and for those that have ended, it does nothing.
func (s *operations) CancelOperation(ctx context.Context, req *longrunningpb.CancelOperationRequest) (*emptypb.Empty, error) {
	resp, err := change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*emptypb.Empty, error) {
		o, err := s.read(ctx, tx, req.GetName())
		if err != nil {
			return nil, err
		}
		_, err = store.CancelOperation(ctx, tx, o.ID, worker.VerbCreate)
		return &emptypb.Empty{}, err
	})
	if err == nil {
		s.Worker.Kick()
	}
	return resp, err
}

// DeleteOperation implements google.longrunning.Operations. One that runs is WRONG_STATE.
func (s *operations) DeleteOperation(ctx context.Context, req *longrunningpb.DeleteOperationRequest) (*emptypb.Empty, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*emptypb.Empty, error) {
		o, err := s.read(ctx, tx, req.GetName())
		if err != nil {
			return nil, err
		}
		ended, err := store.DeleteOperation(ctx, tx, o.ID)
		if err == nil && !ended {
			return nil, fault.New(fault.FailedPrecondition, fault.ReasonWrongState, "the operation runs").
				WithMetadata("state", "RUNNING")
		}
		return &emptypb.Empty{}, err
	})
}
