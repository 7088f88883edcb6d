package tenantgrpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"testing"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// connectionOf is the context of a connection that id opened, before grpc-go tags it.
func connectionOf(t *testing.T, id identity.ID) context.Context {
	t.Helper()
	ca, err := identity.NewAuthority(identity.AuthorityConfig{TrustDomain: id.TrustDomain()})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(identity.Leaf{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(pair.Cert)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	chain := []*x509.Certificate{cert}
	return peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{
		State: tls.ConnectionState{PeerCertificates: chain, VerifiedChains: [][]*x509.Certificate{chain}},
	}})
}

// Who is at the other end is read when a connection begins, not at each of its calls.
func TestConnectionSaysOnceWhoseItIs(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, nil)
	cfg := ServerConfig{Verifier: issuer.Verifier(t)}
	handler := tagger{&server{cfg: cfg, rules: NewRules(Table{"/t/M": {Plane: apiv1.Plane_PLANE_DATA}})}}
	conn := handler.TagConn(connectionOf(t, issuer.Gateway()), &stats.ConnTagInfo{})
	ctx := metadata.NewIncomingContext(conn, metadata.Pairs(tenant.MetadataKey, issuer.Token(t, "acme")))
	ctx = peer.NewContext(ctx, &peer.Peer{}) // a call that looks again finds nobody
	c := callOf(handler.TagRPC(ctx, &stats.RPCTagInfo{FullMethodName: "/t/M"}))
	if c.err != nil || c.presenter != issuer.Gateway() {
		t.Errorf("presented by %s: %v", c.presenter, c.err)
	}
}
