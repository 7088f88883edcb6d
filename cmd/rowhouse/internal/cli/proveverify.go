package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowhouse-platform/rowhouse/internal/prove"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
)

// verification is one run of `rowhouse prove verify`.
type verification struct {
	envelope, key, format, challenge string
	pass                             bool
}

func (a *app) proveVerifyCommand() *cobra.Command {
	var v verification
	c := &cobra.Command{
		Use: "verify ENVELOPE", Short: "Verify that a report is the signed one, and read it",
		Long: `Verify the signature of report.dsse.json with the signer's public key, and that the
other files of the report, where they lie beside it, are the signed ones. Get the key
from the signer by another way than the report: a key that comes with it proves nothing.

-o text, json or html prints the report out of the envelope.

Exit status: 0 it is the signed report, 1 it is not, or not what --pass and
--challenge ask for.`,
		Example: `  rowhouse prove verify proof/report.dsse.json --public-key signer.pub
  rowhouse prove verify proof/report.dsse.json --public-key signer.pub -o html > report.html`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			v.envelope = args[0]
			return v.run(c.OutOrStdout())
		},
	}
	formats := []string{"summary", "text", "json", "html"}
	c.Flags().StringVar(&v.key, "public-key", "", "the file with the signer's public key; several keys may be in it")
	c.Flags().StringVarP(&v.format, "output", "o", "summary", "what to print: "+strings.Join(formats, ", "))
	c.Flags().StringVar(&v.challenge, "challenge", "", "refuse a report that does not repeat this text")
	c.Flags().BoolVar(&v.pass, "pass", false, "refuse a report whose verdict is not pass")
	_ = c.MarkFlagRequired("public-key")       // defined above
	_ = c.RegisterFlagCompletionFunc("output", // as above
		cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	check := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if !slices.Contains(formats, v.format) {
			return usagef("there is no output %q; there are %s", v.format, strings.Join(formats, ", "))
		}
		return check(c, args)
	}
	return c
}

func (v *verification) run(out io.Writer) error {
	keys, err := keyfile.Public(v.key)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(v.envelope)
	if err != nil {
		return fmt.Errorf("read the envelope: %w", err)
	}
	opened, err := prove.Open(data, keys)
	if err != nil {
		return fmt.Errorf("%s: %w", v.envelope, err)
	}
	files, err := v.files(opened)
	if err != nil {
		return err
	}
	r := opened.Report
	if v.format == "summary" {
		fmt.Fprintf(out, "signed by key %s\nsubject: %s\ntime: %s\n%s%s\n", opened.Fingerprint, printable(r.Subject),
			r.Time.Format(time.RFC3339), files, r.Says())
	} else if err := printForm(out, r, v.format); err != nil {
		return err
	}
	switch {
	case v.challenge != "" && v.challenge != r.Challenge:
		return errors.New("the report does not repeat the challenge: it may be an older one")
	case v.pass && r.Verdict != prove.Pass:
		return fmt.Errorf("the report's verdict is %s, not pass", r.Verdict)
	}
	return nil
}

// files compares those that lie beside the envelope, and says which.
func (v *verification) files(opened *prove.Opened) (said string, err error) {
	for _, name := range opened.Names() {
		if name != filepath.Base(name) {
			return "", fmt.Errorf("the envelope names a file outside its folder: %q", name)
		}
		data, err := os.ReadFile(filepath.Join(filepath.Dir(v.envelope), name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			said += name + ": not here\n"
		case err != nil:
			return "", fmt.Errorf("read the report: %w", err)
		case !opened.Matches(prove.File{Name: name, Data: data}):
			return "", fmt.Errorf("%s is not the signed file: it was changed, or belongs to another report", name)
		default:
			said += name + ": the signed file\n"
		}
	}
	return said, nil
}
