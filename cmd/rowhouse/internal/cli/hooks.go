package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

const hookForm = "hooks/{hook}"

func hooks() noun {
	flags := []flag{
		{path: "hook.url", usage: "whom to ask: https, a public name or address"},
		{path: "hook.steps", usage: "before which steps it is asked"},
		{path: "hook.failure", name: "fail", usage: "what becomes of a step when it gives no answer: open, closed"},
		{path: "hook.timeout", usage: "how long it may take, at most 2s (default 2s)"},
		{path: "hook.description", usage: "what it is for"},
		{path: "hook.disabled", usage: "do not ask it"},
	}
	signing := flag{path: "hook.signing", usage: "how calls are signed (default hmac)"}
	return noun{
		name: "hooks", short: "Who is asked before tenants, plans, domains and documents change", service: "rowhouse.config.v1.HookService",
		long: "Who is asked before steps of the admin plane and may refuse them. Operators who may, take a step without asking by its\n" +
			"--skip-hooks and a reason.",
		columns: "HOOK=name@hooks URL=url STEPS=steps FAIL=failure TIMEOUT=timeout DISABLED=disabled",
		verbs: []verb{
			{name: "list", rpc: "ListHooks", short: "List hooks", example: "rowhouse hooks list\nrowhouse hooks list -o json"},
			{name: "get", rpc: "GetHook", short: "Show a hook", fields: named(hookForm), wide: true, example: "rowhouse hooks get freeze"},
			{
				name: "create", rpc: "CreateHook", short: "Register a hook and show its secret, once", fields: []field{{"hook_id", "{hook}"}},
				flags: append(flags[:5:5], signing), show: showHookSecret,
				example: "rowhouse hooks create freeze --url https://ops.example.com/freeze --steps domain-attach --fail open",
			},
			{
				name: "update", rpc: "UpdateHook", short: "Change a hook, or have it not asked", fields: []field{{"hook.name", hookForm}}, flags: flags,
				example: "rowhouse hooks update freeze --fail open\nrowhouse hooks update freeze --disabled",
			},
			{
				name: "delete", rpc: "DeleteHook", short: "Remove a hook", fields: named(hookForm),
				example: "rowhouse hooks delete freeze --confirm freeze",
			},
			{
				name: "rotate", rpc: "RotateHookSecret", short: "Make a new key and show its secret, once", fields: named(hookForm),
				flags: []flag{{path: "overlap", usage: "how long the old key signs too (default 24h)"}}, show: showHookSecret,
				example: "rowhouse hooks rotate freeze --overlap 1s",
			},
			{
				name: "test", rpc: "TestHook", short: "Ask a hook about a step that nobody takes", fields: named(hookForm),
				flags:   []flag{{path: "step", usage: "the step to ask about (default its first)"}},
				columns: "HOOK=hook@hooks OUTCOME=outcome REASON=reason WARNINGS=warnings FAILURE=failure",
				example: "rowhouse hooks test freeze --step tenant-create",
			},
		},
	}
}

// showHookSecret writes the whole answer for programs, and for people the hook with the secret below.
func showHookSecret(a *app, c *cobra.Command, i *invocation) error {
	r, ok := i.response.(interface {
		proto.Message
		GetHook() *configv1.Hook
		GetSecret() string
	})
	if !ok {
		return errors.New("the service sent another answer")
	}
	if format := a.formatFor(c); format == formatJSON || format == formatYAML {
		return i.write(a, c, r)
	}
	if err := i.write(a, c, r.GetHook()); err != nil || r.GetSecret() == "" {
		return err
	}
	_, err := fmt.Fprintln(c.OutOrStdout(), r.GetSecret())
	return err
}

// warn shows what hooks that allowed a step want people to read.
func warn(c *cobra.Command, warnings []string) {
	for _, w := range warnings {
		_, _ = fmt.Fprintln(c.ErrOrStderr(), "warning: "+printable(w)) // nothing depends on it
	}
}
