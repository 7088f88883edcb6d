//go:build injectable

package notes

import (
	"encoding/base64"
	"fmt"
	"net/http"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
)

// hole is what a careless or hijacked app does, for tests that attack it:
//
//	GET /unsafe?title=…   looks for titles by SQL that it glues together; each further
//	                      title is another query of the same transaction
//	GET /stolen           tells the tenant context that the app was called with
func (s *site) hole(mux *http.ServeMux) {
	mux.HandleFunc("GET /unsafe", s.unsafe)
	mux.HandleFunc("GET /stolen", s.stolen)
}

// unsafe answers with all that came back, errors of the database included: nothing
// that an injection could reach may hide behind a polite answer.
func (s *site) unsafe(w http.ResponseWriter, r *http.Request) {
	err := s.notes.db.Tx(r.Context(), func(tx *tenantdb.Tx) error {
		for _, title := range r.URL.Query()["title"] {
			rows, err := tx.Query(r.Context(), glued("SELECT title FROM app.note WHERE title = '"+title+"'"))
			if err != nil {
				return err
			}
			for rows.Next() {
				values, err := rows.Values()
				fmt.Fprintln(w, values, err)
			}
			if err := rows.Err(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		fmt.Fprintf(w, "error: %+v\n", err)
	}
}

func (s *site) stolen(w http.ResponseWriter, r *http.Request) {
	c, err := tenant.FromContext(r.Context())
	if err != nil {
		tenanthttp.WriteProblem(w, r, err)
		return
	}
	fmt.Fprint(w, base64.StdEncoding.EncodeToString([]byte(c.Token())))
}

// glued makes a statement of text that is no constant, which the SDK forbids: a
// generic function may convert to a type that it cannot name.
func glued(sql string) tenantdb.Statement { return convert(tenantdb.Stmt, sql) }

func convert[T ~string](to func(T) tenantdb.Statement, sql string) tenantdb.Statement {
	return to(T(sql))
}
