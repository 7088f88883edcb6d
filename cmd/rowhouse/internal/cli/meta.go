package cli

import (
	"encoding/json"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rowhouse-platform/rowhouse/internal/version"
)

// completionCommand prints the script that makes a shell complete our commands.
func completionCommand(root *cobra.Command) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion {bash|zsh|fish|powershell}",
		Short: "Print the script that completes commands, flags and ids in a shell",
		Long: `Print the script that completes commands, flags and ids in a shell. Ids of tenants, plans and apps come from the
current installation; when it does not answer at once, nothing is offered.

bash needs its package bash-completion, which a plain Debian lacks: apt install bash-completion, then in a new shell
the first line below, or every time from ~/.bashrc.`,
		Example: `  source <(rowhouse completion bash)
  rowhouse completion fish > ~/.config/fish/completions/rowhouse.fish`,
		Args: cobra.ExactArgs(1), ValidArgs: shells,
		RunE: func(c *cobra.Command, args []string) error {
			out := c.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			default:
				return usagef("there is no completion for %q%s", args[0], didYouMean(args[0], shells, ""))
			}
		},
	}
}

// versionCommand tells which build this is.
func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this binary", Long: "Print the version of this binary, of Go and the platform.",
		Example: "  rowhouse version\n  rowhouse version -o json", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			build := struct {
				Version  string `json:"version"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{version.String(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return a.fact(c, build, "rowhouse", build.Version, build.Go, build.Platform)
		},
	}
}

// fact writes what no service was asked for: v for programs, the words for people.
func (a *app) fact(c *cobra.Command, v any, words ...string) error {
	if err := a.checkFormat(); err != nil {
		return err
	}
	text := []byte(strings.Join(words, " ") + "\n")
	if a.format == formatJSON || a.format == formatYAML {
		var err error
		if text, err = json.MarshalIndent(v, "", "  "); err != nil {
			return err
		}
		text = append(text, '\n')
		if a.format == formatYAML {
			if text, err = yamlOf(text); err != nil {
				return err
			}
		}
	}
	_, err := c.OutOrStdout().Write(text)
	return err
}
