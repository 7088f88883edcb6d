// Package pg is how our services reach their own databases: pools, transactions, the meaning of errors, migrations.
//
// It is for the service databases (rowhouse_tenancy and its sisters), where a service connects as a role that owns
// nothing. It is not for tenants' data: that has one way in, sdk/tenantdb.
//
// Start at [Open] and [Tx]; [Provision] and [Migrate] make the database that they need.
package pg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/trace"
)

const (
	defaultMaxConns = 10
	connectTimeout  = 5 * time.Second
	maxConnLife     = 30 * time.Minute
	maxConnIdle     = 5 * time.Minute
	// serverTimeout ends what a lost client left behind. Each transaction has a tighter limit from its context.
	serverTimeout = 60 * time.Second
)

// Config says which database a pool leads to.
type Config struct {
	// DSN is the connection string, in URL or key/value form. Give DSN or DSNFile.
	DSN string
	// DSNFile is a file that holds the connection string, so that passwords stay out of configurations.
	DSNFile string
	// MaxConns bounds the pool. Default 10.
	MaxConns int32
	// Name is the application_name that the database shows. Default: what the DSN says.
	Name string
	// TracerProvider makes a span for each query. The arguments of queries are never recorded. Default: no spans.
	TracerProvider trace.TracerProvider
}

// Open makes a pool. It does not connect, so that a service starts while its database is away; only a configuration
// that can never work is an error, and that error never shows the DSN. The caller closes the pool.
func Open(ctx context.Context, cfg Config) (*pgxpool.Pool, error) {
	poolCfg, err := cfg.pool()
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, poolCfg)
	if err != nil {
		return nil, fmt.Errorf("open the pool: %w", err)
	}
	return pool, nil
}

// Validate reads the DSN and says why it can never work, without connecting and without showing the DSN.
func (cfg Config) Validate() error {
	_, err := cfg.pool()
	return err
}

// Check asks the database for a sign of life. The error is a fault of kind Unavailable when there is none.
func Check(ctx context.Context, pool *pgxpool.Pool) error {
	return Fault(pool.Ping(ctx))
}

func (cfg Config) pool() (*pgxpool.Config, error) {
	dsn, err := cfg.dsn()
	if err != nil {
		return nil, err
	}
	poolCfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		// The parser's own error quotes the DSN.
		return nil, fmt.Errorf("the DSN%s cannot be parsed", cfg.origin())
	}
	poolCfg.MaxConns = defaultMaxConns
	if cfg.MaxConns > 0 {
		poolCfg.MaxConns = cfg.MaxConns
	}
	poolCfg.MaxConnLifetime = maxConnLife
	poolCfg.MaxConnLifetimeJitter = maxConnLife / 10
	poolCfg.MaxConnIdleTime = maxConnIdle
	poolCfg.ConnConfig.ConnectTimeout = connectTimeout
	params := poolCfg.ConnConfig.RuntimeParams
	setDefault(params, "statement_timeout", milliseconds(serverTimeout))
	setDefault(params, "idle_in_transaction_session_timeout", milliseconds(serverTimeout))
	if cfg.Name != "" {
		params["application_name"] = cfg.Name
	}
	if cfg.TracerProvider != nil {
		poolCfg.ConnConfig.Tracer = otelpgx.NewTracer(
			otelpgx.WithTracerProvider(cfg.TracerProvider))
	}
	return poolCfg, nil
}

func (cfg Config) dsn() (string, error) {
	switch {
	case cfg.DSN != "" && cfg.DSNFile != "":
		return "", errors.New("both a DSN and a DSN file are given")
	case cfg.DSN != "":
		return cfg.DSN, nil
	case cfg.DSNFile == "":
		return "", errors.New("neither a DSN nor a DSN file is given")
	}
	b, err := os.ReadFile(cfg.DSNFile)
	if err != nil {
		return "", fmt.Errorf("read the DSN: %w", err)
	}
	dsn := strings.TrimSpace(string(b))
	if dsn == "" {
		return "", fmt.Errorf("the DSN file %s is empty", cfg.DSNFile)
	}
	return dsn, nil
}

func (cfg Config) origin() string {
	if cfg.DSNFile == "" {
		return ""
	}
	return " in " + cfg.DSNFile
}

func setDefault(params map[string]string, key, value string) {
	if _, given := params[key]; !given {
		params[key] = value
	}
}

func milliseconds(d time.Duration) string {
	return strconv.FormatInt(d.Milliseconds(), 10)
}
