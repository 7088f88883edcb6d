package jobs_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/jobs"
	"github.com/rowhouse-platform/rowhouse/sdk/jobs/jobstest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// childDSN names the variable by which this binary is told to be a worker.
const childDSN = "JOBS_TEST_CHILD"

// orders is what a worker has to know.
type orders struct {
	DSN, Mint   string
	Tenants     string // the connection string
	App         string
	Certificate tenant.KeyCertificate
	Gateway     identity.ID
	IDs         []string
}

// child works until it is killed.
func child() int {
	var o orders
	if err := json.Unmarshal([]byte(os.Getenv(childDSN)), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := o.work(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (o orders) work(ctx context.Context) error {
	trust := tenant.NewTrust(time.Now)
	if err := trust.SetKey(o.Certificate); err != nil {
		return err
	}
	for _, name := range o.IDs {
		id, err := tenant.ParseID(name)
		if err != nil {
			return err
		}
		state := tenant.TenantState{UID: tenanttest.UID(name), ID: id, Generation: 1, PlacementGeneration: 1, State: tenant.StateActive}
		if err := trust.SetTenant(state); err != nil {
			return err
		}
	}
	trust.Bookmark(time.Now())
	verifier, err := tenant.NewVerifier(tenant.VerifierConfig{
		Trust: trust, Audience: tenant.AudienceApp(16), MayPresent: tenant.Presenters(o.Gateway),
	})
	if err != nil {
		return err
	}
	db, err := tenantdb.Open(ctx, tenantdb.Config{App: o.App, Cells: map[string]tenantdb.Cell{tenanttest.Cell: {DSN: o.Tenants, MaxConns: 4}}})
	if err != nil {
		return err
	}
	defer db.Close()
	c := filling()
	c.DB, c.DSN, c.Minter = db, o.DSN, remote{o, verifier, trust}
	c.Classes["bulk"] = jobs.Class{Workers: 2, Slice: 100 * time.Millisecond}
	q, err := jobs.Open(ctx, c)
	if err != nil {
		return err
	}
	defer q.Close()
	_, _ = io.WriteString(os.Stdout, "working\n")
	return q.Run(ctx)
}

// remote asks the test for contexts.
type remote struct {
	o        orders
	verifier *tenant.Verifier
	trust    *tenant.Trust
}

// MintContext implements jobs.Minter.
func (r remote) MintContext(ctx context.Context, origin, _ string) (tenant.Context, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.o.Mint+"?origin="+url.QueryEscape(hex.EncodeToString([]byte(origin))), nil)
	if err != nil {
		return tenant.Context{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return tenant.Context{}, fault.New(fault.Unavailable, fault.ReasonDependency, "no mint").WithCause(err)
	}
	defer func() { _ = resp.Body.Close() }()
	token, err := io.ReadAll(resp.Body)
	if err != nil {
		return tenant.Context{}, err
	}
	r.trust.Bookmark(time.Now())
	return r.verifier.Verify(string(token), r.o.Gateway)
}

// worker is a process of this binary.
func worker(t *testing.T, o orders) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(o)
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), self)
	cmd.Env = append(os.Environ(), childDSN+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); strings.TrimSpace(line) != "working" {
		t.Fatalf("the worker says %q, %v", line, err)
	}
	return cmd
}

// Workers are killed at any point, two at a time, and others go on: no row is lost, and none is there twice. Half of the kills come
// as the connections to both databases are cut.
func TestWorkersAreKilled(t *testing.T) {
	t.Parallel()
	const n = 10_000
	db := dbtest.New(t, dbtest.Migrations(jobstest.Files(items)))
	mint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin, err := hex.DecodeString(r.URL.Query().Get("origin"))
		token, minted := jobstest.Mint(db.Issuer, t, string(origin))
		if err != nil || minted != nil {
			http.Error(w, fmt.Sprint(err, minted), http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, token)
	}))
	t.Cleanup(mint.Close)
	c := filling()
	c.DSN = jobstest.Database(t)
	q := jobstest.Open(t, db, c)
	o := orders{
		DSN: c.DSN, Mint: mint.URL, Tenants: db.Config.Cells[tenanttest.Cell].DSN, App: db.Config.App,
		Certificate: db.Certificate(), Gateway: db.Gateway(), IDs: []string{"acme", "globex"},
	}
	var asked []jobs.Job
	for _, id := range o.IDs {
		j, err := q.Submit(db.In(t, id), jobs.New{Kind: "fill", Args: fill{N: n, Most: 100}})
		must(t, err)
		asked = append(asked, j)
	}
	progress := func() (rows int64, live bool) {
		for i, j := range asked {
			j, err := q.Get(db.In(t, o.IDs[i]), j.ID)
			must(t, err)
			rows, live = rows+j.RowsDone, live || j.State.Live()
		}
		return rows, live
	}
	kills := 0
	for seen, live := int64(0), true; live; {
		pair := []*exec.Cmd{worker(t, o), worker(t, o)}
		until(t, "rows are written", func() (bool, string) {
			var rows int64
			rows, live = progress()
			enough := rows > seen+n/3 || !live
			if enough {
				seen = rows
			}
			return enough, strconv.FormatInt(rows, 10)
		})
		for _, cmd := range pair {
			must(t, cmd.Process.Kill())
			_ = cmd.Wait() // it was killed
		}
		if kills++; kills%2 == 0 {
			_, err := db.Admin.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE datname = current_database() AND usename LIKE 'rowhouse_app%' AND pid <> pg_backend_pid()`)
			must(t, err)
		}
	}
	for i, j := range asked {
		reaches(t, db, q, o.IDs[i], j.ID, jobs.StateDone)
		whole(t, db, o.IDs[i], j.ID, n)
	}
	if kills < 4 {
		t.Errorf("only %d pairs of workers were killed", kills)
	}
}
