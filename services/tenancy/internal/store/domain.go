package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
)

const selectDomain = `SELECT t.id, d.uid::text, d.host, d.app, d.state, d.create_time, d.update_time, d.verify_time, d.revision
FROM registry.domain d JOIN registry.tenant t ON t.uid = d.tenant_uid `

func scanDomain(row pgx.CollectableRow) (*tenancyv1.Domain, error) {
	var (
		d                tenancyv1.Domain
		id, app          string
		state            int32
		created, updated time.Time
		verified         *time.Time
	)
	if err := row.Scan(&id, &d.Uid, &d.Host, &app, &state, &created, &updated, &verified, &d.Revision); err != nil {
		return nil, err
	}
	d.Name = "tenants/" + id + "/domains/" + d.GetHost()
	d.App, d.State = "apps/"+app, tenancyv1.DomainState(state)
	d.CreateTime, d.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	if verified != nil {
		d.VerifyTime = timestamppb.New(*verified)
	}
	d.Etag = etag.Of(d.GetUid(), d.GetRevision())
	return &d, nil
}

// DomainKey names a domain.
type DomainKey struct{ Tenant, Host string }

// String returns the resource name.
func (k DomainKey) String() string { return "tenants/" + k.Tenant + "/domains/" + k.Host }

// ReadDomain returns the domain, or RESOURCE_NOT_FOUND.
func ReadDomain(ctx context.Context, q Querier, key DomainKey) (*tenancyv1.Domain, error) {
	domains, err := collect(ctx, q, scanDomain, selectDomain+`WHERE t.id = $1 AND d.host = $2`, key.Tenant, key.Host)
	if err == nil && len(domains) == 0 {
		err = pgx.ErrNoRows
	}
	if err := found(err, key.String()); err != nil {
		return nil, err
	}
	return domains[0], nil
}

// LockDomain is ReadDomain with the row's lock. Lock the tenant first.
func LockDomain(ctx context.Context, q Querier, key DomainKey) (*tenancyv1.Domain, error) {
	err := lock(ctx, q, key.String(), `SELECT 1 FROM registry.domain d JOIN registry.tenant t ON t.uid = d.tenant_uid
		WHERE t.id = $1 AND d.host = $2 FOR UPDATE OF d`, key.Tenant, key.Host)
	if err != nil {
		return nil, err
	}
	return ReadDomain(ctx, q, key)
}

// ListDomains returns up to limit domains of a tenant, or with "-" of all, whose (tenant, host) follows after.
func ListDomains(ctx context.Context, q Querier, tenantID string, after DomainKey, limit int) ([]*tenancyv1.Domain, error) {
	return collect(ctx, q, scanDomain, selectDomain+`WHERE ($1 = '-' OR t.id = $1) AND (t.id, d.host) > ($2, $3)
		ORDER BY t.id, d.host LIMIT $4`, tenantID, after.Tenant, after.Host, limit)
}

// DomainsOf returns the domains of a tenant that serve.
func DomainsOf(ctx context.Context, q Querier, uid tenant.UID) ([]*tenancyv1.Domain, error) {
	return collect(ctx, q, scanDomain, selectDomain+`WHERE d.tenant_uid = $1 AND d.state = 2 ORDER BY d.host`, [16]byte(uid))
}

// InsertDomain stores a new domain. Errors: RESOURCE_EXISTS; DOMAIN_TAKEN; RESOURCE_NOT_FOUND for the app.
func InsertDomain(ctx context.Context, q Querier, owner tenant.UID, d *tenancyv1.Domain, app string) error {
	var verified *time.Time
	if d.GetVerifyTime() != nil {
		t := d.GetVerifyTime().AsTime()
		verified = &t
	}
	_, err := q.Exec(ctx, `INSERT INTO registry.domain (uid, tenant_uid, host, app, state, create_time, update_time, verify_time)
		VALUES ($1, $2, $3, $4, $5, $6, $6, $7)`,
		d.GetUid(), [16]byte(owner), d.GetHost(), app, int32(d.GetState()), d.GetCreateTime().AsTime(), verified)
	return domainError(err, d.GetName(), app)
}

func domainError(err error, name, app string) error {
	switch {
	case pg.Constraint(err) == "domain_taken":
		return fault.New(fault.AlreadyExists, registry.ReasonDomainTaken, "the host serves a tenant already").
			WithDomain(registry.Domain)
	case pg.Constraint(err) == "domain_exists":
		return exists(err, name)
	case pg.Code(err) == pg.CodeForeignKeyViolation:
		return NotFound("apps/" + app)
	case err != nil:
		return fmt.Errorf("store domain: %w", err)
	}
	return nil
}

// UpdateDomain stores app, state and times. Errors: DOMAIN_TAKEN; RESOURCE_NOT_FOUND for the app.
func UpdateDomain(ctx context.Context, q Querier, d *tenancyv1.Domain, app string) error {
	var verified *time.Time
	if d.GetVerifyTime() != nil {
		t := d.GetVerifyTime().AsTime()
		verified = &t
	}
	_, err := q.Exec(ctx, `UPDATE registry.domain SET app = $2, state = $3, update_time = $4, verify_time = $5 WHERE uid = $1`,
		d.GetUid(), app, int32(d.GetState()), d.GetUpdateTime().AsTime(), verified)
	return domainError(err, d.GetName(), app)
}

// DeleteDomain removes a domain.
func DeleteDomain(ctx context.Context, q Querier, uid string) error {
	_, err := q.Exec(ctx, `DELETE FROM registry.domain WHERE uid = $1`, uid)
	return err
}

// StampDomain writes the revision of a change into its row.
func StampDomain(ctx context.Context, q Querier, uid string, revision int64) error {
	_, err := q.Exec(ctx, `UPDATE registry.domain SET revision = $2 WHERE uid = $1`, uid, revision)
	return err
}

// IsServed reports whether a domain of some tenant serves on host, which stays so until the transaction ends; see
// lockHost.
func IsServed(ctx context.Context, q Querier, host string) (bool, error) {
	if err := lockHost(ctx, q, host); err != nil {
		return false, err
	}
	var is bool
	err := q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM registry.domain WHERE host = $1 AND state = 2)`, host).Scan(&is)
	return is, err
}

// lockHost keeps a host from becoming a tenant's and an app's at once. They are in two tables, so no constraint does.
func lockHost(ctx context.Context, q Querier, host string) error {
	if _, err := q.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('host/' || $1, 0))`, host); err != nil {
		return fmt.Errorf("lock host %s: %w", host, err)
	}
	return nil
}
