// Package cli is the operator's command line over the services' APIs.
//
// Nouns and verbs are a table (nouns.go): a verb names an RPC, and what it takes, sends and shows comes from the RPC's
// descriptors and from the rule that it declares about itself. Only what no descriptor can say has code of its own:
// settings, brands, audit chains, operations and contexts. `call` reaches every RPC without a verb.
//
// Start at [AddTo]. Data goes to the standard output, everything else to the standard error.
package cli

import (
	"io"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/rowhouse-platform/rowhouse/cmd/rowhouse/internal/client"
)

// app is what all commands of one command line share.
type app struct {
	// dial connects to a service of the chosen installation.
	dial func(service string) (*grpc.ClientConn, error)
	// id returns a new UUID, for request ids and trace ids.
	id func() uuid.UUID
	// terminal says whether a stream is one.
	terminal func(stream any) bool
	getenv   func(string) string
	now      func() time.Time

	contextsFile, contextName, format string
	verbose                           bool
}

// AddTo adds the operator's commands and their flags to root, and makes mistakes in the command line of any command
// below it errors for which [ExitCode] is 2.
func AddTo(root *cobra.Command) {
	a := &app{id: uuid.New, terminal: isTerminal, getenv: os.Getenv, now: time.Now}
	a.dial = func(service string) (*grpc.ClientConn, error) {
		c, err := client.Load(a.contextsFile, a.contextName)
		if err != nil {
			return nil, err
		}
		return c.Dial(service)
	}
	a.addTo(root)
}

const (
	groupRun     = "run"
	groupOperate = "operate"
	groupOther   = "other"
)

func (a *app) addTo(root *cobra.Command) {
	root.AddGroup(&cobra.Group{ID: groupRun, Title: "Run it:"}, &cobra.Group{ID: groupOperate, Title: "Operate it:"},
		&cobra.Group{ID: groupOther, Title: "This command line:"})
	root.AddCommand(a.proveCommand())
	for _, c := range root.Commands() {
		c.GroupID = groupRun
	}
	for _, n := range nouns() {
		c := a.nounCommand(n)
		if n.name == "config" {
			c.AddCommand(a.filesCommands()...)
		}
		if n.name == "cells" {
			c.AddCommand(a.cellDatabaseCommands()...)
		}
		over := root
		if n.below != "" {
			over, _, _ = root.Find([]string{n.below}) // it comes earlier in the table
		}
		over.AddCommand(c)
	}
	root.AddCommand(a.callCommand())
	for _, c := range root.Commands() {
		if c.GroupID == "" {
			c.GroupID = groupOperate
		}
	}
	other := []*cobra.Command{a.contextsCommand(), completionCommand(root), a.versionCommand()}
	for _, c := range other {
		c.GroupID = groupOther
		root.AddCommand(c)
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommandGroupID(groupOther)
	a.flags(root)
	strict(root)
}

// flags defines what every command takes.
func (a *app) flags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&a.contextsFile, "contexts", client.DefaultFile(), "the file with the installations; env "+client.EnvFile)
	f.StringVar(&a.contextName, "context", "", "the installation to talk to; env "+client.EnvContext+" (default: the file's current one)")
	f.StringVarP(&a.format, "output", "o", "", "table, tsv, json, yaml or name (default: table on a terminal, else tsv)")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "tell request id and trace id of each call")
	complete := func(values ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
	}
	_ = root.RegisterFlagCompletionFunc("output", complete(formats()...)) // the flag is defined above
	_ = root.RegisterFlagCompletionFunc("context", a.completeContexts)    // as above
}

// strict turns every mistake in a command line below c into a usage error, with the nearest name that exists.
func strict(c *cobra.Command) {
	c.SetFlagErrorFunc(flagMistake)
	c.SuggestionsMinimumDistance = 2
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error { return usageError(check(c, args)) }
	}
	if c.RunE == nil && c.Run == nil {
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return commandMistake(c, args[0])
		}
	} else if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			if err := run(c, args); !closedPipe(err) {
				return err
			}
			return nil
		}
		c.PreRunE = func(c *cobra.Command, _ []string) error { return usageError(c.ValidateRequiredFlags()) }
	}
	for _, sub := range c.Commands() {
		strict(sub)
	}
}

// isTerminal says whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// note writes a line about progress for a person who watches.
func (a *app) note(stderr io.Writer, line string) {
	if a.terminal(stderr) {
		_, _ = io.WriteString(stderr, line+"\n") // nothing depends on it
	}
}
