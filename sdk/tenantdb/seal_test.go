package tenantdb_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// tag is the database's own computation, as enter() does it.
const tagSQL = `SELECT substr(sha256(k.opad || sha256(k.ipad || $2::bytea)), 1, 16) FROM rowhouse.mac_key k WHERE k.kid = $1`

func TestSealVector(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t)
	var key tenant.SealKey
	for i := range key {
		key[i] = 0x0b
	}
	if err := cell.InstallKey(t.Context(), d.Admin, cell.Key{ID: 9, Cell: 42, Secret: key, NotAfter: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	claims := tenant.Claims{
		TenantUID:           tenant.UID{0xaa, 0xaa, 0xaa, 0xaa, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 0x0a},
		CellNumber:          42,
		PlacementGeneration: 7,
		ExpireTime:          time.Unix(1800000000, 0),
	}
	claims.DBSeal[0] = 1
	body := claims.SealBody()
	var got []byte
	if err := d.Admin.QueryRow(t.Context(), tagSQL, 9, body[:]).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if want := "99e72aa69c6f5fe41eac9a4d8f106550"; hex.EncodeToString(got) != want {
		t.Errorf("PostgreSQL computes %x, want %s", got, want)
	}
}

func TestGoAndSQLComputeTheSameTag(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t)
	random := rand.NewChaCha8([32]byte{1})
	var key tenant.SealKey
	_, _ = random.Read(key[:])
	if err := cell.InstallKey(t.Context(), d.Admin, cell.Key{ID: 200, Cell: 1, Secret: key, NotAfter: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	const n = 10_000
	bodies := make([][]byte, n)
	for i := range bodies {
		bodies[i] = make([]byte, 36)
		_, _ = random.Read(bodies[i])
		bodies[i][1] = 200
	}
	rows, err := d.Admin.Query(t.Context(), `SELECT substr(sha256(k.opad || sha256(k.ipad || b)), 1, 16)
FROM rowhouse.mac_key k, unnest($1::bytea[]) WITH ORDINALITY AS u(b, n) WHERE k.kid = 200 ORDER BY u.n`, bodies)
	if err != nil {
		t.Fatal(err)
	}
	tags, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil || len(tags) != n {
		t.Fatalf("%d tags, %v", len(tags), err)
	}
	for i, body := range bodies {
		if want := tenant.MakeSeal(&key, 200, [36]byte(body)); !bytes.Equal(tags[i], want[:]) {
			t.Fatalf("seal of %x: Go %x, SQL %x", body, want, tags[i])
		}
	}
}

// forge returns a seal of acme with a changed body, made with the right key.
func forge(key tenant.SealKey, kid uint8, seal []byte, change func([]byte)) []byte {
	body := [36]byte(seal[:36])
	change(body[:])
	tag := tenant.MakeSeal(&key, kid, body)
	body[1] = kid
	return append(body[:], tag[:]...)
}

func TestEnterRefusesSeals(t *testing.T) {
	t.Parallel()
	onRungs(t, func(t rung, d *dbtest.Database) {
		seal, key := sealOf(t, d, "acme"), d.SealKey()
		remade := func(change func([]byte)) []byte { return forge(key, tenanttest.SealKID, seal, change) }
		until := func(at uint32) []byte {
			return remade(func(b []byte) { binary.BigEndian.PutUint32(b[32:], at) })
		}
		in := func(seconds int64) []byte { return until(uint32(time.Now().Unix() + seconds)) }
		for _, k := range []cell.Key{
			{ID: 5, Cell: 2, Secret: key, NotAfter: time.Now().Add(time.Hour)},
			{ID: 6, Cell: 1, Secret: key, NotAfter: time.Now().Add(-time.Second)},
		} {
			if err := cell.InstallKey(t.Context(), d.Admin, k); err != nil {
				t.Fatal(err)
			}
		}
		for _, test := range []struct {
			name string
			seal []byte
			want string
		}{
			{"fresh", seal, ""},
			{"remade alike", remade(func([]byte) {}), ""},
			{"null", nil, "RH003"},
			{"empty", []byte{}, "RH003"},
			{"cut", seal[:51], "RH003"},
			{"longer", append(seal[:52:52], 0), "RH003"},
			{"no tag", seal[:36], "RH003"},
			{"version 2", remade(func(b []byte) { b[0] = 2 }), "RH003"},
			{"unknown flag", remade(func(b []byte) { b[3] = 2 }), "RH003"},
			{"unknown high flag", remade(func(b []byte) { b[2] = 1 }), "RH003"},
			{"another key", forge(tenant.SealKey{1}, tenanttest.SealKID, seal, func([]byte) {}), "RH003"},
			{"unknown kid", forge(key, 77, seal, func([]byte) {}), "RH003"},
			{"key of another cell", forge(key, 5, seal, func([]byte) {}), "RH003"},
			{"key that ended", forge(key, 6, seal, func([]byte) {}), "RH003"},
			{"another cell", remade(func(b []byte) { b[7]++ }), "RH003"},
			{"another generation", remade(func(b []byte) { b[15]++ }), "RH001"},
			{"a tenant that is not here", remade(func(b []byte) { b[31]++ }), "RH001"},
			{"for ever", until(1<<32 - 1), "RH005"},
			{"long ago", until(0), "RH005"},
			{"read only", remade(func(b []byte) { b[3] = 1 }), ""},
		} {
			for _, level := range []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.RepeatableRead} {
				if err := enter(t, d, level, test.seal); state(err) != test.want {
					t.Errorf("%s, %s: %v, want SQLSTATE %q", test.name, level, err, test.want)
				}
			}
		}
		for name, test := range map[string]struct { // made when they are tried: a busy machine is seconds late
			in   int64
			want string
		}{"expired": {-1, "RH005"}, "expires now": {0, "RH005"}, "expires soon": {20, ""}, "expires late": {115, ""}, "far future": {140, "RH005"}} {
			for _, level := range []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.RepeatableRead} {
				if err := enter(t, d, level, in(test.in)); state(err) != test.want {
					t.Errorf("%s, %s: %v, want SQLSTATE %q", name, level, err, test.want)
				}
			}
		}
	})
}

// enter tries a seal in a transaction of its own; READ COMMITTED takes enter's short way.
func enter(tb testing.TB, d *dbtest.Database, level pgx.TxIsoLevel, seal []byte) error {
	tb.Helper()
	conn := d.Login(tb)
	defer func() { _ = conn.Close(tb.Context()) }()
	return pgx.BeginTxFunc(tb.Context(), conn, pgx.TxOptions{IsoLevel: level}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(tb.Context(), "SELECT rowhouse.enter($1)", seal); err != nil {
			return err
		}
		var own bool
		uid := d.Tenant(tb, "acme").UID.String()
		err := tx.QueryRow(tb.Context(), "SELECT rowhouse.tenant_id() = $1::text::uuid AND count(*) = 2 FROM app.note", uid).Scan(&own)
		if err == nil && !own {
			tb.Error("the seal entered another tenant")
		}
		if len(seal) > 3 && seal[3] == 1 {
			if _, err := tx.Exec(tb.Context(), "SAVEPOINT s; SET LOCAL transaction_read_only = off", pgx.QueryExecModeSimpleProtocol); err == nil {
				tb.Error("a read-only seal can be made to write")
			}
			return nil // the transaction failed as it should
		}
		return err
	})
}

// Each bit of a seal is covered: by the MAC, or because it is the MAC.
func TestEveryBitOfASealCounts(t *testing.T) {
	t.Parallel()
	onRungs(t, func(t rung, d *dbtest.Database) {
		seal := sealOf(t, d, "acme")
		conn := d.Login(t)
		for bit := range len(seal) * 8 {
			flipped := bytes.Clone(seal)
			flipped[bit/8] ^= 1 << (bit % 8)
			if _, err := conn.Exec(t.Context(), "SELECT rowhouse.enter($1)", flipped); state(err) != "RH003" {
				t.Errorf("bit %d: %v, want SQLSTATE RH003", bit, err)
			}
		}
	})
}

// One transaction, one tenant, for ever.
func TestSecondEnterIsRefused(t *testing.T) {
	t.Parallel()
	onRungs(t, func(t rung, d *dbtest.Database) {
		acme, globex := sealOf(t, d, "acme"), sealOf(t, d, "globex")
		conn := d.Login(t)
		for _, second := range [][]byte{acme, globex} {
			err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), "SELECT rowhouse.enter($1)", acme); err != nil {
					t.Error(err)
				}
				_, err := tx.Exec(t.Context(), "SELECT rowhouse.enter($1)", second)
				return err
			})
			if state(err) != "RH004" {
				t.Errorf("second enter: %v, want SQLSTATE RH004", err)
			}
		}
	})
}

// On L2a anybody may write the carrier, so what stands in it is checked where it is used: enter made it, in this
// transaction. With a seal alone one would be in a tenant past its fence, its suspension and the flags of the seal.
func TestCarrierOfL2aIsChecked(t *testing.T) {
	t.Parallel()
	d := notes(t, dbtest.Rung(cell.L2a))
	seal, key := sealOf(t, d, "acme"), d.SealKey()
	late := forge(key, tenanttest.SealKID, seal, func(b []byte) {
		binary.BigEndian.PutUint32(b[32:], uint32(time.Now().Add(-time.Second).Unix()))
	})
	reading := forge(key, tenanttest.SealKID, seal, func(b []byte) { b[3] = 1 })
	foreign := forge(tenant.SealKey{}, tenanttest.SealKID, seal, func([]byte) {})
	conn := d.Login(t)
	try := func(set func(began string) string) (carried string, err error) {
		t.Helper()
		err = pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			var began string
			if err := tx.QueryRow(t.Context(), "SELECT encode(timestamptz_send(now()), 'hex')").Scan(&began); err != nil {
				return err
			}
			if _, err := tx.Exec(t.Context(), set(began)); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), "SELECT * FROM app.note")
			return errors.Join(err, tx.QueryRow(t.Context(), "SELECT current_setting('rowhouse.seal')").Scan(&carried))
		})
		return carried, err
	}
	entered, err := try(func(string) string { return fmt.Sprintf(`SELECT rowhouse.enter('\x%x')`, seal) })
	if err != nil || len(entered) != 120 {
		t.Fatalf("enter leaves %q, %v", entered, err)
	}
	for carrier, want := range map[string]string{
		hex.EncodeToString(seal): "RH003", hex.EncodeToString(late): "RH003", hex.EncodeToString(reading): "RH003",
		hex.EncodeToString(foreign): "RH003", "": "42501", "zz": "RH003", hex.EncodeToString(seal[:51]): "RH003",
		entered[:104]: "RH003", // of an earlier transaction
	} {
		_, err := try(func(began string) string {
			if carrier != "" {
				carrier += began
			}
			return "SET rowhouse.seal = '" + carrier + "'"
		})
		if state(err) != want {
			t.Errorf("carrier %q: %v, want SQLSTATE %q", carrier, err, want)
		}
	}
	if _, err := try(func(string) string { return `SELECT rowhouse.enter('\x` + entered + "')" }); state(err) != "RH003" {
		t.Errorf("what was carried enters as a seal: %v, want SQLSTATE RH003", err)
	}
}

func TestRetiredKey(t *testing.T) {
	t.Parallel()
	d := notes(t)
	for range 2 {
		if err := cell.RetireKey(t.Context(), d.Admin, tenanttest.SealKID); err != nil {
			t.Fatal(err)
		}
	}
	if err := enter(t, d, pgx.ReadCommitted, sealOf(t, d, "acme")); state(err) != "RH003" {
		t.Errorf("seal under a retired key: %v", err)
	}
}
