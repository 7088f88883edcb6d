package edge

import (
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/authority"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// tenantPrefix begins a path that names a tenant.
const tenantPrefix = "/t/"

// Ask is what a request says about itself. Nothing in it is trusted alone.
type Ask struct {
	// Host is the Host header or :authority as it arrived.
	Host string
	// SNI is the server name of the TLS handshake; empty without TLS or without SNI.
	SNI string
	// Path is the escaped path as it arrived, without the query.
	Path string
	// Selector is the value of the selector header that an operator switched on; empty without one.
	Selector string
	// Token is the tenant that a verified customer token names; zero without one.
	Token tenant.ID
	// GRPC says that the path is a gRPC method.
	GRPC bool
}

// Route is where a request goes.
type Route struct {
	Tenant   *Tenant
	App      *App
	Cell     *Cell
	Upstream Upstream
	// Host is the canonical host.
	Host authority.Host
	// Path is what the app sees: the path without the tenant's prefix.
	Path string
	// Prefix is what was taken off, "/t/acme" or empty.
	Prefix string
	// NamedBy lists what named the tenant: "host", "path", "token", "selector".
	NamedBy []string
	// Revision is the table's revision at the time of the decision.
	Revision int64
}

// Resolve finds the one tenant and app that a request is for. Host, path, token
// and selector must name one tenant: none of them wins over another. The Route is
// filled as far as the decision came, also when it is a refusal, so that a
// refusal can be branded and explained. Errors are faults:
//
//   - INVALID_FIELD for a host or path that cannot be one;
//   - RESOURCE_NOT_FOUND when nothing names a known tenant;
//   - TENANT_MISMATCH when two of them disagree, MISDIRECTED when the TLS server
//     name leads to another tenant than the host;
//   - TENANT_SUSPENDED, TENANT_DELETED, TENANT_NOT_READY by the tenant's state;
//   - METHOD_UNKNOWN for a gRPC service that the app does not offer;
//   - UPSTREAM_UNAVAILABLE when the app has no process for the tenant's cell.
func (t *Table) Resolve(ask Ask) (Route, error) {
	r := Route{Revision: t.Revision()}
	host, err := authority.ParseHost(ask.Host)
	if err != nil {
		return r, fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "the request's host is not a host name")
	}
	r.Host = host
	if err := checkPath(ask.Path); err != nil {
		return r, err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := t.identify(&r, ask); err != nil {
		return r, err
	}
	if err := t.checkSNI(&r, ask.SNI); err != nil {
		return r, err
	}
	if err := stateFault(r.Tenant); err != nil {
		return r, err
	}
	return r, t.aim(&r, ask.GRPC)
}

// ResolveHost finds the tenant whose own host a request came to, for what the gateway itself serves there: the path is
// not looked at. Errors are those of [Table.Resolve]; on shared hosts it is RESOURCE_NOT_FOUND.
func (t *Table) ResolveHost(ask Ask) (Route, error) {
	r := Route{Revision: t.Revision()}
	host, err := authority.ParseHost(ask.Host)
	if err != nil {
		return r, fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "the request's host is not a host name")
	}
	r.Host, ask.Path, ask.Token = host, "/", tenant.ID{}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.domains[host] == nil {
		return r, unknown()
	}
	if err := t.identify(&r, ask); err != nil {
		return r, err
	}
	if err := t.checkSNI(&r, ask.SNI); err != nil {
		return r, err
	}
	if err := stateFault(r.Tenant); err != nil {
		return r, err
	}
	if r.Cell = t.cells[r.Tenant.Cell]; r.Cell == nil {
		return r, noUpstream()
	}
	return r, nil
}

// identify collects what the request names and demands that it be one tenant.
func (t *Table) identify(r *Route, ask Ask) error {
	var named []*Tenant
	add := func(by string, e *Tenant) {
		r.NamedBy = append(r.NamedBy, by)
		named = append(named, e)
	}
	onTenantHost := false
	if d := t.domains[r.Host]; d != nil {
		onTenantHost = true
		r.App = t.apps[d.App]
		add("host", t.tenants[d.Tenant])
	} else if r.App = t.shared[r.Host]; r.App == nil {
		return unknown()
	}
	r.Path = ask.Path
	if id, rest, ok := cutTenant(ask.Path); ok && !ask.GRPC {
		r.Prefix, r.Path = tenantPrefix+id, rest
		add("path", t.byText(id))
	}
	if ask.Selector != "" {
		add("selector", t.byText(ask.Selector))
	}
	if !ask.Token.IsZero() {
		add("token", t.byID[ask.Token])
	}
	return t.agree(r, named, onTenantHost)
}

// agree applies the agreement rule. On a tenant's own host a stranger and a
// tenant that does not exist give one answer; on a shared host a name that leads
// nowhere is not found.
func (t *Table) agree(r *Route, named []*Tenant, onTenantHost bool) error {
	if len(named) == 0 || (onTenantHost && named[0] == nil) {
		return unknown()
	}
	for _, e := range named[1:] {
		if e != named[0] {
			return fault.New(fault.PermissionDenied, fault.ReasonTenantMismatch,
				"host, path, token and selector of the request do not name one tenant")
		}
	}
	if named[0] == nil {
		return unknown()
	}
	r.Tenant = named[0]
	return nil
}

// checkSNI refuses a request that arrived on a connection made for somebody
// else: browsers reuse connections whose certificate covers several hosts.
func (t *Table) checkSNI(r *Route, sni string) error {
	if sni == "" {
		return nil
	}
	name, err := authority.ParseName(sni)
	if err == nil && name == r.Host {
		return nil
	}
	if err == nil {
		if d := t.domains[name]; d != nil && t.tenants[d.Tenant] == r.Tenant {
			return nil
		}
	}
	return fault.New(fault.PermissionDenied, fault.ReasonMisdirected, "this connection was not made for the request's host")
}

// aim finds the app's process for the tenant's cell.
func (t *Table) aim(r *Route, grpc bool) error {
	if r.App == nil {
		return noUpstream()
	}
	if grpc {
		service, ok := grpcService(r.Path)
		if !ok || !r.App.GRPCServices[service] {
			return fault.New(fault.Unimplemented, fault.ReasonMethodUnknown, "no such method")
		}
	}
	r.Cell = t.cells[r.Tenant.Cell]
	up, ok := r.App.Upstreams[r.Tenant.Cell]
	if !ok || r.Cell == nil || (grpc && up.GRPCAddress == "") || (!grpc && up.HTTPAddress == "") {
		return noUpstream()
	}
	r.Upstream = up
	return nil
}

// byText finds a tenant by untrusted text.
func (t *Table) byText(s string) *Tenant {
	id, err := tenant.ParseID(s)
	if err != nil {
		return nil
	}
	return t.byID[id]
}

// cutTenant splits "/t/acme/notes" into "acme" and "/notes".
func cutTenant(path string) (id, rest string, ok bool) {
	tail, ok := strings.CutPrefix(path, tenantPrefix)
	if !ok {
		return "", "", false
	}
	id, rest, found := strings.Cut(tail, "/")
	if !found {
		return id, "/", true
	}
	return id, "/" + rest, true
}

// grpcService returns "pkg.Service" of "/pkg.Service/Method".
func grpcService(path string) (string, bool) {
	service, method, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	ok = ok && strings.HasPrefix(path, "/") && service != "" && method != "" && !strings.Contains(method, "/")
	return service, ok
}

// checkPath refuses what a proxy and an app could read differently.
func checkPath(path string) error {
	if path == "*" {
		return badPath("an asterisk path")
	}
	if !strings.HasPrefix(path, "/") {
		return badPath("a path that does not begin with a slash")
	}
	if strings.Contains(path, "//") || strings.ContainsAny(path, "\\\x00;") {
		return badPath("an empty segment, backslash, semicolon or NUL")
	}
	for segment := range strings.SplitSeq(path, "/") {
		if err := checkSegment(segment); err != nil {
			return err
		}
	}
	return nil
}

func checkSegment(segment string) error {
	if !strings.ContainsAny(segment, "%.") {
		return nil
	}
	lower := strings.ToLower(segment)
	for _, hidden := range []string{"%2f", "%5c", "%00", "%3b", "%25"} {
		if strings.Contains(lower, hidden) {
			return badPath("an escaped separator")
		}
	}
	if dots := strings.ReplaceAll(lower, "%2e", "."); dots == "." || dots == ".." {
		return badPath("a dot segment")
	}
	return nil
}

func badPath(what string) error {
	return fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "the request's path holds %s", what)
}

func unknown() error {
	return fault.New(fault.NotFound, fault.ReasonResourceNotFound, "nothing is served here")
}

func noUpstream() error {
	return fault.New(fault.Unavailable, fault.ReasonUpstreamDown, "the app cannot be reached")
}

// stateFault says why a tenant in this state is not served; nil when it is.
func stateFault(e *Tenant) error {
	switch e.State {
	case Active:
		return nil
	case Suspended:
		return fault.New(fault.PermissionDenied, fault.ReasonTenantSuspended, "this account is suspended")
	case Deleted:
		return fault.New(fault.PermissionDenied, fault.ReasonTenantDeleted, "this account was closed")
	default:
		return fault.New(fault.Unavailable, fault.ReasonTenantNotReady, "this account is being made ready")
	}
}
