// Package faces writes the gateway's own answers: branded pages for people,
// problem documents for programs, statuses for gRPC.
//
// A page holds our template, the tenant's published colours, logo and texts, and nothing
// that an upstream or a tenant wrote as HTML. It is not for answers of apps, which
// pass through unchanged.
package faces

import (
	_ "embed"
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
)

//go:embed face.html
var page string

// Brand is what a page takes over from a tenant.
type Brand struct {
	// Name is shown as text.
	Name string
	// CSS holds custom properties made of checked colours, and nothing else.
	CSS template.CSS
	// Logo and LogoDark are addresses of checked images; empty for none.
	Logo, LogoDark template.URL
	// Sheet is the address of the tenant's style sheet; empty where it is not served.
	Sheet string
	// Links are addresses of the tenant's own pages, each https; the page shows those about who is behind it. See
	// [settings.Brand.Links].
	Links map[string]string
	// Say returns a text of the brand in a language that the reader prefers; see [settings.Brand.Text]. Default: the
	// platform's texts.
	Say func(key, prefer string) (text, tag string)
}

// Writer writes answers. It is immutable and safe for concurrent use.
type Writer struct {
	page *template.Template
}

// New returns a Writer.
func New() *Writer {
	return &Writer{page: template.Must(template.New("face").Parse(page))}
}

// Refusal is an answer to be written.
type Refusal struct {
	// Err says why; what is not a fault is told as an internal error.
	Err error
	// Brand is the tenant's, nil when none is known.
	Brand *Brand
	// RequestID is shown, so that support can find the request.
	RequestID string
	// GRPC asks for a gRPC status.
	GRPC bool
}

// Write answers r.
func (f *Writer) Write(w http.ResponseWriter, r *http.Request, a Refusal) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	switch {
	case a.GRPC:
		f.writeGRPC(w, a)
	case wantsHTML(r.Header.Get("Accept")):
		f.writeHTML(w, r, a)
	default:
		tenanthttp.WriteProblem(w, r, a.Err)
	}
}

// writeGRPC answers with trailers alone, which is how gRPC refuses (gRPC over HTTP/2).
func (f *Writer) writeGRPC(w http.ResponseWriter, a Refusal) {
	w.Header().Set("Content-Type", "application/grpc")
	setStatus(w.Header(), "", a.Err)
	w.WriteHeader(http.StatusOK)
}

// WriteTrailer ends a gRPC answer that has begun with our status.
func (f *Writer) WriteTrailer(w http.ResponseWriter, err error) {
	setStatus(w.Header(), http.TrailerPrefix, err)
}

// setStatus sets the fields of a gRPC status, in the header or, with a prefix, in the trailer.
func setStatus(h http.Header, prefix string, err error) {
	s := tenantgrpc.Status(err)
	h.Set(prefix+"Grpc-Status", strconv.Itoa(int(s.Code())))
	h.Set(prefix+"Grpc-Message", percent(s.Message()))
	if f, ok := fault.As(err); ok && f.RetryAfter > 0 { // which grpc-go's own retries obey, and not RetryInfo
		h.Set(prefix+"Grpc-Retry-Pushback-Ms", strconv.FormatInt(f.RetryAfter.Milliseconds(), 10))
	}
	if b, err := proto.Marshal(s.Proto()); err == nil {
		h.Set(prefix+"Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(b))
	}
}

// face is what the template sees.
type face struct {
	Status    int
	Title     string
	Text      string
	Reason    string
	RequestID string
	Language  string
	Brand     Brand
	Foot      []link
}

// link is one of the foot.
type link struct{ Label, URL string }

// foot lists the links that a page shows, in the words of the brand.
func foot(b Brand, prefer string) (all []link) {
	for _, name := range []string{"home", "support", "imprint", "privacy", "terms", "accessibility"} {
		if address := b.Links[name]; address != "" {
			label, _ := b.Say("link."+name, prefer)
			all = append(all, link{label, address})
		}
	}
	return all
}

func (f *Writer) writeHTML(w http.ResponseWriter, r *http.Request, a Refusal) {
	v := face{Status: tenanthttp.Status(a.Err), RequestID: a.RequestID, Reason: fault.ReasonOf(a.Err)}
	if a.Brand != nil {
		v.Brand = *a.Brand
	}
	if v.Brand.Say == nil {
		v.Brand.Say = settings.Brand{}.Text
	}
	v.Title, v.Text, v.Language = words(v.Status, v.Reason, v.Brand.Say, r.Header.Get("Accept-Language"))
	v.Foot = foot(v.Brand, r.Header.Get("Accept-Language"))
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "+
		"font-src 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Robots-Tag", "noindex")
	var e *fault.Error
	if errors.As(a.Err, &e) && e.RetryAfter > 0 && h.Get("Retry-After") == "" {
		h.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+999_999_999)/1_000_000_000)))
	}
	w.WriteHeader(v.Status)
	_ = f.page.Execute(w, v) // the client has gone: nobody to tell
}

// words are what a person reads: the brand's own, or the platform's, in the language that fits best.
func words(status int, reason string, say func(key, prefer string) (text, tag string), prefer string) (title, text, tag string) {
	key := keyOf(status, reason)
	switch {
	case reason == fault.ReasonTenantMismatch:
		return "This address and your sign-in do not match", "They belong to different accounts. Please sign in again from here.", "en"
	case key == "":
		return "This request cannot be answered", "Please check the address and try again.", "en"
	}
	title, tag = say(key+".title", prefer)
	text, _ = say(key+".text", prefer)
	return title, text, tag
}

// keyOf is the key of a page's texts in brands; "" where brands have nothing to say.
func keyOf(status int, reason string) string {
	switch reason {
	case fault.ReasonTenantSuspended:
		return "suspended"
	case fault.ReasonTenantDeleted:
		return "closed"
	case fault.ReasonRateLimitExceeded, fault.ReasonCapacityReduced:
		return "busy"
	case fault.ReasonTenantNotReady:
		return "maintenance"
	}
	switch {
	case status == http.StatusNotFound:
		return "not-found"
	case status == http.StatusUnauthorized:
		return "sign-in"
	case status < http.StatusInternalServerError:
		return ""
	default:
		return "error"
	}
}

// wantsHTML reports whether the client is a browser that asks for a page.
func wantsHTML(accept string) bool {
	html := strings.Index(accept, "text/html")
	if html < 0 {
		return false
	}
	json := strings.Index(accept, "json")
	return json < 0 || html < json
}

// percent encodes a message for grpc-message.
func percent(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}
