package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

const (
	rolloutService = "rowhouse.config.v1.RolloutService"
	rolloutForm    = "namespaces/{namespace}/rollouts/{rollout}"
	// rolloutPause is the time between two looks at a rollout.
	rolloutPause = time.Second
)

func rollouts() noun {
	const example = "0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3c"
	return noun{
		name: "rollouts", below: "config", short: "Changes on their way to growing shares of tenants", service: rolloutService,
		long: "Changes on their way to growing shares of tenants. A rollout begins with a roll call of the processes that read the\n" +
			"settings; then tenants get the new content, step by step, each after it was healthy for the bake time. It halts by\n" +
			"itself where a process cannot read it, dies of it or falls silent, and where requests fare worse with it.",
		columns: "ROLLOUT=name@rollouts DOCUMENT=document STATE=state STEP=step SHARE=share_percent HALT=halt DETAIL=detail BEGUN=create_time",
		verbs: []verb{
			{
				name: "list", rpc: "ListRollouts", short: "List rollouts, the newest first", fields: []field{{"parent", "namespaces/{namespace=-}"}},
				limit: 50, example: "rowhouse config rollouts list\nrowhouse config rollouts list portal -o json",
			},
			{
				name: "get", rpc: "GetRollout", short: "Show a rollout and what processes say of it", fields: named(rolloutForm), wide: true,
				example: "rowhouse config rollouts get portal " + example,
			},
			{
				name: "create", rpc: "CreateRollout", short: "Begin to roll out a new content of a document",
				fields: []field{{"rollout.document", configForm}}, more: setFlags, ownFile: true, before: readRollout,
				preset: map[string]string{"rollout.content": "{}"},
				flags: []flag{
					{path: "rollout.steps", usage: "shares of tenants in percent (default 1,5,20,50,100); a first 0 is for canaries alone"},
					{path: "rollout.canaries", name: "canary", usage: "tenants that get it first", form: tenantForm},
					{path: "rollout.bake", usage: "how long each step must be healthy (default 10m)"},
					{path: "rollout.guards.max_error_permille", usage: "by how many in a thousand requests more may fail (default 10)"},
					{path: "rollout.guards.max_p99_percent", usage: "how long the slowest hundredth may take, in percent of the others' (default 200)"},
					{path: "rollout.guards.min_requests", usage: "how many requests each side must have had to be judged (default 100)"},
					{path: "rollout.guards.require_requests", usage: "wait at each step until there were so many"},
				},
				long: "Begin to roll out a new content of a document of the platform, of a plan, of a region or of a tenant with children. It is\n" +
					"given as to rowhouse config set, and checked for every tenant that it concerns. Until it is completed or halted, the\n" +
					"document cannot be written otherwise.",
				example: "rowhouse config rollouts create plans/business portal --set page.size=50 --canary acme --reason \"smaller pages\"\n" +
					"rowhouse config rollouts create platform portal --file portal.json --steps 1,10,100 --bake 30m --reason \"ticket 4711\"",
			},
			{
				name: "wait", rpc: "GetRollout", short: "Wait until a rollout has ended, and tell how it goes", fields: named(rolloutForm),
				long: "Wait until a rollout has ended, and tell how it goes. Exit status 1 says that it halted, 3 that the time ran out first.",
				more: timeoutFlag, show: waitRollout, example: "rowhouse config rollouts wait portal " + example + " --timeout 2h",
			},
			{
				name: "advance", rpc: "AdvanceRollout", short: "Go on now: with the next step, or anew with a halted rollout",
				fields:  named(rolloutForm),
				example: "rowhouse config rollouts advance portal " + example + " --reason \"the pager was for something else\"",
			},
			{
				name: "halt", rpc: "HaltRollout", short: "Take the new content from all tenants at once", fields: named(rolloutForm),
				example: "rowhouse config rollouts halt portal " + example + " --reason \"support hears of empty pages\"",
			},
		},
	}
}

// readRollout makes the request's content as `config set` does.
func readRollout(a *app, c *cobra.Command, r *call) error {
	request, ok := r.request.(*configv1.CreateRolloutRequest)
	if !ok {
		return errors.New("config rollouts create sends another request")
	}
	update := &configv1.UpdateDocumentRequest{Document: &configv1.Document{}}
	if err := readContent(a, c, &call{method: r.method, service: r.service, request: update}); err != nil {
		return err
	}
	request.Rollout.Content = update.GetDocument().GetContent()
	request.MergePatch, request.JsonPatch = update.GetMergePatch(), update.GetJsonPatch()
	return nil
}

// waitRollout tells where a rollout stands, whenever that is news, until it has ended.
func waitRollout(a *app, c *cobra.Command, i *invocation) error {
	timeout, err := c.Flags().GetDuration("timeout")
	if err != nil {
		return err
	}
	r := i.response.(*configv1.GetRolloutResponse).GetRollout() //nolint:forcetypeassert // the verb's RPC
	told, deadline := "", a.now().Add(timeout)
	for r.GetState() == configv1.RolloutState_ROLLOUT_STATE_RUNNING {
		if now := rolloutProgress(r); now != told {
			a.note(c.ErrOrStderr(), now)
			told = now
		}
		if !a.now().Before(deadline) {
			return &waitError{operation: r.GetName(), stands: rolloutProgress(r), resume: c.CommandPath() + " " + r.GetName()}
		}
		if r, err = a.nextLook(c.Context(), c, i.call); err != nil {
			return err
		}
	}
	i.verb.wide = true
	if err := i.write(a, c, r); err != nil {
		return err
	}
	if r.GetState() == configv1.RolloutState_ROLLOUT_STATE_HALTED {
		return fmt.Errorf("halted: %s", printable(r.GetDetail()))
	}
	return nil
}

func (a *app) nextLook(ctx context.Context, c *cobra.Command, r call) (*configv1.Rollout, error) {
	pause := time.NewTimer(rolloutPause)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-pause.C:
	}
	response, err := a.do(ctx, c, r)
	if err != nil {
		return nil, err
	}
	return response.(*configv1.GetRolloutResponse).GetRollout(), nil //nolint:forcetypeassert // do answers with the method's type
}

// rolloutProgress is one line on where a rollout stands, without times that would make each line another one.
func rolloutProgress(r *configv1.Rollout) string {
	step := "roll call"
	if r.GetStep() > 0 {
		step = fmt.Sprintf("step %d of %d, %d %% of tenants", r.GetStep(), len(r.GetSteps()), r.GetSharePercent())
	}
	h := r.GetHealth()
	return printable(fmt.Sprintf("%s: %s, %d of %d processes have it", r.GetDocument(), step, h.GetApplied(), h.GetReporters()))
}
