package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

// Options say how the house is run.
type Options struct {
	// Dir is the state folder. Default [DefaultDir].
	Dir string
	// HTTPPort and HTTPSPort are the front door's; BasePort is below those of the
	// services, 0 for free ones (the front door's too).
	HTTPPort, HTTPSPort, BasePort int
	// OTLP is an OTLP gRPC endpoint for telemetry; empty for none.
	OTLP string
	// Users is a file with the issuers of users' tokens; empty for none.
	Users string
	// Out gets progress and, in the end, what to try.
	Out io.Writer
}

// house is one run.
type house struct {
	o      Options
	l      Layout
	p      Ports
	began  time.Time
	server *pgserver.Server
	family *family
	front  front
	// self and app are our own binary and the example app's.
	self, app string
}

// Run starts everything, says what to try, and runs until ctx ends; then it stops
// everything. Errors are one line with the mend.
func Run(ctx context.Context, o Options) (err error) {
	if o.Dir == "" {
		o.Dir = DefaultDir()
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	h := &house{o: o, l: Layout{o.Dir}, began: time.Now()}
	if h.self, h.app, err = binaries(); err != nil {
		return err
	}
	if err := h.l.open(); err != nil {
		return err
	}
	unlock, err := h.l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if h.p, err = h.l.choosePorts(ctx, o.BasePort, o.HTTPPort, o.HTTPSPort); err != nil {
		return err
	}
	if err := checkPorts(ctx, h.p); err != nil {
		return err
	}
	h.family = &family{l: h.l, lost: h.lost}
	defer func() { err = errors.Join(err, h.stop(context.WithoutCancel(ctx))) }()
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"keys and certificates", h.identities},
		{"PostgreSQL", h.postgres},
		{"databases and roles", func(ctx context.Context) error { return h.l.prepareDatabases(ctx, h.server) }},
		{"services", h.services},
		{"sample tenants", h.seed},
	} {
		if err := h.step(ctx, step.what, step.do); err != nil {
			if ctx.Err() != nil {
				return nil // stopped on purpose
			}
			return err
		}
	}
	h.banner()
	h.renew(ctx) // until it ends
	fmt.Fprintln(o.Out, "\nstopping …")
	return nil
}

// step does one step and tells how long it took.
func (h *house) step(ctx context.Context, what string, do func(context.Context) error) error {
	fmt.Fprintf(h.o.Out, "  %-24s", what)
	began := time.Now()
	if err := do(ctx); err != nil {
		end := "failed"
		if ctx.Err() != nil {
			end = "stopped"
		}
		fmt.Fprintln(h.o.Out, end)
		return err
	}
	fmt.Fprintf(h.o.Out, "%6.1f s\n", time.Since(began).Seconds())
	return nil
}

func (h *house) identities(context.Context) error {
	return errors.Join(h.l.prepareIdentities(), h.l.prepareKeys(), h.l.configure(h.p, h.o), h.l.describeApp())
}

func (h *house) postgres(ctx context.Context) (err error) {
	h.server, err = pgserver.Start(ctx, pgserver.Options{Dir: h.l.path("pg"), Profile: pgserver.Dev})
	return err
}

// services starts the processes; each follows tenancy's feed, so that comes first.
func (h *house) services(ctx context.Context) error {
	for command, dsn := range map[string]string{"migrate": migrateDSN, "migrate-jobs": jobsName + ".dsn"} {
		migrate := exec.CommandContext(ctx, h.app, command, "--dsn-file", h.l.path("secrets", dsn))
		if out, err := migrate.CombinedOutput(); err != nil {
			return fmt.Errorf("%s the app: %w\n%s", command, err, out)
		}
	}
	for _, s := range services() {
		command := []string{h.self, "serve", s, "--config", h.l.Config(s)}
		if s == appName {
			command = []string{h.app, "serve", "--config", h.l.Config(s)}
		}
		if err := h.family.start(s, command...); err != nil {
			return err
		}
		if s == "tenancy" { // all others ask it at once
			if err := h.family.ready(ctx, s, h.p.Ops[s]); err != nil {
				return err
			}
		}
	}
	for _, s := range services() {
		if err := h.family.ready(ctx, s, h.p.Ops[s]); err != nil {
			return err
		}
	}
	return h.follow(ctx)
}

// binaries finds our own binary and the example app beside it.
func binaries() (self, app string, err error) {
	if self, err = os.Executable(); err != nil {
		return "", "", fmt.Errorf("find our own binary: %w", err)
	}
	app = filepath.Join(filepath.Dir(self), appName)
	if _, err := os.Stat(app); err != nil {
		return "", "", fmt.Errorf("the example app %s is missing; build both with: make build", app)
	}
	return self, app, nil
}

// lost tells that a service ended by itself, and how to bring it back; the others go on,
// which is the point of them.
func (h *house) lost(c *child) {
	words := make([]string, len(c.cmd.Args))
	for i, word := range c.cmd.Args {
		words[i] = quoted(word)
	}
	fmt.Fprintf(h.o.Out, "%s ended (%s); see %s; bring it back with: %s\n",
		c.name, c.cmd.ProcessState, h.l.Log(c.name), strings.Join(words, " "))
}

func (h *house) stop(ctx context.Context) error {
	if h.front.close != nil {
		h.front.close()
	}
	err := h.family.stop()
	if h.server != nil {
		err = errors.Join(err, h.server.Stop(ctx))
	}
	return err
}
