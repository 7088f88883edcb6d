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
	require                          []string
}

func (a *app) proveVerifyCommand() *cobra.Command {
	var v verification
	c := &cobra.Command{
		Use: "verify ENVELOPE", Short: "Verify that a report is the signed one, and read it",
		Long: `Verify the signature of report.dsse.json with the signer's public key, and that the
other files of the report, where they lie beside it, are the signed ones. Get the key
from the signer by another way than the report: a key that comes with it proves nothing.

The verdict is judged anew, from the lines of the report and by what you require:
--pass refuses a report in which any section did not run and hold, whatever its signer
required of it; --require names those that you need, and refuses like --pass. A report
that claims more than its lines show is refused always, and nothing of a refused report
is printed.

-o text, json or html prints the report out of the envelope, in its signer's words.

Exit status: 0 it is the signed report, 1 it is not, or not what --pass, --require and
--challenge ask for, 2 a mistake in the command line.`,
		Example: `  rowhouse prove verify proof/report.dsse.json --public-key signer.pub --pass
  rowhouse prove verify proof/report.dsse.json --public-key signer.pub --require rung,catalog,grants,versions
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
	c.Flags().BoolVar(&v.pass, "pass", false, "refuse a report unless the sections of --require ran and held")
	c.Flags().StringSliceVar(&v.require, "require", nil, "the sections without which there is no pass (default: all); implies --pass")
	_ = c.MarkFlagRequired("public-key")       // defined above
	_ = c.RegisterFlagCompletionFunc("output", // as above
		cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("require", cobra.FixedCompletions(sectionIDs(), cobra.ShellCompDirectiveNoFileComp))
	check := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if !slices.Contains(formats, v.format) {
			return usagef("there is no output %q; there are %s", v.format, strings.Join(formats, ", "))
		}
		for _, id := range v.require {
			if !slices.Contains(sectionIDs(), id) {
				return usagef("there is no section %q; there are %s", id, strings.Join(sectionIDs(), ", "))
			}
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
	judged, err := v.judge(r)
	if err != nil {
		return err
	}
	if v.format != "summary" {
		return printForm(out, r, v.format)
	}
	fmt.Fprintf(out, "signed by key %s\nsubject: %s\ntime: %s\n%s", opened.Fingerprint, printable(r.Subject),
		r.Time.Format(time.RFC3339), files)
	if !slices.Equal(r.Required, judged.Required) {
		fmt.Fprintf(out, "the signer required: %s\n", printable(strings.Join(r.Required, ", ")))
	}
	fmt.Fprintln(out, printable(judged.Says()))
	return nil
}

// judge returns the report as judged by what is required here, or why it is refused.
func (v *verification) judge(r *prove.Report) (*prove.Report, error) {
	if v.challenge != "" && v.challenge != r.Challenge {
		return nil, errors.New("the report does not repeat the challenge: it may be an older one")
	}
	judged, err := r.Judge(v.require)
	if err != nil {
		return nil, err
	}
	if (v.pass || len(v.require) > 0) && judged.Verdict != prove.Pass {
		return nil, fmt.Errorf("the report is no pass: %s", judged.Says())
	}
	return judged, nil
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
