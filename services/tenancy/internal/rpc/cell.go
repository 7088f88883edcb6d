package rpc

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/mask"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/wire"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

const defaultCapacity = 10_000

// cells serves CellService.
type cells struct {
	tenancyv1.UnimplementedCellServiceServer
	Config
}

// GetCell implements rowhouse.tenancy.v1.CellService.
func (s *cells) GetCell(ctx context.Context, req *tenancyv1.GetCellRequest) (*tenancyv1.GetCellResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.GetCellResponse, error) {
		tx.Audit(req.GetName())
		c, err := store.ReadCell(ctx, tx, idOf(req.GetName()))
		return &tenancyv1.GetCellResponse{Cell: c}, err
	})
}

// ListCells implements rowhouse.tenancy.v1.CellService.
func (s *cells) ListCells(ctx context.Context, req *tenancyv1.ListCellsRequest) (*tenancyv1.ListCellsResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.ListCellsResponse, error) {
		p, err := tx.Page(ctx, page.Query{Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		found, err := store.ListCells(ctx, tx, first(p.After), p.Limit())
		if err != nil {
			return nil, err
		}
		found, next, err := page.Cut(p, found, func(m *tenancyv1.Cell) []string { return []string{idOf(m.GetName())} })
		for _, m := range found {
			tx.Audit(m.GetName())
		}
		return &tenancyv1.ListCellsResponse{Cells: found, NextPageToken: next}, err
	})
}

// CreateCell implements rowhouse.tenancy.v1.CellService. Nothing lives in a new cell yet, so its first seal key is in
// use at once.
func (s *cells) CreateCell(ctx context.Context, req *tenancyv1.CreateCellRequest) (*tenancyv1.CreateCellResponse, error) {
	resp, err := change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.CreateCellResponse, error) {
		m, err := s.draft(tx, req)
		if err != nil {
			return nil, err
		}
		tx.Audit(m.GetName())
		if err := store.InsertCell(ctx, tx, req.GetCellId(), m); err != nil {
			return nil, err
		}
		key, err := worker.NewSealKey(s.Work, req.GetCellId(), 1, tx.Now())
		if err != nil {
			return nil, err
		}
		key.UseTime = tx.Now()
		if _, err := store.InsertSealKey(ctx, tx, key); err != nil {
			return nil, err
		}
		if err := wire.PublishCell(tx, m, key.KID); err != nil {
			return nil, err
		}
		if err := wire.PublishRegion(tx, m); err != nil {
			return nil, err
		}
		stampCell(tx, m)
		return &tenancyv1.CreateCellResponse{Cell: m}, nil
	})
	if err == nil && !req.GetValidateOnly() {
		if err := s.Worker.TurnSigningKey(ctx); err != nil {
			s.Work.Log.WarnContext(ctx, "the new cell has no signing key yet; the worker makes it", "error", err)
		}
		s.Worker.KickKeys()
	}
	return resp, err
}

// draft is the cell that the request asks for.
func (s *cells) draft(tx *change.Tx, req *tenancyv1.CreateCellRequest) (*tenancyv1.Cell, error) {
	uid, err := s.newUID()
	if err != nil {
		return nil, err
	}
	m := &tenancyv1.Cell{
		Name: "cells/" + req.GetCellId(), Uid: uid.String(), Region: req.GetCell().GetRegion(),
		CredentialsRef: req.GetCell().GetCredentialsRef(), Models: req.GetCell().GetModels(),
		Capacity: req.GetCell().GetCapacity(), State: req.GetCell().GetState(),
		CreateTime: timestamppb.New(tx.Now()), UpdateTime: timestamppb.New(tx.Now()),
	}
	if m.GetRegion() == "" {
		return nil, badField("cell.region", "is required")
	}
	return m, completeCell(m)
}

func completeCell(m *tenancyv1.Cell) error {
	if m.GetCredentialsRef() == "" {
		return badField("cell.credentials_ref", "is required")
	}
	if len(m.GetModels()) == 0 {
		m.Models = []tenancyv1.IsolationModel{tenancyv1.IsolationModel_ISOLATION_MODEL_SHARED}
	}
	if m.GetCapacity() == 0 {
		m.Capacity = defaultCapacity
	}
	if m.GetState() == tenancyv1.CellState_CELL_STATE_UNSPECIFIED {
		m.State = tenancyv1.CellState_CELL_STATE_OPEN
	}
	return nil
}

// stampCell has the message get the change's revision.
func stampCell(tx *change.Tx, m *tenancyv1.Cell) {
	m.Etag = etag.Of(m.GetUid(), m.GetRevision())
	tx.OnRevision(func(ctx context.Context, revision int64) error {
		m.Revision, m.Etag = revision, etag.Of(m.GetUid(), revision)
		return store.StampCell(ctx, tx, idOf(m.GetName()), revision)
	})
}

// UpdateCell implements rowhouse.tenancy.v1.CellService.
func (s *cells) UpdateCell(ctx context.Context, req *tenancyv1.UpdateCellRequest) (*tenancyv1.UpdateCellResponse, error) {
	id, err := labelName("cell.name", "cells/", req.GetCell().GetName())
	if err != nil {
		return nil, err
	}
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.UpdateCellResponse, error) {
		m, err := store.LockCell(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		tx.Audit(m.GetName())
		if err := etag.Check(req.GetCell().GetEtag(), m.GetEtag()); err != nil {
			return nil, err
		}
		paths, err := mask.Apply(m, req.GetCell(), req.GetUpdateMask())
		if err != nil || len(paths) == 0 {
			return &tenancyv1.UpdateCellResponse{Cell: m}, err
		}
		tx.Audit(m.GetName(), paths...)
		m.UpdateTime = timestamppb.New(tx.Now())
		if err := completeCell(m); err != nil {
			return nil, err
		}
		if err := store.UpdateCell(ctx, tx, id, m); err != nil {
			return nil, err
		}
		kid, err := store.CurrentSealKID(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		stampCell(tx, m)
		return &tenancyv1.UpdateCellResponse{Cell: m}, wire.PublishCell(tx, m, kid)
	})
}
