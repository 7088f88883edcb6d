package prove

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/mint"
)

// Server is where attacks run: a server on which prove makes databases for them and drops
// them again. Attacks never run where tenants live.
type Server struct {
	// DSN logs a superuser in or, on rung L2a, a role that may make roles and databases.
	DSN string
	// Rungs are those that the login reaches.
	Rungs []cell.Rung
	// Suffix tells names of databases and roles from those of others at the same time; empty
	// on a server of prove's own, of which Own says that it is one.
	Suffix string
	Own    bool
	// Repeat is the command that makes the lines of a section again.
	Repeat func(section string) string
	// Secrets learns the passwords and keys that are made for attacks.
	Secrets *Secrets
}

// scratch is a cell with one app, made for an attack.
type scratch struct {
	*mint.Mint

	server     Server
	app        string
	rung       cell.Rung
	migrations fs.FS
	password   string

	made      bool
	settled   int // tenants
	dedicated []resident
}

// resident is a tenant of a scratch cell and the model in which it lives.
type resident struct {
	tenant.TenantState

	model tenant.Model
}

// in returns ctx with the resident in it, as behind a server's door.
func (c *scratch) in(ctx context.Context, r resident) (context.Context, error) {
	verified, err := c.Context(r.TenantState, r.model)
	return tenant.NewContext(ctx, verified), err
}

// caller puts a context of the resident, issued so long ago, into the metadata of each call.
func (c *scratch) caller(r resident, age time.Duration) caller {
	return c.Caller(r.TenantState, r.model, age)
}

// newScratch makes a shared database, prepared and migrated. What it made is dropped by drop,
// also after an error.
func (s Server) newScratch(ctx context.Context, purpose string, rung cell.Rung, migrations fs.FS) (c *scratch, err error) {
	c = &scratch{server: s, rung: rung, migrations: migrations, app: "prove-" + purpose + "-" + strings.ToLower(string(rung)) + s.Suffix}
	var random [16]byte
	_, _ = rand.Read(random[:]) // crypto/rand never fails
	c.password = hex.EncodeToString(random[:])
	key := mint.NewKey()
	s.Secrets.Add(c.password, hex.EncodeToString(key.Secret[:]))
	if c.Mint, err = mint.New(key); err != nil {
		return c, err
	}
	err = c.inside(ctx, "", func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{c.database()}.Sanitize())
		return err
	})
	if err != nil {
		return c, fmt.Errorf("make a scratch database: %w", err)
	}
	c.made = true
	err = c.inside(ctx, c.database(), func(conn *pgx.Conn) error {
		if err := cell.Init(ctx, conn, c.config()); err != nil {
			return err
		}
		if err := cell.InstallKey(ctx, conn, c.Key()); err != nil {
			return err
		}
		return cell.Migrate(ctx, conn, migrations)
	})
	if err != nil {
		return c, fmt.Errorf("prepare the scratch database %s: %w", c.database(), err)
	}
	return c, nil
}

func (c *scratch) config() cell.Config {
	return cell.Config{App: c.app, Rung: c.rung, Password: c.password}
}

func (c *scratch) database() string { return strings.ReplaceAll(c.app, "-", "_") }

// admin and login are the connection strings of the server's login and of the app's role to
// the shared database.
func (c *scratch) admin() (string, error) { return redirect(c.server.DSN, "", "", c.database()) }
func (c *scratch) login() (string, error) {
	return redirect(c.server.DSN, cell.AppRole(c.app), c.password, c.database())
}

// settle makes a tenant with a home in a model.
func (c *scratch) settle(ctx context.Context, id string, model tenant.Model) (r resident, err error) {
	r.model = model
	if r.TenantState, err = c.Tenant(id); err != nil {
		return r, err
	}
	c.settled++
	place := cell.Placement{UID: r.UID, State: cell.Active, Generation: r.PlacementGeneration}
	err = c.inside(ctx, c.database(), func(conn *pgx.Conn) error {
		switch model {
		case tenant.ModelDatabase:
			return c.settleDatabase(ctx, conn, r, place)
		case tenant.ModelSchema:
			if err := cell.CreateSchema(ctx, conn, r.UID); err != nil {
				return err
			}
			if err := cell.MigrateSchema(ctx, conn, r.UID, c.migrations); err != nil {
				return err
			}
		}
		return cell.SetPlacement(ctx, conn, place)
	})
	if err != nil {
		return r, fmt.Errorf("make a home in the %s model: %w", model, err)
	}
	return r, nil
}

func (c *scratch) settleDatabase(ctx context.Context, conn *pgx.Conn, r resident, place cell.Placement) error {
	c.dedicated = append(c.dedicated, r)
	if err := cell.CreateDatabase(ctx, conn, c.config(), r.UID); err != nil {
		return err
	}
	own, err := cell.ConnectDatabase(ctx, conn, c.app, r.UID)
	if err != nil {
		return err
	}
	defer func() { _ = own.Close(context.WithoutCancel(ctx)) }()
	if err := cell.InstallKey(ctx, own, c.Key()); err != nil {
		return err
	}
	if err := cell.Migrate(ctx, own, c.migrations); err != nil {
		return err
	}
	return cell.SetPlacement(ctx, own, place)
}

// dropPatience bounds how long dropping takes: it goes on after an interrupt, and a server that
// no longer answers must not keep the user.
const dropPatience = time.Minute

// drop drops all that was made; on a server of prove's own that ends with the server.
func (c *scratch) drop(ctx context.Context) error {
	if c.server.Own {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, dropPatience)
	defer cancel()
	err := c.inside(ctx, "", func(conn *pgx.Conn) (err error) {
		for _, r := range c.dedicated {
			err = errors.Join(err, cell.DropDatabase(ctx, conn, c.app, r.UID, cell.EndSessions))
		}
		if c.made {
			_, failed := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{c.database()}.Sanitize()+" WITH (FORCE)")
			err = errors.Join(err, failed)
		}
		for _, role := range []string{cell.AppRole(c.app), cell.MigratorRole(c.app), cell.OwnerRole(c.app)} {
			_, failed := conn.Exec(ctx, "DROP ROLE IF EXISTS "+pgx.Identifier{role}.Sanitize())
			err = errors.Join(err, failed)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("drop what was made for attacks, named %s…: %w", c.database(), err)
	}
	return nil
}

// inside connects to a database of the server; "" is the one that its DSN names.
func (c *scratch) inside(ctx context.Context, database string, fn func(*pgx.Conn) error) error {
	dsn, err := redirect(c.server.DSN, "", "", database)
	if err != nil {
		return err
	}
	config, err := parse(dsn)
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return fn(conn)
}

func parse(dsn string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, errors.New("the connection string cannot be parsed") // its own error quotes it
	}
	config.RuntimeParams["application_name"] = "rowhouse prove"
	return config, nil
}

// redirect returns a connection string, a URL or a list of words, with another login and
// database; what is empty stays as it is.
func redirect(dsn, user, password, database string) (string, error) {
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		words := []string{dsn} // a later word wins
		for _, word := range [][2]string{{"user", user}, {"password", password}, {"dbname", database}} {
			if word[1] != "" {
				words = append(words, word[0]+"="+word[1])
			}
		}
		return strings.Join(words, " "), nil
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return "", errors.New("the connection string cannot be parsed")
	}
	query := u.Query()
	if user != "" {
		u.User = url.UserPassword(user, password)
		query.Del("user")
		query.Del("password")
	}
	if database != "" {
		u.Path = "/" + database
		query.Del("dbname")
		query.Del("database")
	}
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// models are all models.
func models() []tenant.Model {
	return []tenant.Model{tenant.ModelShared, tenant.ModelSchema, tenant.ModelDatabase}
}

// super reports whether the login can do everything.
func (s Server) super() bool { return slices.Contains(s.Rungs, cell.L2b) }

// inRungs runs fn on each rung with a scratch cell of its own, and drops the cells. It stops
// at the first error.
func (s Server) inRungs(ctx context.Context, purpose string, migrations fs.FS, fn func(*scratch) error) error {
	for _, rung := range s.Rungs {
		c, err := s.newScratch(ctx, purpose, rung, migrations)
		if err == nil {
			err = fn(c)
		}
		if err := errors.Join(err, c.drop(context.WithoutCancel(ctx))); err != nil {
			return err
		}
	}
	return nil
}

// SampleDatabases are an app's databases on each rung, with a tenant in each model: what a
// proof without a database of its own reads.
func (s Server) SampleDatabases(ctx context.Context, migrations fs.FS) (all []*Database, err error) {
	for _, rung := range s.Rungs {
		c, err := s.newScratch(ctx, "sample", rung, migrations)
		if err != nil {
			return nil, err
		}
		for _, model := range models() {
			if _, err := c.settle(ctx, "sample-"+strings.ToLower(model.String()), model); err != nil {
				return nil, err
			}
		}
		names := []string{c.database(), cell.DatabaseName(c.app, c.dedicated[0].UID)}
		for i, of := range []string{"shared database and schemas", "a tenant's own database"} {
			dsn, err := redirect(s.DSN, "", "", names[i])
			if err != nil {
				return nil, err
			}
			config, err := parse(dsn)
			if err != nil {
				return nil, err
			}
			all = append(all, &Database{Name: string(rung) + ": " + of, Config: config, Repeat: s.Repeat})
		}
	}
	return all, nil
}
