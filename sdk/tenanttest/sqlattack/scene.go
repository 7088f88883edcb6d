package sqlattack

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/canary"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/mint"
)

// scene is an attacker and a victim with homes in one model.
type scene struct {
	target *Target
	mint   *mint.Mint
	model  tenant.Model
	rung   cell.Rung

	attacker, victim tenant.TenantState
	canary           string // is in the victim's rows and statements, and nowhere else
	watch            *canary.Watch
	ended            cell.Key

	// admin is in the target's database; adminOwn and adminTheir are where the homes of
	// attacker and victim are. They are the same unless tenants have databases.
	admin, adminOwn, adminTheir *pgx.Conn
	undo                        []func(context.Context) error
}

// Whose the texts are that no attacker may read.
const (
	victims  = "victim"
	theCells = "cell"
)

// pad is how a cell's key lies in the database.
func pad(secret tenant.SealKey) string {
	for i := range secret {
		secret[i] ^= 0x36
	}
	return hex.EncodeToString(secret[:])
}

// settle makes the tenants, their homes and placements. What it made before an error is in
// the scene that it returns.
func (t *Target) settle(ctx context.Context, admin *pgx.Conn, rung cell.Rung, model tenant.Model) (*scene, error) {
	m, err := mint.New(t.Key)
	if err != nil {
		return nil, err
	}
	watch := canary.New()
	s := &scene{
		target: t, mint: m, model: model, rung: rung, admin: admin, adminOwn: admin, adminTheir: admin,
		canary: watch.Secret(victims), watch: watch,
	}
	watch.ID(theCells, hex.EncodeToString(t.Key.Secret[:]))
	watch.ID(theCells, pad(t.Key.Secret))
	if s.attacker, err = m.Tenant("mallory"); err != nil {
		return nil, err
	}
	if s.victim, err = m.Tenant("alice"); err != nil {
		return nil, err
	}
	if err := s.build(ctx); err != nil {
		return s, err
	}
	s.ended = cell.Key{ID: t.Key.ID + 1, Cell: t.Key.Cell, Secret: t.Key.Secret, NotAfter: time.Now().Add(-time.Second)}
	for _, conn := range s.admins() {
		if err := cell.InstallKey(ctx, conn, s.ended); err != nil {
			return s, err
		}
		s.later(func(ctx context.Context) error { return cell.RetireKey(ctx, conn, s.ended.ID) })
	}
	return s, errors.Join(s.place(ctx, s.adminOwn, s.attacker), s.place(ctx, s.adminTheir, s.victim))
}

// build makes the homes.
func (s *scene) build(ctx context.Context) error {
	switch s.model {
	case tenant.ModelSchema:
		return errors.Join(s.buildSchema(ctx, s.attacker), s.buildSchema(ctx, s.victim))
	case tenant.ModelDatabase:
		var err error
		if s.adminOwn, err = s.buildDatabase(ctx, s.attacker); err == nil {
			s.adminTheir, err = s.buildDatabase(ctx, s.victim)
		}
		return err
	}
	return nil
}

func (s *scene) buildSchema(ctx context.Context, t tenant.TenantState) error {
	s.later(func(ctx context.Context) error { return cell.DropSchema(ctx, s.admin, t.UID) })
	if err := cell.CreateSchema(ctx, s.admin, t.UID); err != nil {
		return err
	}
	return cell.MigrateSchema(ctx, s.admin, t.UID, Migrations())
}

func (s *scene) buildDatabase(ctx context.Context, t tenant.TenantState) (*pgx.Conn, error) {
	s.later(func(ctx context.Context) error {
		return cell.DropDatabase(ctx, s.admin, s.target.App, t.UID, cell.EndSessions)
	})
	if err := cell.CreateDatabase(ctx, s.admin, cell.Config{App: s.target.App, Rung: s.rung}, t.UID); err != nil {
		return nil, err
	}
	conn, err := cell.ConnectDatabase(ctx, s.admin, s.target.App, t.UID)
	if err != nil {
		return nil, err
	}
	s.later(conn.Close)
	if err := cell.Migrate(ctx, conn, Migrations()); err != nil {
		return nil, err
	}
	return conn, cell.InstallKey(ctx, conn, s.target.Key)
}

// place makes a tenant active where its home is.
func (s *scene) place(ctx context.Context, conn *pgx.Conn, t tenant.TenantState) error {
	s.later(func(ctx context.Context) error { return cell.RemovePlacement(ctx, conn, t.UID) })
	return cell.SetPlacement(ctx, conn, s.placement(t, cell.Active))
}

func (s *scene) placement(t tenant.TenantState, state cell.State) cell.Placement {
	return cell.Placement{UID: t.UID, State: state, Generation: t.PlacementGeneration}
}

// admins are the connections to the databases of the scene, each once.
func (s *scene) admins() []*pgx.Conn {
	if s.adminOwn == s.adminTheir {
		return []*pgx.Conn{s.adminOwn}
	}
	return []*pgx.Conn{s.adminOwn, s.adminTheir}
}

func (s *scene) later(undo func(context.Context) error) { s.undo = append(s.undo, undo) }

// leave takes back what settle made, in the reverse order.
func (s *scene) leave(ctx context.Context) error {
	var all []error
	for _, fn := range slices.Backward(s.undo) {
		all = append(all, fn(ctx))
	}
	return errors.Join(all...)
}

// schemas are those of attacker and victim on our rungs.
func (s *scene) schemas() (own, their string) {
	if s.model != tenant.ModelSchema {
		return "app", "app"
	}
	return cell.SchemaName(s.attacker.UID), cell.SchemaName(s.victim.UID)
}

// login returns how the app connects to the database to which conn leads.
func (s *scene) login(conn *pgx.Conn) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(s.target.Login)
	if err != nil {
		return nil, errors.New("the app's connection string does not parse") // err may show parts of it
	}
	config.Database = conn.Config().Database
	return config, nil
}

// enterer returns the statement by which a tenant is entered on our rungs.
func (s *scene) enterer(t tenant.TenantState) (string, error) {
	c, err := s.mint.Context(t, s.model)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`SELECT rowhouse.enter('\x%x')`, c.Seal()), nil
}
