package sqlattack

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

//go:embed sql
var scripts embed.FS

// Migrations returns the migrations of the app that is attacked.
func Migrations() fs.FS {
	files, _ := fs.Sub(scripts, "sql/app") // fails for malformed names only
	return files
}

// Target is a scratch database to attack, prepared by cell.Init and cell.Migrate of
// [Migrations]. [Run] makes tenants in it, with homes of their own, and removes what it made
// beside tables and rows of the database itself.
type Target struct {
	// Admin is the connection string of a superuser or, where there is none, of the role that
	// ran cell.Init.
	Admin string
	// Login is the connection string of the app's role, to the same database.
	Login string
	// App is the app for which the database was prepared.
	App string
	// Key is a key that the caller installed in the database; its secret makes the seals.
	Key cell.Key
	// Models are those to attack; nil means all.
	Models []tenant.Model
	// Baselines asks for L0 and L1, too. It takes a superuser as Admin.
	Baselines bool
}

func (t *Target) check() error {
	switch {
	case t.Admin == "" || t.Login == "" || t.App == "":
		return errors.New("target: Admin, Login and App are required")
	case t.Key.NotAfter.Before(time.Now().Add(tenant.MaxSessionLife)):
		return errors.New("target: the key ends too soon")
	}
	if t.Models == nil {
		t.Models = []tenant.Model{tenant.ModelShared, tenant.ModelSchema, tenant.ModelDatabase}
	}
	return nil
}

// Run attacks the target. An error means that nothing is known; what the attacks came to, good
// or bad, is in the report. It takes a few seconds for each model; the attacks run one after
// the other.
func Run(ctx context.Context, target Target) (report Report, err error) {
	if err := target.check(); err != nil {
		return Report{}, fmt.Errorf("attack: %w", err)
	}
	admin, err := pgx.Connect(ctx, target.Admin)
	if err != nil {
		return Report{}, errors.New("attack: the admin cannot connect") // err may show parts of the connection string
	}
	defer func() { _ = admin.Close(context.WithoutCancel(ctx)) }()
	rung, err := cell.InstalledRung(ctx, admin)
	if err != nil {
		return Report{}, fmt.Errorf("attack: %w", err)
	}
	report = Report{Rung: string(rung)}
	if err := admin.QueryRow(ctx, "SELECT current_setting('server_version'), current_setting('is_superuser') <> 'on'").
		Scan(&report.Server, &report.Guest); err != nil {
		return Report{}, fmt.Errorf("attack: ask who we are: %w", err)
	}
	if report.Guest && target.Baselines {
		return report, errors.New("target: Baselines take a superuser as Admin, to make them and to drop them again")
	}
	for _, model := range target.Models {
		results, err := target.attackModel(ctx, &report, admin, model)
		report.Results = append(report.Results, results...)
		if err != nil {
			return report, fmt.Errorf("attack model %s: %w", model, err)
		}
	}
	return report, nil
}

// attackModel makes a tenant and its victim in the model, and runs all attacks between them.
func (t *Target) attackModel(ctx context.Context, report *Report, admin *pgx.Conn, model tenant.Model) (results []Result, err error) {
	s, err := t.settle(ctx, admin, cell.Rung(report.Rung), model)
	if s != nil {
		defer func() { err = cmp.Or(err, s.leave(context.WithoutCancel(ctx))) }()
	}
	if err != nil {
		return nil, err
	}
	levels := []Level{Level(report.Rung)}
	if t.Baselines {
		levels = append([]Level{L0, L1}, levels...)
	}
	for _, level := range levels {
		a, err := s.open(ctx, level)
		if err == nil {
			a.guest = report.Guest
			var more []Result
			more, err = a.attackAll(ctx)
			results = append(results, more...)
		}
		if a != nil {
			err = cmp.Or(a.close(context.WithoutCancel(ctx)), err)
		}
		if err != nil {
			return results, fmt.Errorf("level %s: %w", level, err)
		}
	}
	return results, nil
}
