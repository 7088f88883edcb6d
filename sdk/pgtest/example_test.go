package pgtest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

// notes is the template of all tests of a package; its Hash changes with the schema.
func notes() pgtest.Template {
	const schema = `
		CREATE TABLE public.notes (id int PRIMARY KEY, body text NOT NULL);
		GRANT SELECT, INSERT ON public.notes TO example_notes_app;`
	return pgtest.Template{
		Name: "notes", Hash: schema, Owner: "example_notes_owner", App: "example_notes_app",
		Setup: func(ctx context.Context, dsn string) error {
			conn, err := pgx.Connect(ctx, dsn)
			if err != nil {
				return err
			}
			_, err = conn.Exec(ctx, schema)
			return errors.Join(err, conn.Close(ctx))
		},
	}
}

// A test gets a database of its own, and works on it as the role that production has.
func Example() {
	test := func(t *testing.T) {
		t.Parallel()
		db := pgtest.New(t, notes())
		if _, err := db.App(t).Exec(t.Context(), "INSERT INTO public.notes VALUES (1, 'hello')"); err != nil {
			t.Fatal(err)
		}
	}
	_ = test
	// Output:
}
