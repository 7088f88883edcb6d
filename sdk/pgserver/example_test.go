package pgserver_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

// A throw-away server answers as soon as Start returns, and Stop leaves nothing of it.
func ExampleStart() {
	ctx := context.Background()
	server, err := pgserver.Start(ctx, pgserver.Options{})
	if err != nil {
		fmt.Println(err) // the line says what to do
		return
	}
	defer server.Stop(ctx)
	conn, err := pgx.Connect(ctx, server.DSN(pgserver.Login{}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close(ctx)
	var zone string
	if err := conn.QueryRow(ctx, "SHOW TimeZone").Scan(&zone); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(zone)
	// Output: UTC
}
