package system

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// A person sees the tenant's name and colours, writes a note with the form, and the
// browser has nothing to complain about.
func TestPageInABrowser(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is missing; make test installs it, and so does: apt-get install chromium")
	}
	h := shared(t)
	profile := t.TempDir()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path), chromedp.UserDataDir(profile),
		// Names below .localhost are this machine's, whatever the resolver says.
		chromedp.Flag("host-resolver-rules", "MAP *.localhost 127.0.0.1"))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startWithin)
	defer cancel()
	ctx, closeAll := chromedp.NewExecAllocator(ctx, options...)
	defer closeAll()
	browser, closeBrowser := chromedp.NewContext(ctx)
	defer closeBrowser()
	if err := chromedp.Do(browser); err != nil { // starts it; the tabs are its own
		t.Fatal(err)
	}
	acme := look(browser, t, h, "acme", "Acme Rockets")
	globex := look(browser, t, h, "globex", "Globex")
	if acme == globex {
		t.Errorf("acme and globex have the same colour %s", acme)
	}
}

// look opens a tenant's page in a tab of its own, uses it and returns its colour.
func look(browser context.Context, t *testing.T, h *house, tenant, brand string) (colour string) {
	t.Helper()
	tab, closeTab := chromedp.NewContext(browser)
	complaints := listen(tab)
	client := h.browser()
	eventually(t, settle, func() error { // the app follows config: a moment after the start
		a, err := h.ask(t.Context(), client, visit{host: app + "." + tenant + ".localhost", path: "/"})
		if err == nil && !strings.Contains(a.body, brand) {
			err = errors.New("the brand is not there yet: " + a.body)
		}
		return err
	})
	note := "written by hand at " + tenant
	err := chromedp.Do(tab,
		chromedp.Navigate("http://"+app+"."+tenant+".localhost"+portOf(h)+"/"),
		chromedp.WaitVisible(chromedp.CSS("#brand")),
	)
	name, err1 := chromedp.Run(tab, chromedp.Text(chromedp.CSS("#brand")))
	id, err2 := chromedp.Run(tab, chromedp.Text(chromedp.CSS("#tenant")))
	colour, err3 := chromedp.Run(tab, chromedp.Evaluate[string](`getComputedStyle(document.querySelector("button")).backgroundColor`))
	err4 := chromedp.Do(tab,
		chromedp.SendKeys(chromedp.CSS("input[name=title]"), note), chromedp.Click(chromedp.CSS("button")),
		chromedp.WaitVisible(chromedp.Search(`//li[contains(., "`+note+`")]`)),
	)
	notes, err5 := chromedp.Run(tab, chromedp.Text(chromedp.CSS("#notes")))
	closeTab()
	if err := errors.Join(err, err1, err2, err3, err4, err5); err != nil {
		t.Fatalf("%s: %v", tenant, err)
	}
	if name != brand || id != tenant {
		t.Errorf("%s: the page is of %q and %q, want %q", tenant, name, id, brand)
	}
	if !strings.Contains(notes, note) || !strings.Contains(notes, samples[tenant]) || foreign(tenant, notes) != nil {
		t.Errorf("%s: the notes are %s", tenant, notes)
	}
	if all := complaints(); all != nil {
		t.Errorf("%s: the browser complains: %q", tenant, all)
	}
	return colour
}

// listen collects what a tab complains about until it is closed; the result waits for that.
func listen(tab context.Context) (complaints func() []string) {
	var mu sync.Mutex
	var all []string
	add := func(kind, text string) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, kind+": "+text)
	}
	said, thrown := chromedp.Events(tab, runtime.ConsoleAPICalled), chromedp.Events(tab, runtime.ExceptionThrown)
	logged := chromedp.Events(tab, log.EntryAdded)
	var group sync.WaitGroup
	group.Go(func() {
		for e, err := range said {
			if err == nil {
				add("console", string(e.Type))
			}
		}
	})
	group.Go(func() {
		for e, err := range thrown {
			if err == nil {
				add("exception", e.ExceptionDetails.Text)
			}
		}
	})
	group.Go(func() {
		for e, err := range logged { // a broken content policy is told here
			if err == nil {
				add("log", e.Entry.Text+" "+e.Entry.URL)
			}
		}
	})
	return func() []string {
		group.Wait()
		return all
	}
}

func portOf(h *house) string { return strings.TrimPrefix(loopback(h.ports.HTTP), "127.0.0.1") }
