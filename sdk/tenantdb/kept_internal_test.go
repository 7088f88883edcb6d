package tenantdb

import (
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
)

// Whoever gives a connection back ends its transaction; should somebody forget, the next one
// must not find itself in it.
func TestOpenTransactionIsNotKept(t *testing.T) {
	t.Parallel()
	config := pgtest.New(t, pgtest.Template{}).Pool(t, pgserver.Superuser).Config().ConnConfig
	s := newBackends(config, 1)
	t.Cleanup(s.close)
	for _, sql := range []string{"begin", "begin; select 1/0"} {
		b, err := s.take(t.Context(), config.Database, home.SharedSchema, func() {})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = b.PgConn().Exec(t.Context(), sql).ReadAll() // the second one fails
		s.give(b, func() {})
		next, err := s.take(t.Context(), config.Database, home.SharedSchema, func() {})
		if err != nil {
			t.Fatal(err)
		}
		if status := next.PgConn().TxStatus(); next == b || status != 'I' {
			t.Errorf("after %q the next caller got the same connection: %t, in status %c", sql, next == b, status)
		}
		s.give(next, func() {})
	}
}
