package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
)

const (
	operationForm    = "operations/{operation}"
	operationColumns = "OPERATION=name@operations TARGET=metadata.target VERB=metadata.verb PHASE=metadata.phase " +
		"PROGRESS=metadata.progress_percent STARTED=metadata.create_time ENDED=metadata.end_time " +
		"NEXT=metadata.next_time WHY=metadata.last_error.message"
	// waitStep is how long one call waits; the service answers within 25 s.
	waitStep = 20 * time.Second
	// waitPause is the least time between two such calls.
	waitPause = 200 * time.Millisecond
)

func operations() noun {
	return noun{
		name: "operations", short: "Long work, running and ended", service: operationsService, columns: operationColumns,
		verbs: []verb{
			{
				name: "list", rpc: "ListOperations", short: "List operations, the newest first", limit: 50,
				example: "rowhouse operations list\nrowhouse operations list --filter 'target = \"tenants/acme\"'",
			},
			{
				name: "get", rpc: "GetOperation", short: "Show an operation", fields: named(operationForm),
				long: "Show an operation. NEXT is when it goes on if nobody does before: the next try after an error, or, while a\n" +
					"process has it, when another takes over should that one have died. WHY is the last error. -o yaml shows its steps.",
				example: "rowhouse operations get 0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3c -o yaml",
			},
			{
				name: "wait", rpc: "WaitOperation", short: "Wait until an operation has ended, and show its result", fields: named(operationForm),
				long: "Wait until an operation has ended, and show its result. Exit status 3 says that the time ran out first.",
				more: timeoutFlag, before: shortWait, show: showOperation,
				example: "rowhouse operations wait 0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3c --timeout 10m",
			},
			{
				name: "cancel", rpc: "CancelOperation", short: "Ask an operation to stop and undo what it did", fields: named(operationForm),
				example: "rowhouse operations cancel 0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3c",
			},
		},
	}
}

// shortWait makes the first call of a wait return at once: [app.settle] does the waiting.
func shortWait(_ *app, _ *cobra.Command, r *call) error {
	r.request.(*longrunningpb.WaitOperationRequest).Timeout = durationpb.New(time.Millisecond) //nolint:forcetypeassert // the verb's RPC
	return nil
}

func showOperation(a *app, c *cobra.Command, i *invocation) error {
	result, err := a.settle(c.Context(), c, i.response)
	if err != nil {
		return err
	}
	i.verb.wide = false
	if known := columnsFor(result); known != "" {
		i.noun.columns = known
	}
	return i.write(a, c, result)
}

// columnsFor are the columns of the noun that a resource belongs to.
func columnsFor(resource proto.Message) string {
	name := nameOf(resource.ProtoReflect())
	for _, n := range nouns() {
		if strings.HasPrefix(name, n.name+"/") {
			return n.columns
		}
	}
	return ""
}

// settle returns the result of the operation in a response: what it made when it has ended, and the operation itself
// when the caller does not wait.
func (a *app) settle(ctx context.Context, c *cobra.Command, response proto.Message) (proto.Message, error) {
	op, resource := parts(response)
	if op == nil {
		return resource, nil
	}
	wait, timeout, err := a.patience(c)
	if err != nil {
		return nil, err
	}
	if !op.GetDone() && !wait {
		return op, nil
	}
	if !op.GetDone() {
		if op, err = a.wait(ctx, c, op, timeout); err != nil {
			return nil, err
		}
	}
	if failed := op.GetError(); failed != nil {
		return nil, operationError(op.GetName(), failed)
	}
	if made, err := op.GetResponse().UnmarshalNew(); err == nil && made.ProtoReflect().Descriptor().Fields().Len() > 0 {
		return made, nil
	}
	if resource == nil {
		return op, nil
	}
	return resource, nil
}

// parts are the operation and the resource of a response; either may be nil.
func parts(response proto.Message) (*longrunningpb.Operation, proto.Message) {
	if op, ok := response.(*longrunningpb.Operation); ok {
		return op, nil
	}
	m := response.ProtoReflect()
	var resource proto.Message
	if fd := resourceField(m.Descriptor()); fd != nil {
		resource = m.Get(fd).Message().Interface()
	}
	fd := m.Descriptor().Fields().ByName("operation")
	if fd == nil || !m.Has(fd) {
		return nil, resource
	}
	op, _ := m.Get(fd).Message().Interface().(*longrunningpb.Operation)
	return op, resource
}

// patience is whether and how long the caller waits.
func (a *app) patience(c *cobra.Command) (wait bool, timeout time.Duration, err error) {
	f := c.Flags()
	if timeout, err = f.GetDuration("timeout"); err != nil || f.Lookup("wait") == nil { // the command is for waiting
		return true, timeout, err
	}
	if !f.Changed("wait") {
		return a.terminal(c.OutOrStdout()), timeout, nil
	}
	wait, err = f.GetBool("wait")
	return wait, timeout, err
}

// wait waits for an operation's end and tells its steps on a terminal.
func (a *app) wait(
	ctx context.Context, c *cobra.Command, op *longrunningpb.Operation, timeout time.Duration,
) (*longrunningpb.Operation, error) {
	name, told, deadline := op.GetName(), "", a.now().Add(timeout)
	r := newCall(method(operationsService, "WaitOperation"))
	for !op.GetDone() {
		if now := progress(op); now != told {
			a.note(c.ErrOrStderr(), now)
			told = now
		}
		step := min(waitStep, deadline.Sub(a.now()))
		if step <= 0 {
			return nil, &waitError{operation: name, stands: progress(op)}
		}
		r.request = &longrunningpb.WaitOperationRequest{Name: name, Timeout: durationpb.New(step)}
		pause := time.NewTimer(min(waitPause, step))
		response, err := a.do(ctx, c, r)
		if err != nil {
			pause.Stop()
			return nil, &waitError{operation: name, cause: err}
		}
		if op, _ = response.(*longrunningpb.Operation); !op.GetDone() { // do answers with the method's type
			<-pause.C // shorter than a person's patience; a service that answers too early is not hammered
		}
		pause.Stop()
	}
	return op, nil
}

// lostWait is err, and where a wait could not reach tenancy how to go on.
func lostWait(r call, err error) error {
	waiting, ok := r.request.(*longrunningpb.WaitOperationRequest)
	if c := code(err); !ok || c != codes.Unavailable && c != codes.DeadlineExceeded {
		return err
	}
	return &waitError{operation: waiting.GetName(), cause: err}
}

// progress is one line on where an operation stands.
func progress(op *longrunningpb.Operation) string {
	meta := &apiv1.OperationMetadata{}
	if op.GetMetadata().UnmarshalTo(meta) != nil {
		return op.GetName()
	}
	line := fmt.Sprintf("%s %s: %s", meta.GetVerb(), meta.GetTarget(), enumText(meta.GetPhase().Descriptor(), meta.GetPhase().Number()))
	current := func(s *apiv1.OperationStep) bool { return s.GetEndTime() == nil }
	if i := slices.IndexFunc(meta.GetSteps(), current); i >= 0 {
		line += ", " + meta.GetSteps()[i].GetName()
	}
	if waiting := meta.GetLaggards(); len(waiting) > 0 {
		line += ", waiting for " + strings.Join(waiting, ", ")
	}
	if last := meta.GetLastError(); last != nil {
		line += " (" + statusLine(grpcstatus.FromProto(last)) + ")"
	}
	return printable(line)
}

// operationError is the error with which an operation ended.
func operationError(name string, failed *status.Status) error {
	return &callError{err: grpcstatus.ErrorProto(failed), method: name}
}
