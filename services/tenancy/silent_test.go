package tenancy_test

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// silence listens and never answers; it returns its address.
func silence(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	accepted := make(chan net.Conn, 1000)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	tb.Cleanup(func() {
		_ = l.Close()
		for c := range accepted {
			_ = c.Close()
		}
	})
	return l.Addr().String()
}

// TestSilentCellHoldsUpNoCall changes apps in a cell whose database does not answer.
func TestSilentCellHoldsUpNoCall(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.furnish()
	r.must(os.WriteFile(r.path("cells", "silent.dsn"), []byte("postgres://x@"+silence(t)+"/postgres?sslmode=disable"), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // each of eight calls would wait 5 s
	defer cancel()
	_, err := a.CreateCell(ctx, &tenancyv1.CreateCellRequest{CellId: "silent", Cell: &tenancyv1.Cell{
		Region: region, CredentialsRef: "secret://file/silent.dsn",
	}})
	r.must(err)
	app := &tenancyv1.App{Upstreams: []*tenancyv1.AppUpstream{{
		Cell: "cells/silent", GrpcAddress: "127.0.0.1:7110", SpiffeId: r.id("app", "notes").String(),
	}}}
	for range 3 {
		_, err = a.CreateApp(ctx, &tenancyv1.CreateAppRequest{AppId: "silent", App: app, ValidateOnly: true})
		r.must(err)
	}
	_, err = a.CreateApp(ctx, &tenancyv1.CreateAppRequest{AppId: "silent", App: app})
	r.must(err)
	for range 3 {
		_, err = a.UpdateApp(ctx, &tenancyv1.UpdateAppRequest{App: &tenancyv1.App{Name: "apps/" + r.app, DisplayName: newID()}})
		r.must(err)
	}
}
