package rls

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// Collection is what names of domains begin with.
const Collection = "rateLimitDomains/"

// Querier is a transaction or a pool.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Stored is a domain as the database has it.
type Stored struct {
	Domain *quotav1.RateLimitDomain
	Salt   []byte
}

// Entry is the domain as the feed has it.
func (s Stored) Entry() *quotav1.RateLimitDomainEntry {
	return &quotav1.RateLimitDomainEntry{Domain: s.Domain, Salt: s.Salt}
}

// Lock returns a domain and keeps others from changing it until the transaction ends. A missing one is a fault
// RESOURCE_NOT_FOUND.
func Lock(ctx context.Context, q Querier, domain string) (Stored, error) {
	return read(ctx, q, domain, " FOR UPDATE")
}

// Read returns a domain. A missing one is a fault RESOURCE_NOT_FOUND.
func Read(ctx context.Context, q Querier, domain string) (Stored, error) {
	return read(ctx, q, domain, "")
}

func read(ctx context.Context, q Querier, domain, lock string) (Stored, error) {
	s := Stored{Domain: &quotav1.RateLimitDomain{}}
	var yaml string
	err := scan(q.QueryRow(ctx, `SELECT domain, uid::text, file, limits, create_time, update_time, revision, yaml, salt
		FROM ratelimit.domain WHERE domain = $1`+lock, domain), s.Domain, &yaml, &s.Salt)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", Collection+domain)
	}
	if err != nil {
		return s, fmt.Errorf("read a rate limit domain: %w", err)
	}
	s.Domain.Yaml = yaml
	return s, nil
}

// scan reads the columns of a domain, and more.
func scan(row pgx.Row, d *quotav1.RateLimitDomain, more ...any) error {
	var created, updated time.Time
	var id string
	if err := row.Scan(append([]any{&id, &d.Uid, &d.File, &d.Limits, &created, &updated, &d.Revision}, more...)...); err != nil {
		return err
	}
	d.Name = Collection + id
	d.CreateTime, d.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	d.Etag = etag.Of(d.GetUid(), d.GetRevision())
	return nil
}

// List returns up to n domains whose names come after the given one, without their files.
func List(ctx context.Context, q Querier, after string, n int) ([]*quotav1.RateLimitDomain, error) {
	rows, err := q.Query(ctx, `SELECT domain, uid::text, file, limits, create_time, update_time, revision
		FROM ratelimit.domain WHERE domain > $1 COLLATE "C" ORDER BY domain COLLATE "C" LIMIT $2`, after, n)
	if err != nil {
		return nil, fmt.Errorf("list rate limit domains: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*quotav1.RateLimitDomain, error) {
		d := new(quotav1.RateLimitDomain)
		return d, scan(row, d)
	})
}

// Insert makes a domain. One that somebody else makes at the same time is a fault CONCURRENT_OPERATION.
func Insert(ctx context.Context, q Querier, domain string, s Stored) error {
	d := s.Domain
	tag, err := q.Exec(ctx, `INSERT INTO ratelimit.domain (domain, uid, file, yaml, limits, salt, create_time, update_time)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (domain) DO NOTHING`,
		domain, d.GetUid(), d.GetFile(), d.GetYaml(), d.GetLimits(), s.Salt, d.GetCreateTime().AsTime(), d.GetUpdateTime().AsTime())
	if err != nil {
		return fmt.Errorf("make a rate limit domain: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return fault.New(fault.Aborted, fault.ReasonConcurrentOp, "the domain was just imported by somebody else")
	}
	return nil
}

// Change writes a domain that [Lock] returned.
func Change(ctx context.Context, q Querier, domain string, d *quotav1.RateLimitDomain) error {
	_, err := q.Exec(ctx, `UPDATE ratelimit.domain SET file = $2, yaml = $3, limits = $4, update_time = $5 WHERE domain = $1`,
		domain, d.GetFile(), d.GetYaml(), d.GetLimits(), d.GetUpdateTime().AsTime())
	if err != nil {
		return fmt.Errorf("change a rate limit domain: %w", err)
	}
	return nil
}

// Stamp writes the revision of a change into its domains.
func Stamp(ctx context.Context, q Querier, domains []string, revision int64) error {
	if _, err := q.Exec(ctx, `UPDATE ratelimit.domain SET revision = $2 WHERE domain = ANY ($1)`, domains, revision); err != nil {
		return fmt.Errorf("stamp rate limit domains: %w", err)
	}
	return nil
}

// Delete removes a domain.
func Delete(ctx context.Context, q Querier, domain string) error {
	if _, err := q.Exec(ctx, `DELETE FROM ratelimit.domain WHERE domain = $1`, domain); err != nil {
		return fmt.Errorf("delete a rate limit domain: %w", err)
	}
	return nil
}
