// Package egress calls addresses that a tenant chose: webhooks, hooks, upstreams.
//
// Whoever may choose where a server calls can aim it at what only the server reaches (server-side request forgery). So
// a call goes by https to a public address or nowhere: names are resolved here, every address that a name has is
// checked, and the socket's own address is checked once more when it is dialled, so that an answer of the DNS that
// changes in between changes nothing. There is no proxy, no redirect, no connection kept from one call to the next.
//
// What went wrong is told as a [Class], never with an address. Start at [New] and [Client.Post].
package egress

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	defaultTimeout = 20 * time.Second
	dialTimeout    = 10 * time.Second // look-up and connections together; net/http lets a dial outlive its call
	defaultAnswer  = 4 << 10
	maxHeaders     = 16 << 10
	maxURL         = 2048
	// maxAddresses bounds how many addresses of a name are tried.
	maxAddresses = 4
	httpsPort    = "443"
)

// Resolver finds the addresses of a name. [net.Resolver] is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config is what a Client may do. The zero value calls the public Internet.
type Config struct {
	// Timeout bounds a call from the look-up to the last byte of the answer. Default 20 s.
	Timeout time.Duration
	// MaxAnswer is how much of an answer's body is read, in bytes. Default 4 KiB.
	MaxAnswer int64
	// Ports are those that may be named. Default 443 and 8443.
	Ports []string
	// Deny are one's own networks, refused beside the special ranges and before Allow. An IPv4 network may be written as one
	// of IPv6 (::ffff:192.0.2.0/120).
	Deny []netip.Prefix
	// DenyNames are one's own names, which are refused with all below them. Case and dots at the ends do not matter.
	DenyNames []string
	// Allow are special ranges that are called all the same: for private networks whose operator wants that.
	Allow []netip.Prefix
	// AllowNames are names, with all below them, that are looked up although they have no public meaning.
	AllowNames []string
	// Roots verify servers. Default: those of the system.
	Roots *x509.CertPool
	// Resolver resolves names. Default: Go's own, never the C library's.
	Resolver Resolver
}

// Client makes calls. It is safe for concurrent use.
type Client struct {
	cfg  Config
	http *http.Client
}

// New returns a Client.
func New(cfg Config) *Client {
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.MaxAnswer <= 0 {
		cfg.MaxAnswer = defaultAnswer
	}
	if len(cfg.Ports) == 0 {
		cfg.Ports = []string{httpsPort, "8443"}
	}
	if cfg.Resolver == nil {
		cfg.Resolver = &net.Resolver{PreferGo: true}
	}
	cfg.Deny, cfg.Allow = unmapped(cfg.Deny), unmapped(cfg.Allow)
	cfg.DenyNames, cfg.AllowNames = plain(cfg.DenyNames), plain(cfg.AllowNames)
	c := &Client{cfg: cfg}
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy:                  nil, // not even that of the environment
			DialContext:            c.dial,
			TLSClientConfig:        &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives:      true, // a connection carries one tenant's call
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeaders,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// Error is a call that was not made or had no answer.
type Error struct {
	// Class is what may be shown of it.
	Class Class
	// cause may hold an address.
	cause error
}

// Error returns the class alone.
func (e *Error) Error() string { return "egress: " + string(e.Class) }

// Unwrap returns the cause, which is for logs of operators only.
func (e *Error) Unwrap() error { return e.cause }

// ClassOf returns the class of an error of this package.
func ClassOf(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return Unreachable
}

func refusal(class Class) error { return &Error{Class: class} }

// CheckURL says whether a URL may be called at all: https, a public name or address, a port that is allowed, no user and
// no fragment. It resolves nothing, so a URL that passes may still be refused when it is called.
func (c *Client) CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || len(text) > maxURL || u.Scheme != "https" || u.User != nil || u.Fragment != "" || u.Opaque != "" || u.Host == "" {
		return refusal(BadURL)
	}
	port := u.Port()
	if port == "" {
		port = httpsPort
		if strings.HasSuffix(u.Host, ":") {
			return refusal(BadURL)
		}
	}
	if !slices.Contains(c.cfg.Ports, port) {
		return refusal(BadURL)
	}
	host := strings.ToLower(u.Hostname())
	if a, err := netip.ParseAddr(host); err == nil {
		if class := c.refuses(a); class != "" {
			return refusal(class)
		}
		return nil
	}
	if c.refusesName(strings.TrimSuffix(host, ".")) {
		return refusal(BadName)
	}
	return nil
}

// Answer is what a server said.
type Answer struct {
	Status int
	Header http.Header
	// Body is the beginning of the body, at most MaxAnswer bytes.
	Body []byte
	// Truncated says that there was more.
	Truncated bool
}

// Post sends body to a URL that [Client.CheckURL] accepts and reads the answer, whatever its status; a redirect is an
// answer like others. The error is an [Error]; with one it is not known whether the server acted.
func (c *Client) Post(ctx context.Context, target string, header http.Header, body []byte) (*Answer, error) {
	if err := c.CheckURL(target); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return nil, &Error{BadURL, err}
	}
	maps.Copy(req.Header, header)
	req.Header.Set("User-Agent", "Rowhouse")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, classify(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	read, err := io.ReadAll(io.LimitReader(resp.Body, c.cfg.MaxAnswer+1))
	if err == nil {
		err = ctx.Err() // the end of a body may come in just when the call is given up
	}
	if err != nil {
		return nil, classify(ctx, err)
	}
	a := &Answer{Status: resp.StatusCode, Header: resp.Header, Body: read}
	if int64(len(read)) > c.cfg.MaxAnswer {
		a.Body, a.Truncated = read[:c.cfg.MaxAnswer], true
	}
	return a, nil
}

// classify finds the class of an error of net/http.
func classify(ctx context.Context, err error) error {
	var own *Error
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	var timeout net.Error
	switch {
	case errors.As(err, &own):
		return own
	case ctx.Err() != nil || errors.As(err, &timeout) && timeout.Timeout():
		return &Error{Timeout, err}
	case errors.As(err, &dns):
		return &Error{Unresolved, err}
	case errors.As(err, &certificate), errors.As(err, &alert), errors.As(err, &record):
		return &Error{BadTLS, err}
	case errors.As(err, new(*net.OpError)):
		return &Error{Unreachable, err}
	default:
		return &Error{BadAnswer, err}
	}
}

// dial resolves and dials. All addresses of a name must be allowed: one that mixes is somebody's attempt.
func (c *Client) dial(ctx context.Context, network, hostPort string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, &Error{BadURL, err}
	}
	ctx, cancel := context.WithTimeout(ctx, min(dialTimeout, c.cfg.Timeout))
	defer cancel()
	addresses, err := c.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{ControlContext: c.control}
	var last error
	for _, a := range addresses[:min(len(addresses), maxAddresses)] {
		conn, err := d.DialContext(ctx, network, net.JoinHostPort(a.String(), port))
		if err == nil {
			return conn, nil
		}
		last = err
	}
	return nil, last
}

func (c *Client) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		if class := c.refuses(a); class != "" {
			return nil, refusal(class)
		}
		return []netip.Addr{a.Unmap()}, nil
	}
	// The dot at the end keeps the resolver's search list out.
	found, err := c.cfg.Resolver.LookupNetIP(ctx, "ip", strings.TrimSuffix(host, ".")+".")
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, refusal(Unresolved)
	}
	for i, a := range found {
		if class := c.refuses(a); class != "" {
			return nil, refusal(class)
		}
		found[i] = a.Unmap()
	}
	return found, nil
}

// control checks the very address that a socket is about to connect to.
func (c *Client) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return &Error{Reserved, fmt.Errorf("dial %s: %w", address, err)}
	}
	if class := c.refuses(a.Addr()); class != "" {
		return refusal(class)
	}
	return nil
}
