package dev

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/services/config"
	"github.com/rowhouse-platform/rowhouse/services/gateway"
	"github.com/rowhouse-platform/rowhouse/services/quota"
	"github.com/rowhouse-platform/rowhouse/services/tenancy"
)

// reissueEvery is how often certificates are renewed while the house runs: they live for a day.
const reissueEvery = 6 * time.Hour

// rootLife is how long the development authority is valid.
const rootLife = 30 * 24 * time.Hour

// databases are the services' own, by service.
func databases() map[string]pg.Database {
	return map[string]pg.Database{
		"tenancy": tenancy.Database(tenancy.DatabaseName),
		"config":  {Name: config.Database, Migrations: config.Migrations()},
		"quota":   {Name: quota.Database, Migrations: quota.Migrations()},
		"gateway": {Name: gateway.Database, Migrations: gateway.Migrations()},
	}
}

// passwords are the database roles' own, made at the first start.
type passwords map[string]string

// loadPasswords reads or makes the passwords of the named roles.
func (l Layout) loadPasswords(roles ...string) (passwords, error) {
	path := l.path("secrets", "passwords.json")
	p := passwords{}
	if b, err := os.ReadFile(path); err == nil {
		if err := json.Unmarshal(b, &p); err != nil {
			return nil, fmt.Errorf("%s is damaged; start over with: rowhouse dev --reset", path)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("passwords: %w", err)
	}
	for _, r := range roles {
		if p[r] == "" {
			var b [24]byte
			_, _ = rand.Read(b[:]) // never fails
			p[r] = hex.EncodeToString(b[:])
		}
	}
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return p, writeSecret(path, string(b))
}

// writeSecret writes a file for its owner alone; the old one stays until the new one is whole.
func writeSecret(path, content string) error {
	draft := path + ".new"
	if err := os.WriteFile(draft, []byte(content), secretMode); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return os.Rename(draft, path)
}

// prepareDatabases makes the services' databases, the app's, and the files with
// their connection strings.
func (l Layout) prepareDatabases(ctx context.Context, server *pgserver.Server) error {
	p, err := l.loadPasswords("tenancy", "config", "quota", "gateway", appName, "migrator", "jobs")
	if err != nil {
		return err
	}
	for service, db := range databases() {
		db.ServicePassword = p[service]
		if err := pg.Provision(ctx, server.DSN(pgserver.Login{}), db); err != nil {
			return fmt.Errorf("database of %s: %w", service, err)
		}
		dsn := server.DSN(pgserver.Login{User: db.Service(), Password: p[service], Database: db.Name})
		if err := writeSecret(l.path("secrets", service+".dsn"), dsn); err != nil {
			return err
		}
	}
	if err := l.prepareCell(ctx, server, p); err != nil {
		return fmt.Errorf("database of the app: %w", err)
	}
	return nil
}

// migrateDSN is the file with the connection string of the app's migrator. The app that serves is not told it.
const migrateDSN = appName + "-migrate.dsn"

// prepareCell makes the app's database in the cell, as an operator would with a
// cluster of their own.
func (l Layout) prepareCell(ctx context.Context, server *pgserver.Server, p passwords) error {
	if err := createDatabase(ctx, server, appName); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, server.DSN(pgserver.Login{Database: appName}))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = cell.Init(ctx, conn, cell.Config{App: appName, Password: p[appName], MigratorPassword: p["migrator"]})
	if err != nil {
		return fmt.Errorf("cell init: %w", err)
	}
	for name, login := range map[string]pgserver.Login{
		appName + ".dsn": {User: cell.AppRole(appName), Password: p[appName], Database: appName},
		migrateDSN:       {User: cell.MigratorRole(appName), Password: p["migrator"], Database: appName},
	} {
		if err := writeSecret(l.path("secrets", name), server.DSN(login)); err != nil {
			return err
		}
	}
	if err := l.prepareJobs(ctx, server, p["jobs"]); err != nil {
		return err
	}
	return writeSecret(l.path("cells", cellName), server.DSN(pgserver.Login{}))
}

// jobsName is the database of the app's queue of jobs, and the role that owns it.
const jobsName = appName + "_jobs"

// prepareJobs makes that database. It holds no tenant's rows, so it is none of a cell's.
func (l Layout) prepareJobs(ctx context.Context, server *pgserver.Server, password string) error {
	if err := createDatabase(ctx, server, jobsName); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, server.DSN(pgserver.Login{Database: jobsName}))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	const role = jobsName // passwords are hexadecimal
	_, err = conn.Exec(ctx, `DO $$ BEGIN
			IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '`+role+`') THEN CREATE ROLE `+role+`; END IF;
		END $$; ALTER ROLE `+role+` LOGIN PASSWORD '`+password+`';
		REVOKE ALL ON DATABASE `+jobsName+` FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC;
		GRANT CONNECT, CREATE, TEMPORARY ON DATABASE `+jobsName+` TO `+role)
	if err != nil {
		return fmt.Errorf("database of the app's jobs: %w", err)
	}
	return writeSecret(l.path("secrets", jobsName+".dsn"), server.DSN(pgserver.Login{User: role, Password: password, Database: jobsName}))
}

func createDatabase(ctx context.Context, server *pgserver.Server, name string) error {
	conn, err := pgx.Connect(ctx, server.DSN(pgserver.Login{}))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var there bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name).Scan(&there); err != nil || there {
		return err
	}
	_, err = conn.Exec(ctx, `CREATE DATABASE `+pgx.Identifier{name}.Sanitize()+` TEMPLATE template0`)
	return err
}

// prepareIdentities makes the authority and a fresh certificate for every process,
// and the certificate that browsers see.
func (l Layout) prepareIdentities() error {
	config := authorityConfig()
	authority, err := identity.OpenAuthority(l.path("ca"), config)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && time.Until(authority.NotAfter()) < 2*24*time.Hour) {
		if authority, err = identity.NewAuthority(config); err == nil {
			err = authority.Write(l.path("ca"))
		}
	}
	if err == nil { // what peers trust follows from the authority
		err = writeSecret(l.Roots(), string(authority.RootsPEM()))
	}
	if err != nil {
		return damaged(l.path("ca"), err)
	}
	if err := l.issueAll(authority); err != nil {
		return err
	}
	names, _ := namesFor(nil) // the operator's own follow once tenancy has told them
	return l.issueFront(authority, names)
}

// issueAll writes a fresh certificate for every process. Those that run take theirs at the
// next handshake.
func (l Layout) issueAll(authority *identity.Authority) error {
	for _, s := range identities() {
		id, err := serviceID(s)
		if err != nil {
			return err
		}
		if err := issue(authority, identity.Leaf{ID: id}, l.path(s)); err != nil {
			return fmt.Errorf("certificate of %s: %w", s, err)
		}
	}
	return nil
}

func issue(a *identity.Authority, leaf identity.Leaf, dir string) error {
	pair, err := a.Issue(leaf)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, private); err != nil {
		return err
	}
	return pair.Write(dir)
}

// renew keeps the certificates of a house valid until ctx ends. The authority stays the
// one of this start, because nobody would trust another.
func (h *house) renew(ctx context.Context) {
	tick := time.NewTicker(reissueEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		authority, err := identity.OpenAuthority(h.l.path("ca"), authorityConfig())
		if err == nil {
			err = errors.Join(h.l.issueAll(authority), h.renewFront(authority))
		}
		if err != nil {
			fmt.Fprintf(h.o.Out, "the certificates could not be renewed (%v); they are good for less than a day\n", err)
		}
	}
}

func authorityConfig() identity.AuthorityConfig {
	return identity.AuthorityConfig{TrustDomain: trustDomain, RootLife: rootLife}
}

// serviceID is the identity of a process of the house.
func serviceID(name string) (identity.ID, error) {
	if name == appName || name == envoyName {
		return identity.App(trustDomain, cellName, name)
	}
	return identity.Service(trustDomain, cellName, name)
}

// damaged says which part of the state cannot be used, and the way out.
func damaged(path string, err error) error {
	return fmt.Errorf("%s is damaged (%w); start over with: rowhouse dev --reset", path, err)
}

// prepareKeys makes the keys that are missing, and the operators.
func (l Layout) prepareKeys() error {
	for _, name := range []string{"trust-root", "feed-tenancy", "feed-config", "feed-quota"} {
		path := l.path("keys", name)
		if missing(path+".key") || missing(path+".pub") { // both, or what a start that was stopped did not come to
			if err := keyfile.NewPair(path, rand.Reader); err != nil {
				return damaged(path+".key", err)
			}
		}
		if _, err := keyfile.Private(path + ".key"); err != nil {
			return damaged(path+".key", err)
		}
		if _, err := keyfile.Public(path + ".pub"); err != nil {
			return damaged(path+".pub", err)
		}
	}
	for _, name := range []string{"tenancy.kek", "gateway.kek", "config.kek"} {
		path := l.path("keys", name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if err := keyfile.NewSecret(path, rand.Reader); err != nil {
				return err
			}
		}
		if _, err := keyfile.Secret(path); err != nil {
			return damaged(path, err)
		}
	}
	return l.prepareOperators()
}

// prepareOperators makes those who are missing, and leaves others as they are: the file is its reader's to change. A second
// one is there so that what needs the approval of somebody else can be tried.
func (l Layout) prepareOperators() error {
	path := l.path("operator", "operators.yaml")
	var file operator.OperatorsFile
	if !missing(path) {
		if err := yamlfile.Load(path, &file); err != nil {
			return damaged(path, err)
		}
	}
	for _, who := range []struct{ name, token, role string }{
		{contextName, l.Token(), operator.RoleOwner}, {secondName, l.secondToken(), operator.RoleOperator},
	} {
		if !missing(who.token) {
			continue
		}
		token, sum, err := operator.NewToken(rand.Reader)
		if err != nil {
			return err
		}
		file.Operators = slices.DeleteFunc(file.Operators, func(o operator.OperatorEntry) bool { return o.Name == who.name })
		file.Operators = append(file.Operators, operator.OperatorEntry{Name: who.name, TokenSHA256: sum, Roles: []string{who.role}})
		if err := errors.Join(writeYAML(path, file), writeSecret(who.token, token+"\n")); err != nil {
			return err
		}
	}
	return nil
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func writeYAML(path string, v any) error {
	b, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return writeSecret(path, string(b))
}
