package cli

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rowhouse-platform/rowhouse/internal/prove"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
)

// verdictError is a report that is no pass.
type verdictError struct{ report *prove.Report }

func (e verdictError) Error() string { return e.report.Says() }

// proof is one run of `rowhouse prove`.
type proof struct {
	app *app
	subject

	only, require               []string
	out, format, key, challenge string
}

// forms are what prove prints.
func forms() []string { return []string{"text", "json", "html", "dsse"} }

func (a *app) proveCommand() *cobra.Command {
	p := &proof{app: a, subject: subject{app: a}}
	c := &cobra.Command{
		Use: "prove", Short: "Show that tenants are kept apart, in a signed report",
		Long: `Show that tenants are kept apart, in a signed report that an auditor can read,
verify and repeat line by line (docs/guides/prove.md).

Without --dsn-file it proves this release: it starts a PostgreSQL of its own, with
the example app's tables on both rungs, attacks it, and stops it. With --dsn-file it
reads the catalogs of that database, of which any login will do; it changes nothing
and reads no tenant's row. --attack adds the attacks, in databases of its own on that
server that it drops again; the login must be a superuser then or, for rung L2a, may
make databases and roles. --source adds the linters, over Go code and migrations.

The sections: ` + strings.Join(sectionIDs(), ", ") + `. What did not run is never a
pass: without --only or --require all sections are required.

Exit status: 0 all that is required ran and held, 1 something failed, 2 a mistake in
the command line, 5 nothing failed but something required did not run.`,
		Example: `  rowhouse prove --out proof
  rowhouse prove --source . --out proof
  rowhouse prove --dsn-file notes.dsn --only rung,catalog,grants,versions --out proof
  rowhouse prove --dsn-file notes.dsn --attack --source . --key signing.key --out proof
  rowhouse prove --only corpus -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return p.run(c) },
	}
	f := c.Flags()
	p.subject.flags(c)
	f.StringSliceVar(&p.only, "only", nil, "run these sections only")
	f.StringSliceVar(&p.require, "require", nil, "the sections without which there is no pass (default: those of --only, else all)")
	f.StringVar(&p.out, "out", "", "write report.txt, report.json, report.html and the signed report.dsse.json into this folder")
	f.StringVarP(&p.format, "output", "o", "text", "what to print: "+strings.Join(forms(), ", ")+" (the signed report)")
	f.StringVar(&p.key, "key", "", "the file with the Ed25519 key that signs (default: one of your own in "+stateDir()+", made when missing)")
	f.StringVar(&p.challenge, "challenge", "", "a text that the report repeats, from who will read it, so that they know it is fresh")
	complete := func(values []string) cobra.CompletionFunc {
		return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
	}
	for flag, values := range map[string][]string{"output": forms(), "only": sectionIDs(), "require": sectionIDs()} {
		_ = c.RegisterFlagCompletionFunc(flag, complete(values)) // defined above
	}
	c.AddCommand(a.proveVerifyCommand())
	return c
}

// sectionIDs are the ids of all sections.
func sectionIDs() []string {
	var ids []string
	for _, about := range prove.Sections() {
		ids = append(ids, about.ID)
	}
	return ids
}

func (p *proof) run(c *cobra.Command) (err error) {
	ctx, out := c.Context(), c.OutOrStdout()
	if !slices.Contains(forms(), p.format) {
		return usagef("there is no output %q; there are %s", p.format, strings.Join(forms(), ", "))
	}
	if err := p.subject.open(c); err != nil {
		return err
	}
	options := prove.Options{
		Checks: p.subject.checks(), Only: p.only, Require: p.require, Challenge: p.challenge,
		Command: p.command(p.arguments()...), Subject: p.subject.String(),
		Secrets: &p.subject.secrets, Clock: p.app.now,
		Progress: func(s prove.Section) { p.app.note(c.ErrOrStderr(), sectionProgress(s)) },
	}
	if err := options.Check(); err != nil {
		return usageError(err)
	}
	key, err := p.signer()
	if err != nil {
		return err
	}
	if p.out != "" { // before a minute's work
		if err := os.MkdirAll(p.out, 0o755); err != nil { //nolint:gosec // reports are to be read
			return fmt.Errorf("the report's folder: %w", err)
		}
	}
	defer func() { err = errors.Join(err, p.subject.close(context.WithoutCancel(ctx))) }()
	report, err := prove.Run(ctx, options)
	if err != nil {
		return err
	}
	if err := p.emit(out, report, key); err != nil {
		return err
	}
	if p.out != "" {
		if err := p.hint(c.ErrOrStderr(), key, report.Required); err != nil {
			return err
		}
	}
	if report.Verdict != prove.Pass {
		return verdictError{report}
	}
	return nil
}

// hint says how the signed report is verified. The public key may lie beside the other; else
// the hint says how it is made.
func (p *proof) hint(out io.Writer, key ed25519.PrivateKey, required []string) error {
	mine, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return errors.New("not an Ed25519 key")
	}
	fingerprint, err := prove.Fingerprint(mine)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "signed by key %s\n", fingerprint)
	base := strings.TrimSuffix(p.keyFile(), ".key")
	path := base + ".pub"
	beside, err := keyfile.Public(path)
	if err != nil || !slices.ContainsFunc(beside, func(k ed25519.PublicKey) bool { return mine.Equal(k) }) {
		if !errors.Is(err, fs.ErrNotExist) { // it is that of another key
			path = base + "." + fingerprint[:8] + ".pub"
		}
		fmt.Fprintf(out, "write its public key: %s\n", prove.Quote("openssl", "pkey", "-in", p.keyFile(), "-pubout", "-out", path))
	}
	verify := []string{"rowhouse", "prove", "verify", filepath.Join(p.out, envelopeFile), "--public-key", path}
	if len(required) < len(sectionIDs()) {
		verify = append(verify, "--require", strings.Join(required, ","))
	} else {
		verify = append(verify, "--pass")
	}
	fmt.Fprintf(out, "verify it: %s\n", prove.Quote(verify...))
	return nil
}

func sectionProgress(s prove.Section) string {
	if s.Reason == "" {
		return s.ID + " …"
	}
	return s.ID + ": " + s.Status.Words() + ": " + s.Reason
}

// envelopeFile is the name of the signed report.
const envelopeFile = "report.dsse.json"

// emit prints the report and writes its files, signed where any are asked for.
func (p *proof) emit(out io.Writer, report *prove.Report, key ed25519.PrivateKey) error {
	if !p.signs() {
		return printForm(out, report, p.format)
	}
	files, err := report.Files()
	if err != nil {
		return err
	}
	sealed, err := prove.Seal(report, files, key)
	if err != nil {
		return err
	}
	if p.out != "" {
		for _, f := range append(slices.Clone(files), prove.File{Name: envelopeFile, Data: sealed}) {
			if err := os.WriteFile(filepath.Join(p.out, f.Name), f.Data, 0o644); err != nil { //nolint:gosec // reports are to be read
				return fmt.Errorf("write the report: %w", err)
			}
		}
	}
	if p.format == "dsse" {
		_, err = out.Write(sealed)
		return err
	}
	return printForm(out, report, p.format)
}

// printForm prints a report as text, JSON or HTML.
func printForm(out io.Writer, report *prove.Report, form string) error {
	switch form {
	case "json":
		return report.WriteJSON(out)
	case "html":
		return report.WriteHTML(out)
	default:
		return report.WriteText(out)
	}
}

// signs reports whether a signed report is asked for.
func (p *proof) signs() bool { return p.out != "" || p.format == "dsse" }

// keyFile is the file of the key that signs.
func (p *proof) keyFile() string {
	if p.key != "" {
		return p.key
	}
	return filepath.Join(stateDir(), "prove.key")
}

// signer returns the key that signs, or nil where nothing is signed. The user's own is made
// when it is missing.
func (p *proof) signer() (ed25519.PrivateKey, error) {
	if p.key == "" && !p.signs() {
		return nil, nil
	}
	if p.key == "" {
		if err := os.MkdirAll(stateDir(), 0o700); err != nil {
			return nil, fmt.Errorf("the folder of the signing key: %w; --key names another one", err)
		}
		if err := keyfile.NewPair(strings.TrimSuffix(p.keyFile(), ".key"), rand.Reader); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	return keyfile.Private(p.keyFile())
}

// stateDir is where the user's own signing key is kept.
func stateDir() string {
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "rowhouse")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "rowhouse"
	}
	return filepath.Join(home, ".local", "state", "rowhouse")
}

// arguments are the flags that were given, without where to write and what to sign with: who repeats
// it must not write over the signed report, and need not have its key. None holds a secret.
func (p *proof) arguments() []string {
	args := p.subject.arguments()
	for _, list := range []struct {
		flag   string
		values []string
	}{{"--only", p.only}, {"--require", p.require}} {
		if len(list.values) > 0 {
			args = append(args, list.flag, strings.Join(list.values, ","))
		}
	}
	for _, f := range []struct{ flag, value string }{{"--challenge", p.challenge}, {"-o", strings.TrimPrefix(p.format, "text")}} {
		if f.value != "" {
			args = append(args, f.flag, f.value)
		}
	}
	return args
}
