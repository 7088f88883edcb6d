package cli

import (
	"context"
	"strings"
	"testing"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

func refusal(t *testing.T, code codes.Code, message string, details ...protoadapt.MessageV1) error {
	t.Helper()
	s, err := status.New(code, message).WithDetails(details...)
	if err != nil {
		t.Fatal(err)
	}
	return s.Err()
}

func reason(name string, metadata ...string) *errdetails.ErrorInfo {
	info := &errdetails.ErrorInfo{Reason: name, Domain: "rowhouse.api", Metadata: map[string]string{}}
	for i := 0; i+1 < len(metadata); i += 2 {
		info.Metadata[metadata[i]] = metadata[i+1]
	}
	return info
}

func TestErrorsOfServices(t *testing.T) {
	t.Parallel()
	fields := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "plan", Description: "is unknown"}}}
	flags := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: "tenant.display_name", Description: "is too long"}, {Field: "tenant.plan", Description: "is unknown"},
	}}
	const broken = "is not acceptable: /a/b: broken JSON"
	place := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "document.content/a/b", Description: broken}}}
	for name, tt := range map[string]struct {
		err  error
		code int
		want string
	}{
		"place, said":  {refusal(t, codes.InvalidArgument, "document.content "+broken, reason("MALFORMED_DOCUMENT"), place), 1, "rowhouse: document.content " + broken + " (MALFORMED_DOCUMENT)\n"},
		"flags":        {refusal(t, codes.InvalidArgument, "bad request", reason("INVALID_FIELD"), flags), 1, "rowhouse: bad request (INVALID_FIELD); see --display-name, --plan\n  tenant.display_name is too long\n  tenant.plan is unknown\n"},
		"not found":    {refusal(t, codes.NotFound, "there is no such tenant", reason("RESOURCE_NOT_FOUND")), 1, "rowhouse: there is no such tenant (RESOURCE_NOT_FOUND); see what there is: rowhouse tenants list\n"},
		"no placement": {refusal(t, codes.NotFound, "tenants/acme/placement does not exist", reason("RESOURCE_NOT_FOUND")), 1, "rowhouse: tenants/acme/placement does not exist (RESOURCE_NOT_FOUND); see what there is: rowhouse tenants list\n"},
		"no migration": {refusal(t, codes.NotFound, "apps/notes/migrations/0001_x does not exist", reason("RESOURCE_NOT_FOUND")), 1, "rowhouse: apps/notes/migrations/0001_x does not exist (RESOURCE_NOT_FOUND); see what there is: rowhouse migrations list notes\n"},
		"no event":     {refusal(t, codes.NotFound, "chains/platform/events/9 does not exist", reason("RESOURCE_NOT_FOUND")), 1, "rowhouse: chains/platform/events/9 does not exist (RESOURCE_NOT_FOUND)\n"},
		"too many":     {refusal(t, codes.ResourceExhausted, "too many", reason("MIGRATIONS_TOO_MANY")), 1, "rowhouse: too many (MIGRATIONS_TOO_MANY); the limit is fixed: trying again does not help\n"},
		"no tenant":    {refusal(t, codes.NotFound, "tenants/acme does not exist", reason("RESOURCE_NOT_FOUND")), 1, "rowhouse: tenants/acme does not exist (RESOURCE_NOT_FOUND); see what there is: rowhouse tenants list\n"},
		"no domain":    {refusal(t, codes.NotFound, "tenants/acme/domains/a.example does not exist", reason("RESOURCE_NOT_FOUND")), 1, "rowhouse: tenants/acme/domains/a.example does not exist (RESOURCE_NOT_FOUND); see what there is: rowhouse domains list acme\n"},
		"no limit":     {refusal(t, codes.NotFound, "plans/free/limits/x does not exist", reason("RESOURCE_NOT_FOUND")), 1, "rowhouse: plans/free/limits/x does not exist (RESOURCE_NOT_FOUND); see what there is: rowhouse limits list plans/free\n"},
		"schema":       {refusal(t, codes.InvalidArgument, "the write breaks it", reason("SCHEMA_VIOLATION")), 1, "rowhouse: the write breaks it (SCHEMA_VIOLATION); see the schema: rowhouse namespaces get NAMESPACE -o json\n"},
		"an id":        {refusal(t, codes.InvalidArgument, "tenant_id: does not match regex pattern `^[a-z](-?[a-z0-9])*$`", reason("INVALID_FIELD")), 1, "rowhouse: tenant_id: must be lower-case letters, digits and single hyphens between them, beginning with a letter (INVALID_FIELD)\n"},
		"a name":       {refusal(t, codes.InvalidArgument, "name: does not match regex pattern `^tenants/[a-z](-?[a-z0-9])*/domains/[a-z0-9._-]+$`", reason("INVALID_FIELD")), 1, "rowhouse: name: must have the form tenants/{id}/domains/{host} (INVALID_FIELD)\n"},
		"no type":      {refusal(t, codes.InvalidArgument, "webhook.event_types[0]: does not match regex pattern `^([a-z][a-z0-9_]*\\.)*([a-z][a-z0-9_]*|\\*)$`", reason("INVALID_FIELD")), 1, "rowhouse: webhook.event_types[0]: must be a type of events such as settings.updated, or settings.* for all that begin so; of all events without any (INVALID_FIELD)\n"},
		"a pattern":    {refusal(t, codes.InvalidArgument, "x: does not match regex pattern `^[0-9]+$`", reason("INVALID_FIELD")), 1, "rowhouse: x: does not match regex pattern `^[0-9]+$` (INVALID_FIELD)\n"},
		"fields":       {refusal(t, codes.InvalidArgument, "bad request", reason("INVALID_FIELD"), fields), 1, "rowhouse: bad request: plan is unknown (INVALID_FIELD)\n"},
		"field, said":  {refusal(t, codes.InvalidArgument, "plan is unknown", reason("INVALID_FIELD"), fields), 1, "rowhouse: plan is unknown (INVALID_FIELD)\n"},
		"field: said":  {refusal(t, codes.InvalidArgument, "plan: is unknown", reason("INVALID_FIELD"), fields), 1, "rowhouse: plan: is unknown (INVALID_FIELD)\n"},
		"no token":     {refusal(t, codes.Unauthenticated, "the call needs a credential", reason("CREDENTIAL_MISSING")), 4, "rowhouse: the call needs a credential (CREDENTIAL_MISSING); see that the context's token_file holds a valid token\n"},
		"no right":     {refusal(t, codes.PermissionDenied, "not allowed", reason("PERMISSION_MISSING", "permission", "tenancy.tenants.update")), 4, "rowhouse: not allowed (PERMISSION_MISSING); ask for a role with tenancy.tenants.update\n"},
		"busy":         {refusal(t, codes.Aborted, "busy", reason("CONCURRENT_OPERATION", "operation", "operations/7")), 1, "rowhouse: busy (CONCURRENT_OPERATION); wait for it: rowhouse operations wait operations/7\n"},
		"load":         {refusal(t, codes.ResourceExhausted, "too much", reason("OVERLOADED"), &errdetails.RetryInfo{RetryDelay: durationpb.New(2e9)}), 1, "rowhouse: too much (OVERLOADED); try again in 2s\n"},
		"no service":   {refusal(t, codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`), 1, "rowhouse: cannot reach tenancy: dial tcp 127.0.0.1:1: connect: connection refused (Unavailable); see that tenancy runs where the context says (rowhouse contexts list); repeat safely with --request-id " + requestID + "\n"},
		"lost":         {refusal(t, codes.Unavailable, "lost", reason("OUTCOME_UNKNOWN")), 1, "rowhouse: lost (OUTCOME_UNKNOWN); see that tenancy runs where the context says (rowhouse contexts list); repeat safely with --request-id " + requestID + "\n"},
		"late":         {refusal(t, codes.DeadlineExceeded, "late"), 3, "rowhouse: late (DeadlineExceeded); see that tenancy runs where the context says (rowhouse contexts list); repeat safely with --request-id " + requestID + "\n"},
		"defect":       {refusal(t, codes.Internal, "internal error", reason("INTERNAL", "traceId", "abc")), 1, "rowhouse: internal error (INTERNAL, trace abc)\n"},
		"evil":         {refusal(t, codes.Unknown, "a\n\x1b[2Jb"), 1, "rowhouse: a; \\x1b[2Jb (Unknown)\n"},
		"no metadata":  {status.Error(codes.FailedPrecondition, "no"), 1, "rowhouse: no (FailedPrecondition)\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &house{answers: map[string]answer{"TenantService/UpdateTenant": refuse(tt.err)}}
			if got := h.run(t, "tenants", "update", "acme", "--plan", "x"); got != (result{tt.code, "", tt.want}) {
				t.Errorf("got %+v, want %d, %q", got, tt.code, tt.want)
			}
		})
	}
}

func TestVerbose(t *testing.T) {
	t.Parallel()
	h := &house{answers: map[string]answer{"TenantService/UpdateTenant": refuse(status.Error(codes.NotFound, "no"))}}
	got := h.run(t, "-v", "tenants", "update", "acme", "--plan", "x")
	const trace = "00000000000040008000000000000002"
	ids := "request_id=" + requestID + " trace_id=" + trace
	if want := "TenantService/UpdateTenant " + ids + "\nrowhouse: no (NotFound) [TenantService/UpdateTenant " + ids + "]\n"; got.err != want {
		t.Errorf("said %q, want %q", got.err, want)
	}
	if parent := h.calls()[0].header.Get("traceparent"); len(parent) != 1 || !strings.HasPrefix(parent[0], "00-"+trace+"-") {
		t.Errorf("traceparent %q, want the trace %s", parent, trace)
	}
}

func TestUnsoundChainIsAnError(t *testing.T) {
	t.Parallel()
	h := &house{answers: map[string]answer{"AuditService/VerifyChain": always(&auditv1.VerifyChainResponse{Events: 5, FirstBadSeq: 3, Problem: "hash"})}}
	got := h.run(t, "audit", "verify", "platform")
	if got.code != 1 || !strings.Contains(got.err, "event 3: hash") || got.out != "false\t5\t3\thash\t\n" {
		t.Errorf("got %+v", got)
	}
	h.answers["AuditService/VerifyChain"] = always(&auditv1.VerifyChainResponse{Sound: true, Events: 5, Head: []byte{0xab}})
	if got := h.run(t, "audit", "verify", "platform"); got != (result{0, "true\t5\t0\t\tab\n", ""}) {
		t.Errorf("got %+v", got)
	}
}

// operation is acme's suspension.
func operation(t *testing.T, phase apiv1.OperationPhase, result proto.Message) *longrunningpb.Operation {
	t.Helper()
	pack := func(m proto.Message) *anypb.Any {
		packed, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		return packed
	}
	op := &longrunningpb.Operation{Name: "operations/7", Metadata: pack(&apiv1.OperationMetadata{
		Target: "tenants/acme", Verb: "suspend", Phase: phase, Laggards: []string{"gateway-1"},
	})}
	if result != nil {
		op.Done, op.Result = true, &longrunningpb.Operation_Response{Response: pack(result)}
	}
	return op
}

// suspension runs a suspension whose operation is at first running, then what later says.
func suspension(t *testing.T, terminal bool, later answer) *house {
	t.Helper()
	return &house{terminal: terminal, env: map[string]string{"NO_COLOR": "1"}, answers: map[string]answer{
		"TenantService/SuspendTenant": always(&tenancyv1.SuspendTenantResponse{
			Operation: operation(t, apiv1.OperationPhase_OPERATION_PHASE_RUNNING, nil), Tenant: tenant("acme", "before"),
		}),
		"Operations/WaitOperation": later,
	}}
}

func TestOperations(t *testing.T) {
	t.Parallel()
	done := always(operation(t, apiv1.OperationPhase_OPERATION_PHASE_SUCCEEDED, tenant("acme", "after")))
	failed := operation(t, apiv1.OperationPhase_OPERATION_PHASE_FAILED, nil)
	failed.Done = true
	failed.Result = &longrunningpb.Operation_Error{Error: status.New(codes.Unavailable, "no cell").Proto()}
	running := always(operation(t, apiv1.OperationPhase_OPERATION_PHASE_RUNNING, nil))
	suspend := "tenants suspend acme --cause abuse --reason x --confirm acme "
	const row = "acme\tafter\tbusiness\tactive\tshared\tcell-1\t2026-10-01T12:30:00Z\n"
	resume := "rowhouse: operations/7 has not ended yet (suspend tenants/acme: running, waiting for gateway-1); " +
		"resume with: rowhouse operations wait operations/7\n"
	for name, tt := range map[string]struct {
		line     string
		terminal bool
		later    answer
		want     result
	}{
		"no terminal, no wait":   {suspend, false, done, result{0, "7\ttenants/acme\tsuspend\trunning\t0\t\t\t\t\n", ""}},
		"its name":               {suspend + "-o name", false, done, result{0, "operations/7\n", ""}},
		"wait":                   {suspend + "--wait", false, done, result{0, row, ""}},
		"terminal waits":         {suspend + "-o tsv", true, done, result{0, row, "suspend tenants/acme: running, waiting for gateway-1\n"}},
		"terminal does not wait": {suspend + "-o name --wait=false", true, done, result{0, "operations/7\n", ""}},
		"time runs out":          {suspend + "--wait --timeout 1ms", false, running, result{3, "", resume}},
		"no time":                {suspend + "--wait --timeout 0s", false, done, result{3, "", resume}},
		"failed":                 {suspend + "--wait", false, always(failed), result{1, "", "rowhouse: no cell (Unavailable); see its steps: rowhouse operations get operations/7 -o yaml\n"}},
		"lost": {suspend + "--wait", false, refuse(status.Error(codes.Unauthenticated, "expired")), result{4, "", "rowhouse: operations/7 goes on, but waiting for it failed: expired (Unauthenticated); " +
			"see that the context's token_file holds a valid token; resume with: rowhouse operations wait operations/7\n"}},
		"tenancy is gone": {suspend + "--wait", false, refuse(status.Error(codes.Unavailable, "gone")), result{1, "", "rowhouse: operations/7 goes on, but waiting for it failed: " +
			"cannot reach tenancy: gone (Unavailable); see that tenancy runs where the context says (rowhouse contexts list); resume with: rowhouse operations wait operations/7\n"}},
		"gone from the start": {"operations wait 7", false, refuse(status.Error(codes.Unavailable, "gone")), result{1, "", "rowhouse: operations/7 goes on, but waiting for it failed: " +
			"cannot reach tenancy: gone (Unavailable); see that tenancy runs where the context says (rowhouse contexts list); resume with: rowhouse operations wait operations/7\n"}},
		"no such one": {"operations wait 7", false, refuse(refusal(t, codes.NotFound, "operations/7 does not exist", reason("RESOURCE_NOT_FOUND"))), result{1, "",
			"rowhouse: operations/7 does not exist (RESOURCE_NOT_FOUND); see what there is: rowhouse operations list\n"}},
		"resumed":           {"operations wait operations/7", false, done, result{0, row, ""}},
		"resumed by id":     {"operations wait 7 --timeout 5s", false, done, result{0, row, ""}},
		"resumed, too long": {"operations wait 7 --timeout 1ms", false, running, result{3, "", resume}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := suspension(t, tt.terminal, tt.later).run(t, strings.Fields(tt.line)...); got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestInterruptedWait(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	h := suspension(t, false, func(ctx context.Context, _ proto.Message) (proto.Message, error) {
		interrupt()
		<-ctx.Done()
		return nil, ctx.Err()
	})
	got := h.runIn(ctx, t, strings.Fields("tenants suspend acme --cause abuse --reason x --confirm acme --wait")...)
	if got.code != 1 || !strings.Contains(got.err, "resume with: rowhouse operations wait operations/7") {
		t.Errorf("got %+v, want 1 and how to resume", got)
	}
}
