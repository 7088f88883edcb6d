package brand_test

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/rowhouse-platform/rowhouse/internal/brand/brandtest"
	"github.com/rowhouse-platform/rowhouse/internal/brand/css"
	"github.com/rowhouse-platform/rowhouse/internal/brand/svg"
)

const asset = "/.well-known/rowhouse/b/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.png"

// A shop serves assets without any of the headers that would guard them, in each way in which a page can load them: a
// folder for each way, and in it a page for each asset.
type shop struct {
	pictures, sheets []string
}

func (s shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, folder, _ := strings.Cut(r.URL.Path, "/")
	folder, number, _ := strings.Cut(folder, "/")
	n, _ := strconv.Atoi(number)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	switch folder {
	case "": // the page of all pages
		fmt.Fprint(w, `<!doctype html><title>all</title>`)
		for i := range s.pictures {
			fmt.Fprintf(w, `<iframe src="/svg/%[1]d"></iframe><iframe src="/inline/%[1]d"></iframe>`, i)
			fmt.Fprintf(w, `<iframe src="/inner/%[1]d"></iframe><img src="/svg/%[1]d">`, i)
		}
		for i := range s.sheets {
			fmt.Fprintf(w, `<iframe src="/sheet/%[1]d"></iframe><iframe src="/style/%[1]d"></iframe>`, i)
		}
	case "svg":
		w.Header().Set("Content-Type", "image/svg+xml")
		fmt.Fprint(w, s.pictures[n])
	case "inline":
		fmt.Fprintf(w, `<!doctype html><title>x</title>%s<p>`, s.pictures[n])
	case "inner": // parsed, written and parsed again, which is how a mutation comes to life
		fmt.Fprintf(w, `<!doctype html><title>x</title><div id="d"></div><script>{
			const x = new XMLHttpRequest(); x.open("GET", "/svg/%d", false); x.send()
			const d = document.getElementById("d"); d.innerHTML = x.responseText; d.innerHTML = d.innerHTML}</script>`, n)
	case "css":
		w.Header().Set("Content-Type", "text/css")
		fmt.Fprint(w, s.sheets[n])
	case "sheet":
		fmt.Fprintf(w, `<!doctype html><title>x</title><link rel="stylesheet" href="/css/%d">
			<div class="rh-brand"><p class="rh-a">a<input value="a" class="rh-b"></div>`, n)
	case "style":
		fmt.Fprintf(w, `<!doctype html><title>x</title><style>%s</style><div class="rh-brand"><p class="rh-a">a</div>`, s.sheets[n])
	default:
		http.NotFound(w, r) // the tenant's own asset may be asked for
	}
}

// A witness is what a tab did.
type witness struct {
	mu               sync.Mutex
	scripts, foreign []string
	answers          []string // to what the page of all pages was asked
}

func (s *witness) see(event any, own string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		s.scripts = append(s.scripts, fmt.Sprintf("console %s %s", e.Type, e.Args[0].Value))
	case *runtime.EventExceptionThrown:
		s.scripts = append(s.scripts, "exception "+e.ExceptionDetails.Text)
	case *page.EventJavascriptDialogOpening:
		s.scripts = append(s.scripts, "dialog "+e.Message)
	case *network.EventRequestWillBeSent:
		if to, err := url.Parse(e.Request.URL); err != nil || to.Host != own {
			s.foreign = append(s.foreign, e.Request.URL)
		}
	}
}

// What the sanitisers let through runs no script and asks no other host, in a real browser, as a file of its own, as an image,
// and where nobody should put it: in HTML. The same browser sees what the same uploads do unsanitised.
func TestABrowserFindsNothingToRun(t *testing.T) {
	t.Parallel()
	browser := chromium(t)
	var clean, hostile shop
	for _, a := range append(some(brandtest.Disguised(), 3), brandtest.SVG()...) {
		if out, err := svg.Sanitise([]byte(a.Input)); err == nil {
			clean.pictures = append(clean.pictures, string(out))
		}
	}
	for _, a := range append(some(brandtest.Sheets(asset), 3), brandtest.CSS(asset)...) {
		if out, err := css.Sanitise([]byte(a.Input), func(path string) bool { return path == asset }); err == nil {
			clean.sheets = append(clean.sheets, string(out))
		}
	}
	for _, a := range brandtest.SVG() {
		if strings.HasPrefix(a.Name, "element ") || strings.HasPrefix(a.Name, "handler of the root") {
			hostile.pictures = append(hostile.pictures, a.Input)
		}
	}
	for _, a := range brandtest.CSS(asset) {
		if strings.HasPrefix(a.Name, "at-rule") || strings.HasPrefix(a.Name, "address in background ") {
			hostile.sheets = append(hostile.sheets, a.Input)
		}
	}
	hostile.pictures, hostile.sheets = some(hostile.pictures, 9), some(hostile.sheets, 9)
	seen := visit(browser, t, clean, "")
	for _, what := range append(seen.scripts, seen.foreign...) {
		t.Errorf("sanitised: %s", html.UnescapeString(what))
	}
	control := visit(browser, t, hostile, "")
	ran := func(address string) bool { return strings.HasSuffix(address, "/ran") }
	if len(control.scripts) == 0 || !slices.ContainsFunc(control.foreign, ran) {
		t.Errorf("the trap catches nothing: %d scripts, %d requests", len(control.scripts), len(control.foreign))
	}
	if only := visit(browser, t, shop{sheets: hostile.sheets}, ""); len(only.foreign) == 0 {
		t.Error("no hostile sheet asks for anything")
	}
	t.Logf("%d pictures and %d sheets sanitised; unsanitised, %d and %d ran %d scripts and sent %d foreign requests",
		len(clean.pictures), len(clean.sheets), len(hostile.pictures), len(hostile.sheets), len(control.scripts), len(control.foreign))
}

// some is one of n, and all in a long run: each asset is four documents, and a busy machine opens ten of them in a second.
func some[T any](all []T, n int) []T {
	if os.Getenv("ROWHOUSE_TEST_LONG") != "" {
		return all
	}
	var few []T
	for i := 0; i < len(all); i += n {
		few = append(few, all[i])
	}
	return few
}

// visit opens the page of all pages and returns what happened until each had its say, and what it then answers to ask, an
// expression of JavaScript, or "".
func visit(browser context.Context, t *testing.T, s http.Handler, ask string) *witness {
	t.Helper()
	server := httptest.NewServer(s)
	defer server.Close()
	tab, closeTab := chromedp.NewContext(browser)
	defer closeTab()
	var seen witness
	err := chromedp.Listen(tab, func(event any) { seen.see(event, strings.TrimPrefix(server.URL, "http://")) })
	// Errors of images and handlers run in tasks behind the load event; a second request comes back behind them.
	const settled = `new Promise(done => requestAnimationFrame(() => setTimeout(() =>
		fetch("/settled").then(() => setTimeout(() => done(1))))))`
	if err == nil {
		err = chromedp.Do(tab, chromedp.Navigate(server.URL+"/"))
	}
	_, err2 := chromedp.Run(tab, chromedp.Evaluate[int](settled, chromedp.EvalAwaitPromise))
	var err3 error
	if ask != "" {
		seen.answers, err3 = chromedp.Run(tab, chromedp.Evaluate[[]string](ask))
	}
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	closeTab()
	return &seen
}

// chromium starts a browser that finds no host but this one.
func chromium(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is missing; make test installs it, and so does: apt-get install chromium")
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	ctx, closeAll := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(closeAll)
	browser, closeBrowser := chromedp.NewContext(ctx)
	t.Cleanup(closeBrowser)
	if err := chromedp.Do(browser); err != nil { // starts it; the tabs are its own
		t.Fatal(err)
	}
	return browser
}
