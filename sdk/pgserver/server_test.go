package pgserver_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

func TestStart(t *testing.T) {
	t.Parallel()
	began := time.Now()
	s, err := pgserver.Start(t.Context(), pgserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(began), s.Version(), s.Dir())
	conn, err := pgx.Connect(t.Context(), s.DSN(pgserver.Login{}))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close(t.Context())
	began = time.Now()
	if err := s.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(began))
}
