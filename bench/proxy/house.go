package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/services/gateway"
)

// The parts of a development house that the benchmark uses.
const (
	trustDomain = "rowhouse.localhost"
	cell        = "cell-1"
	app         = "notes"
	tenant      = "acme"
	host        = "notes.acme.localhost"
	// rate is far above what one gateway can forward, so that it counts every request
	// and refuses none.
	rate = 10_000_000
)

// house is a whole Rowhouse, every service a process, as `rowhouse dev` starts it.
type house struct {
	process *process
	state   string
	gateway gateway.Config
}

// startHouse starts a house with its state in a new folder below dir.
func startHouse(ctx context.Context, dir, binary string) (*house, error) {
	h := &house{state: filepath.Join(dir, "state")}
	log := filepath.Join(dir, "house.log")
	var err error
	h.process, err = start(ctx, dir, "house", says(log, "ready in"), binary, "dev", "--base-port", "0", "--state", h.state)
	if err != nil {
		return nil, err
	}
	if h.gateway, err = serve.Load[gateway.Config](filepath.Join(h.state, "gateway", "config.yaml")); err != nil {
		return nil, errors.Join(err, h.process.stop())
	}
	return h, nil
}

// target is the gateway's process.
func (h *house) target() (target, error) {
	pid, err := readPid(filepath.Join(h.state, "gateway", "pid"))
	return target{name: "rowhouse", address: h.gateway.HTTP, pid: pid}, err
}

// issue makes a certificate of the house's authority for the app's processes, and
// returns its folder and identity.
func (h *house) issue(dir string) (string, identity.ID, error) {
	id, err := identity.App(trustDomain, cell, app)
	if err != nil {
		return "", id, err
	}
	authority, err := identity.OpenAuthority(filepath.Join(h.state, "ca"), identity.AuthorityConfig{TrustDomain: trustDomain})
	if err != nil {
		return "", id, err
	}
	pair, err := authority.Issue(identity.Leaf{ID: id})
	if err != nil {
		return "", id, err
	}
	folder := filepath.Join(dir, "identity")
	return folder, id, pair.Write(folder)
}

// lead has the gateway forward the app's requests to our upstream, and raises the
// tenant's limit. It returns when the gateway has heard of both.
func (h *house) lead(ctx context.Context, address string, id identity.ID) error {
	tenancy, err := h.dial(h.gateway.Tenancy)
	if err != nil {
		return err
	}
	defer func() { _ = tenancy.Close() }()
	_, err = tenancyv1.NewAppServiceClient(tenancy).UpdateApp(ctx, &tenancyv1.UpdateAppRequest{
		App: &tenancyv1.App{Name: "apps/" + app, Upstreams: []*tenancyv1.AppUpstream{
			{Cell: "cells/" + cell, HttpAddress: address, SpiffeId: id.String()},
		}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"upstreams"}},
	})
	if err != nil {
		return fmt.Errorf("lead the app to the upstream: %w", err)
	}
	quota, err := h.dial(h.gateway.Quota)
	if err != nil {
		return err
	}
	defer func() { _ = quota.Close() }()
	_, err = quotav1.NewLimitServiceClient(quota).UpdateLimit(ctx, &quotav1.UpdateLimitRequest{
		Limit: &quotav1.Limit{
			Name: "tenants/" + tenant + "/limits/requests", Tokens: rate, Period: durationpb.New(time.Second), Burst: rate,
		},
		AllowMissing: true,
	})
	if err != nil {
		return fmt.Errorf("raise the tenant's limit: %w", err)
	}
	return h.heard(ctx)
}

// heard waits until an answer through the gateway is the upstream's and its limit the
// new one.
func (h *house) heard(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		err := h.probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the gateway does not follow: %w", err)
		case <-tick.C:
		}
	}
}

func (h *house) probe(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.gateway.HTTP+"/", nil)
	if err != nil {
		return err
	}
	req.Host = host
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, res.Body)
	policy := res.Header.Get("Ratelimit-Policy")
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return err
	}
	if want := fmt.Sprintf(`"requests";q=%d;w=1`, rate); res.StatusCode != http.StatusOK || n != bodySize || policy != want {
		return fmt.Errorf("answer %d of %d bytes under the limit %s", res.StatusCode, n, policy)
	}
	return nil
}

// bodySize is how much the upstream answers.
const bodySize = 1024

// dial connects to a service as the house's operator.
func (h *house) dial(to gateway.Peer) (*grpc.ClientConn, error) {
	roots, err := os.ReadFile(filepath.Join(h.state, "ca", identity.RootsFile))
	if err != nil {
		return nil, err
	}
	config, err := identity.AnonymousClientTLS(roots, to.Identity, time.Now)
	if err != nil {
		return nil, err
	}
	token, err := readToken(filepath.Join(h.state, "operator", "token"))
	if err != nil {
		return nil, err
	}
	return grpc.NewClient(to.Address, grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithPerRPCCredentials(token))
}
