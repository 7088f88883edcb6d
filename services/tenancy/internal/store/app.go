package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
)

const selectApp = `SELECT a.id, a.uid::text, a.display_name, coalesce(b.bit, 0), a.grpc_services,
	ARRAY(SELECT h.host FROM registry.app_shared_host h WHERE h.app = a.id ORDER BY h.position),
	ARRAY(SELECT ARRAY[u.cell, u.grpc_address, u.http_address, u.spiffe_id]
		FROM registry.app_upstream u WHERE u.app = a.id ORDER BY u.position),
	a.create_time, a.update_time, a.revision
FROM registry.app a LEFT JOIN registry.audience_bit b ON b.app = a.id `

func scanApp(row pgx.CollectableRow) (*tenancyv1.App, error) {
	var (
		a                tenancyv1.App
		id               string
		upstreams        [][]string
		created, updated time.Time
	)
	err := row.Scan(&id, &a.Uid, &a.DisplayName, &a.AudienceBit, &a.GrpcServices, &a.SharedHosts, &upstreams, &created,
		&updated, &a.Revision)
	if err != nil {
		return nil, err
	}
	a.Name = "apps/" + id
	for _, u := range upstreams {
		a.Upstreams = append(a.Upstreams, &tenancyv1.AppUpstream{
			Cell: "cells/" + u[0], GrpcAddress: u[1], HttpAddress: u[2], SpiffeId: u[3],
		})
	}
	a.CreateTime, a.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	a.Etag = etag.Of(a.GetUid(), a.GetRevision())
	return &a, nil
}

// ReadApp returns the app, or RESOURCE_NOT_FOUND.
func ReadApp(ctx context.Context, q Querier, id string) (*tenancyv1.App, error) {
	apps, err := collect(ctx, q, scanApp, selectApp+`WHERE a.id = $1`, id)
	if err == nil && len(apps) == 0 {
		err = pgx.ErrNoRows
	}
	if err := found(err, "apps/"+id); err != nil {
		return nil, err
	}
	return apps[0], nil
}

// LockApp is ReadApp with the row's lock.
func LockApp(ctx context.Context, q Querier, id string) (*tenancyv1.App, error) {
	if err := lock(ctx, q, "apps/"+id, `SELECT 1 FROM registry.app WHERE id = $1 FOR UPDATE`, id); err != nil {
		return nil, err
	}
	return ReadApp(ctx, q, id)
}

// ListApps returns up to limit apps whose id follows after.
func ListApps(ctx context.Context, q Querier, after string, limit int) ([]*tenancyv1.App, error) {
	return collect(ctx, q, scanApp, selectApp+`WHERE a.id > $1 ORDER BY a.id LIMIT $2`, after, limit)
}

// InsertApp stores a new app with a free audience bit, which it writes into a. Errors: RESOURCE_EXISTS;
// RESOURCE_NOT_FOUND for a cell; ResourceExhausted when no bit is free.
func InsertApp(ctx context.Context, q Querier, id string, a *tenancyv1.App) error {
	_, err := q.Exec(ctx, `INSERT INTO registry.app (id, uid, display_name, grpc_services, create_time, update_time)
		VALUES ($1, $2, $3, $4, $5, $5)`, id, a.GetUid(), a.GetDisplayName(), services(a), a.GetCreateTime().AsTime())
	if err := exists(err, "apps/"+id); err != nil {
		return err
	}
	err = q.QueryRow(ctx, `UPDATE registry.audience_bit SET app = $1, free_time = NULL WHERE bit = (
		SELECT bit FROM registry.audience_bit WHERE app IS NULL AND (free_time IS NULL OR free_time < now() - interval '1 hour')
		ORDER BY bit LIMIT 1 FOR UPDATE) RETURNING bit`, id).Scan(&a.AudienceBit)
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New(fault.ResourceExhausted, fault.ReasonOverloaded, "there are 48 apps; an audience has no bit for more")
	}
	if err != nil {
		return fmt.Errorf("give app %s a bit: %w", id, err)
	}
	if err := lockCells(ctx, q, id, a); err != nil {
		return err
	}
	return insertRoutes(ctx, q, id, a)
}

func services(a *tenancyv1.App) []string { return append([]string{}, a.GetGrpcServices()...) }

// UpdateApp stores a changed app. Errors: RESOURCE_NOT_FOUND for a cell; RESOURCE_EXISTS for a shared host.
func UpdateApp(ctx context.Context, q Querier, id string, a *tenancyv1.App) error {
	_, err := q.Exec(ctx, `UPDATE registry.app SET display_name = $2, grpc_services = $3, update_time = $4 WHERE id = $1`,
		id, a.GetDisplayName(), services(a), a.GetUpdateTime().AsTime())
	if err != nil {
		return fmt.Errorf("update app %s: %w", id, err)
	}
	if err := lockCells(ctx, q, id, a); err != nil {
		return err
	}
	if err := deleteRoutes(ctx, q, id); err != nil {
		return err
	}
	return insertRoutes(ctx, q, id, a)
}

// lockCells waits for tenants that are being placed in the cells where the app is or was, and keeps new ones waiting:
// whoever comes second sees what the other did, so that no tenant lacks its place in an app.
func lockCells(ctx context.Context, q Querier, id string, a *tenancyv1.App) error {
	cells := make([]string, 0, len(a.GetUpstreams()))
	for _, u := range a.GetUpstreams() {
		cells = append(cells, strings.TrimPrefix(u.GetCell(), "cells/"))
	}
	_, err := q.Exec(ctx, `SELECT FROM registry.cell WHERE id = ANY ($1)
		OR id IN (SELECT cell FROM registry.app_upstream WHERE app = $2) ORDER BY id FOR SHARE`, cells, id)
	if err != nil {
		return fmt.Errorf("lock the cells of app %s: %w", id, err)
	}
	return nil
}

func insertRoutes(ctx context.Context, q Querier, id string, a *tenancyv1.App) error {
	for i, u := range a.GetUpstreams() {
		_, err := q.Exec(ctx, `INSERT INTO registry.app_upstream (app, cell, position, grpc_address, http_address, spiffe_id)
			VALUES ($1, $2, $3, $4, $5, $6)`,
			id, strings.TrimPrefix(u.GetCell(), "cells/"), i, u.GetGrpcAddress(), u.GetHttpAddress(), u.GetSpiffeId())
		if pg.Code(err) == pg.CodeForeignKeyViolation {
			return NotFound(u.GetCell())
		}
		if err := exists(err, u.GetCell()+" in upstreams"); err != nil {
			return err
		}
	}
	for i, host := range a.GetSharedHosts() {
		_, err := q.Exec(ctx, `INSERT INTO registry.app_shared_host (host, app, position) VALUES ($1, $2, $3)`, host, id, i)
		if err := exists(err, "shared host "+host); err != nil {
			return err
		}
	}
	return nil
}

func deleteRoutes(ctx context.Context, q Querier, id string) error {
	for _, sql := range []string{
		`DELETE FROM registry.app_upstream WHERE app = $1`, `DELETE FROM registry.app_shared_host WHERE app = $1`,
	} {
		if _, err := q.Exec(ctx, sql, id); err != nil {
			return fmt.Errorf("replace routes of app %s: %w", id, err)
		}
	}
	return nil
}

// DeleteApp removes an app that no domain leads to and in which no tenant has a home of its own. Its databases and the rows in
// them stay. Error: APP_IN_USE.
func DeleteApp(ctx context.Context, q Querier, id string) error {
	if err := noHomes(ctx, q, id, "true"); err != nil {
		return err
	}
	if err := deleteRoutes(ctx, q, id); err != nil {
		return err
	}
	for _, sql := range []string{
		`UPDATE registry.audience_bit SET app = NULL, free_time = now() WHERE app = $1`,
		`DELETE FROM registry.placement_app WHERE app = $1`,
		`DELETE FROM registry.seal_install WHERE app = $1`,
		`DELETE FROM registry.app_migration WHERE app = $1`,
		`DELETE FROM registry.job_policy WHERE app = $1`,
		`DELETE FROM registry.app WHERE id = $1`,
	} {
		_, err := q.Exec(ctx, sql, id)
		if pg.Code(err) == pg.CodeForeignKeyViolation {
			return fault.New(fault.FailedPrecondition, registry.ReasonAppInUse, "domains lead to the app").
				WithDomain(registry.Domain)
		}
		if err != nil {
			return fmt.Errorf("delete app %s: %w", id, err)
		}
	}
	return nil
}

// StampApp writes the revision of a change into its row.
func StampApp(ctx context.Context, q Querier, id string, revision int64) error {
	_, err := q.Exec(ctx, `UPDATE registry.app SET revision = $2 WHERE id = $1`, id, revision)
	return err
}

// IsSharedHost reports whether an app's paths or tokens name the tenant on host, which stays so until the transaction
// ends; see lockHost.
func IsSharedHost(ctx context.Context, q Querier, host string) (bool, error) {
	if err := lockHost(ctx, q, host); err != nil {
		return false, err
	}
	var is bool
	err := q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM registry.app_shared_host WHERE host = $1)`, host).Scan(&is)
	return is, err
}

// AudienceBits returns the audience bits of the apps whose processes show the identity.
func AudienceBits(ctx context.Context, q Querier, spiffe string) ([]int, error) {
	return collect(ctx, q, pgx.RowTo[int], `SELECT DISTINCT b.bit FROM registry.app_upstream u
		JOIN registry.audience_bit b ON b.app = u.app WHERE u.spiffe_id = $1 ORDER BY b.bit`, spiffe)
}
