// Package auditrpc serves rowhouse.audit.v1 over a service's own audit chains. Every service mounts it. Reading is
// itself recorded, in the platform chain.
package auditrpc

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	"github.com/rowhouse-platform/rowhouse/internal/audit"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// Server implements rowhouse.audit.v1.AuditService.
type Server struct {
	auditv1.UnimplementedAuditServiceServer
	kernel *change.Kernel
	pool   *pgxpool.Pool
	chain  *regexp.Regexp
}

// New returns a server of the chains in the kernel's database, which pool leads to.
func New(kernel *change.Kernel, pool *pgxpool.Pool) *Server {
	return &Server{kernel: kernel, pool: pool, chain: regexp.MustCompile(`^chains/([a-z0-9-]{1,63})$`)}
}

// ListEvents lists the events of one chain, newest first. A chain without events is an empty list.
func (s *Server) ListEvents(ctx context.Context, req *auditv1.ListEventsRequest) (*auditv1.ListEventsResponse, error) {
	chain, err := s.parse("parent", req.GetParent())
	if err != nil {
		return nil, err
	}
	return change.View(ctx, s.kernel, func(ctx context.Context, tx *change.Tx) (*auditv1.ListEventsResponse, error) {
		tx.Audit(req.GetParent())
		p, err := tx.Page(ctx, page.Query{Parent: chain, Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		before := int64(0)
		if len(p.After) == 1 {
			if before, err = strconv.ParseInt(p.After[0], 10, 64); err != nil {
				return nil, err
			}
		}
		events, err := audit.List(ctx, tx, chain, before, p.Limit())
		if err != nil {
			return nil, err
		}
		events, token, err := page.Cut(p, events, func(e *auditv1.Event) []string {
			return []string{strconv.FormatInt(e.GetSeq(), 10)}
		})
		return &auditv1.ListEventsResponse{Events: events, NextPageToken: token}, err
	})
}

// GetEvent returns one event of a chain.
func (s *Server) GetEvent(ctx context.Context, req *auditv1.GetEventRequest) (*auditv1.GetEventResponse, error) {
	parent, digits, ok := strings.Cut(req.GetName(), "/events/")
	chain, err := s.parse("name", parent)
	if err != nil {
		return nil, err
	}
	seq, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || seq < 1 || strconv.FormatInt(seq, 10) != digits {
		return nil, badName("name", "chains/{chain}/events/{seq}")
	}
	return change.View(ctx, s.kernel, func(ctx context.Context, tx *change.Tx) (*auditv1.GetEventResponse, error) {
		tx.Audit(req.GetName())
		event, err := audit.Get(ctx, tx, chain, seq)
		if err != nil {
			return nil, missing(err, req.GetName())
		}
		return &auditv1.GetEventResponse{Event: event}, nil
	})
}

// VerifyChain recomputes a chain from its first event.
func (s *Server) VerifyChain(ctx context.Context, req *auditv1.VerifyChainRequest) (*auditv1.VerifyChainResponse, error) {
	chain, err := s.parse("name", req.GetName())
	if err != nil {
		return nil, err
	}
	report, err := s.verify(ctx, chain)
	return change.View(ctx, s.kernel, func(_ context.Context, tx *change.Tx) (*auditv1.VerifyChainResponse, error) {
		tx.Audit(req.GetName())
		if err != nil {
			return nil, missing(err, req.GetName())
		}
		return &auditv1.VerifyChainResponse{
			Sound: report.FirstBad == 0, Events: report.Events, FirstBadSeq: report.FirstBad,
			Problem: report.Problem, Head: report.Head[:],
		}, nil
	})
}

// verify reads in a transaction of its own, because a chain and its head must come from one snapshot.
func (s *Server) verify(ctx context.Context, chain string) (report audit.Report, err error) {
	opts := pg.TxOptions{Isolation: pgx.RepeatableRead, ReadOnly: true}
	err = pg.Tx(ctx, s.pool, opts, func(ctx context.Context, tx pgx.Tx) error {
		report, err = audit.Verify(ctx, tx, chain)
		return err
	})
	return report, err
}

func (s *Server) parse(field, name string) (string, error) {
	m := s.chain.FindStringSubmatch(name)
	if m == nil {
		return "", badName(field, "chains/platform or chains/{tenant uid}")
	}
	return m[1], nil
}

func badName(field, want string) error {
	return fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "%s must be %s", field, want).
		WithField(fault.FieldViolation{Field: field, Description: "must be " + want})
}

func missing(err error, name string) error {
	if errors.Is(err, audit.ErrNotFound) {
		return fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", name)
	}
	return err
}
