package edge

import "strings"

// stripped are the prefixes of names, in folded spelling, that outsiders must not
// set: ours, and those that apps and proxies commonly take for the truth.
func stripped() []string {
	return []string{
		"rowhouse-", "x-rowhouse-", "x-tenant", "x-scope-orgid", "x-forwarded-", "x-real-ip", "x-original-", "x-envoy-",
		"forwarded", "tracestate", "traceparent", "baggage", "grpc-",
	}
}

// callFields are the fields of a gRPC call that a client may set.
func callFields() []string { return []string{"grpc-timeout", "grpc-encoding", "grpc-accept-encoding"} }

// hopByHop are the fields that concern one connection only (RFC 9110, 7.6.1).
func hopByHop() []string {
	return []string{
		"connection", "proxy-connection", "keep-alive", "proxy-authenticate", "proxy-authorization",
		"transfer-encoding", "upgrade", "te", "trailer", "http2-settings",
	}
}

// Hygiene knows which header fields may pass. Make one with [NewHygiene]; it is
// immutable and safe for concurrent use.
type Hygiene struct {
	prefixes []string
	hop      map[string]bool
	call     map[string]bool
	selector string
	// usual are the verdicts on names that nearly every message has, so that those
	// need no folding.
	usual map[string]verdict
}

// verdict says which way a field may pass.
type verdict struct{ passes, passesBack bool }

// usualNames are common names in the spelling of net/http. Which ones are here changes
// no verdict.
func usualNames() []string {
	return []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Accept-Ranges", "Access-Control-Allow-Origin", "Age", "Authorization",
		"Cache-Control", "Connection", "Content-Encoding", "Content-Language", "Content-Length", "Content-Security-Policy",
		"Content-Type", "Cookie", "Date", "Dnt", "Etag", "Expires", "If-Modified-Since", "If-None-Match", "Last-Modified",
		"Location", "Origin", "Pragma", "Priority", "Range", "Referer", "Referrer-Policy", "Sec-Ch-Ua", "Sec-Ch-Ua-Mobile",
		"Sec-Ch-Ua-Platform", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-Fetch-User", "Server", "Set-Cookie",
		"Strict-Transport-Security", "Te", "Traceparent", "Tracestate", "Upgrade-Insecure-Requests", "User-Agent", "Vary",
		"X-Content-Type-Options", "X-Forwarded-For", "X-Forwarded-Proto", "X-Frame-Options", "X-Requested-With",
	}
}

// NewHygiene returns the rules; selector is the operator's selector header, which
// is consumed, or empty.
func NewHygiene(selector string) *Hygiene {
	h := &Hygiene{prefixes: stripped(), hop: make(map[string]bool), call: make(map[string]bool), selector: fold(selector)}
	for _, name := range callFields() {
		h.call[name] = true
	}
	for _, name := range hopByHop() {
		h.hop[name] = true
	}
	h.usual = make(map[string]verdict)
	for _, name := range usualNames() {
		h.usual[name] = verdict{h.judge(name), h.judgeBack(name)}
	}
	return h
}

// Passes reports whether a request field or trailer with this name may reach an
// app. Names are compared after folding, so "Rowhouse_Tenant.Bin" is the name it
// wants to be taken for; other names with "_" or "." are dropped, because some
// servers map them to "-".
func (h *Hygiene) Passes(name string) bool {
	if v, ok := h.usual[name]; ok {
		return v.passes
	}
	return h.judge(name)
}

func (h *Hygiene) judge(name string) bool {
	folded := fold(name)
	if folded == "" || h.hop[folded] || (h.selector != "" && folded == h.selector) {
		return false
	}
	for _, p := range h.prefixes {
		if strings.HasPrefix(folded, p) {
			return h.call[folded] && !strings.ContainsAny(name, "_.:")
		}
	}
	return !strings.ContainsAny(name, "_.:")
}

// PassesBack reports whether a response field with this name may reach a client.
func (h *Hygiene) PassesBack(name string) bool {
	if v, ok := h.usual[name]; ok {
		return v.passesBack
	}
	return h.judgeBack(name)
}

func (h *Hygiene) judgeBack(name string) bool {
	folded := fold(name)
	return !h.hop[folded] && folded != "server" && folded != "alt-svc" &&
		!strings.HasPrefix(folded, "rowhouse-") && !strings.HasPrefix(folded, "x-envoy-")
}

// Nominated returns the folded names that Connection fields list: they concern
// this connection only. ok is false when they list a field that frames, routes or
// authorizes the request: that is an attack.
func (h *Hygiene) Nominated(connection []string) (names map[string]bool, ok bool) {
	for _, line := range connection {
		for name := range strings.SplitSeq(line, ",") {
			folded := fold(strings.TrimSpace(name))
			switch folded {
			case "", "close", "keep-alive", "upgrade", "http2-settings", "te":
				continue
			case "content-length", "transfer-encoding", "host", "authorization", "cookie", "trailer":
				return nil, false
			}
			if names == nil {
				names = make(map[string]bool)
			}
			names[folded] = true
		}
	}
	return names, true
}

// Fold returns the spelling that a careless server may see in a name: lower case,
// everything but letters and digits a hyphen.
func (h *Hygiene) Fold(name string) string { return fold(name) }

func fold(name string) string {
	clean := true
	for i := range len(name) {
		if c := name[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
			clean = false
			break
		}
	}
	if clean {
		return name
	}
	b := []byte(name)
	for i, c := range b {
		switch {
		case 'A' <= c && c <= 'Z':
			b[i] = c + 'a' - 'A'
		case !('a' <= c && c <= 'z' || '0' <= c && c <= '9'):
			b[i] = '-'
		}
	}
	return string(b)
}
