package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rowhouse-platform/rowhouse/internal/prove"
	"github.com/rowhouse-platform/rowhouse/sdk/nearest"
)

// Exit statuses beside 0 and 1.
const (
	exitUsage   = 2
	exitTimeout = 3
	exitAccess  = 4
	exitPartly  = 5
)

// mistake is an error in the command line: nothing was sent.
type mistake struct{ error }

func (m mistake) Unwrap() error { return m.error }

// usageError marks an error as a mistake in the command line.
func usageError(err error) error {
	if err == nil {
		return nil
	}
	return mistake{err}
}

func usagef(format string, args ...any) error { return mistake{fmt.Errorf(format, args...)} }

// callError is the error of a call, with what finds it again.
type callError struct {
	err                error
	service, method    string // of an operation: none and its name
	requestID, traceID string
	verbose, changes   bool
	raw                bool // made of JSON, by no verb with flags
}

func (e *callError) Error() string { return e.method + ": " + e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

// waitError says that an operation had not ended when we stopped waiting for it.
type waitError struct {
	operation string
	stands    string // where it stood when the time was over
	resume    string // how to wait on, unless it is an operation
	cause     error
}

func (e *waitError) Error() string {
	why := "has not ended yet"
	if e.stands != "" && e.stands != e.operation {
		why += " (" + e.stands + ")"
	}
	if e.cause != nil && !errors.Is(e.cause, context.Canceled) {
		why = "goes on, but waiting for it failed: " + Line(e.cause)
	}
	return fmt.Sprintf("%s %s; resume with: %s", e.operation, why, cmp.Or(e.resume, "rowhouse operations wait "+e.operation))
}

func (e *waitError) Unwrap() error { return e.cause }

// Line tells an error in one line, with its reason and, where there is one, the next step. Of a call in which several
// things are wrong each has a line of its own below.
func Line(err error) string {
	var wait *waitError
	var stopped *stoppedError
	var proposal *proposalError
	var call *callError
	switch {
	case errors.As(err, &proposal):
		return oneLine(proposal.Error())
	case errors.As(err, &stopped):
		return oneLine(stopped.Error())
	case errors.As(err, &wait):
		return oneLine(wait.Error())
	case errors.As(err, &call):
		return linesOf(call.line())
	}
	if s := statusOf(err); s != nil {
		return linesOf(statusText(s, ""))
	}
	return oneLine(err.Error())
}

// linesOf puts what is wrong below what happened.
func linesOf(first string, below []string) string {
	lines := []string{oneLine(first)}
	for _, line := range below {
		lines = append(lines, "  "+oneLine(line))
	}
	return strings.Join(lines, "\n")
}

func oneLine(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return printable(strings.Join(lines, "; "))
}

// line is what happened, and below it what is wrong if that are several things.
func (e *callError) line() (line string, below []string) {
	s := statusOf(e.err)
	if s == nil {
		s = status.Convert(e.err)
	}
	prefix := ""
	if s.Code() == codes.Unavailable && len(s.Details()) == 0 && e.service != "" { // gRPC's own words
		prefix = "cannot reach " + e.service + ": "
	}
	line, below = statusText(s, prefix)
	if next := nextStep(s, e); next != "" {
		line += "; " + next
	}
	if e.verbose {
		line += " [" + e.ids() + "]"
	}
	return line, below
}

// ids are what finds the call in logs, traces and audit chains.
func (e *callError) ids() string {
	ids := e.method
	if e.requestID != "" {
		ids += " request_id=" + e.requestID
	}
	return ids + " trace_id=" + e.traceID
}

// statusOf is the status below what gRPC's retries put around it, or nil.
func statusOf(err error) *status.Status {
	var inner interface {
		error
		GRPCStatus() *status.Status
	}
	if !errors.As(err, &inner) {
		return nil
	}
	return inner.GRPCStatus()
}

// statusLine is a status' message, the fields that it complains of, and its reason.
func statusLine(s *status.Status) string {
	line, below := statusText(s, "")
	return strings.Join(append([]string{line}, below...), ", ")
}

// statusText is a status' message with its reason, and the fields that it complains of: one that the message does not
// name stands with it, several stand below.
func statusText(s *status.Status, prefix string) (line string, below []string) {
	line, reason := s.Message(), s.Code().String()
	if _, cause, transport := strings.Cut(line, `connection error: desc = "`); transport {
		line = strings.TrimPrefix(strings.TrimSuffix(cause, `"`), "transport: Error while dialing: ")
	}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
			if trace := d.GetMetadata()["traceId"]; trace != "" {
				reason += ", trace " + trace
			}
		case *errdetails.BadRequest:
			below = append(below, unsaid(line, d)...)
		}
	}
	if len(below) == 1 {
		line, below = line+": "+below[0], nil
	}
	for i := range below {
		below[i] = inWords(below[i])
	}
	return inWords(prefix + line + " (" + reason + ")"), below
}

// inWords tells the form of an id or a name where a service says a regular expression.
func inWords(line string) string {
	const id = "[a-z](-?[a-z0-9])*"
	pattern := regexp.MustCompile("does not match regex pattern `\\^(.*?)\\$`")
	return pattern.ReplaceAllStringFunc(line, func(said string) string {
		form := pattern.FindStringSubmatch(said)[1]
		if form == id {
			return "must be lower-case letters, digits and single hyphens between them, beginning with a letter"
		}
		if form == `([a-z][a-z0-9_]*\.)*([a-z][a-z0-9_]*|\*)` {
			return "must be a type of events such as settings.updated, or settings.* for all that begin so; of all events without any"
		}
		form = strings.NewReplacer(id, "{id}", "[a-z](-?[a-z0-9]){2,62}", "{id}", "[a-z0-9._-]+", "{host}").Replace(form)
		if strings.ContainsAny(form, `[]*+?\`) {
			return said // in nobody's words, but whole
		}
		return "must have the form " + form
	})
}

// unsaid are the bad fields that a message does not name itself. A place within a field, as in
// "document.content/flags/a", is named when the field is and what is said of it: that begins with the place.
func unsaid(line string, bad *errdetails.BadRequest) []string {
	var fields []string
	said := strings.ReplaceAll(line, ": ", " ")
	for _, v := range bad.GetFieldViolations() {
		field, _, within := strings.Cut(v.GetField(), "/")
		whole := strings.TrimSpace(v.GetField() + " " + v.GetDescription())
		if within && strings.Contains(line, field+" "+v.GetDescription()) || strings.Contains(said, strings.ReplaceAll(whole, ": ", " ")) {
			continue
		}
		fields = append(fields, whole)
	}
	return fields
}

// nextStep says what the operator can do about an error.
func nextStep(s *status.Status, e *callError) string {
	info, delay := &errdetails.ErrorInfo{}, ""
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			delay = " in " + d.GetRetryDelay().AsDuration().String()
		}
	}
	if operation := info.GetMetadata()["operation"]; operation != "" {
		return "wait for it: rowhouse operations wait " + operation
	}
	if permission := info.GetMetadata()["permission"]; permission != "" {
		return "ask for a role with " + permission
	}
	if info.GetReason() == "RESOURCE_NOT_FOUND" {
		return listOf(s.Message(), e.method)
	}
	if info.GetReason() == "APPROVAL_REQUIRED" && !strings.HasPrefix(e.method, "ChangeService/") {
		return "propose it to others: rowhouse config changes create"
	}
	if step := steps()[info.GetReason()]; step != "" {
		return step
	}
	if step := flagsOf(s, e.method); step != "" && !e.raw {
		return step
	}
	if e.service == "" {
		return "see its steps: rowhouse operations get " + e.method + " -o yaml"
	}
	switch s.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		where := "see that " + e.service + " runs where the context says (rowhouse contexts list)"
		if e.changes {
			return where + "; repeat safely with --request-id " + e.requestID
		}
		return where
	case codes.ResourceExhausted:
		return "try again" + delay
	case codes.Unauthenticated:
		return "see that the context's token_file holds a valid token"
	default:
		return ""
	}
}

// listOf is the command that lists what there is beside a resource that is missing, by
// the message that names it: "tenants/acme/domains/x does not exist". It is "" where no
// command does.
func listOf(message, called string) string {
	resource, _, _ := strings.Cut(message, " ")
	parts := strings.Split(resource, "/")
	if len(parts)%2 != 0 { // tenants/acme/placement
		parts = parts[:len(parts)-1]
	}
	if len(parts) < 2 { // not named: what the call was about
		return listsOf(func(n noun) bool {
			return lastPart(n.service) == called[:max(0, strings.Index(called, "/"))] && n.listsAll()
		})
	}
	collection, owner := parts[len(parts)-2], parts[:len(parts)-2]
	step := listsOf(func(n noun) bool { return n.name == collection })
	switch {
	case step == "" || len(owner) == 0:
	case len(owner) == 2 && (owner[0] == "tenants" || owner[0] == "apps"):
		step += " " + owner[1]
	default:
		step += " " + strings.Join(owner, "/")
	}
	return step
}

// listsOf is the list command of the first noun like this that has one.
func listsOf(like func(noun) bool) string {
	for _, n := range nouns() {
		if like(n) && n.verbNamed("list") != nil {
			return "see what there is: rowhouse " + strings.TrimSpace(n.below+" "+n.name) + " list"
		}
	}
	return ""
}

// verbNamed is the noun's verb of a name, or nil.
func (n noun) verbNamed(name string) *verb {
	if i := slices.IndexFunc(n.verbs, func(v verb) bool { return v.name == name }); i >= 0 {
		return &n.verbs[i]
	}
	return nil
}

// listsAll says whether the noun's list needs no argument.
func (n noun) listsAll() bool {
	list := n.verbNamed("list")
	return list != nil && !slices.ContainsFunc(list.fields, func(f field) bool { return !strings.Contains(f.form, "=") })
}

// flagsOf names the flags that set the fields which a service complains of.
func flagsOf(s *status.Status, called string) string {
	var bad []string
	for _, d := range s.Details() {
		if d, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range d.GetFieldViolations() {
				bad = append(bad, v.GetField())
			}
		}
	}
	service, rpc, _ := strings.Cut(called, "/")
	var names []string
	for _, n := range nouns() {
		for _, v := range n.verbs {
			if v.rpc != rpc || lastPart(n.serviceOf(v)) != service {
				continue
			}
			for _, f := range v.flags {
				if slices.Contains(bad, f.path) && !slices.Contains(names, f.flagName()) {
					names = append(names, f.flagName())
				}
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "see --" + strings.Join(names, ", --")
}

// steps are the next steps by reason.
func steps() map[string]string {
	return map[string]string{
		"ETAG_MISMATCH":       "it changed meanwhile: read it again, then repeat with the new --etag",
		"REASON_REQUIRED":     "pass --reason",
		"PAGE_TOKEN_INVALID":  "start the list again",
		"REQUEST_ID_REUSED":   "leave out --request-id",
		"NOT_DELETED":         "there is nothing to restore",
		"DELETE_PROTECTED":    "lift the protection first: --delete-protection=false",
		"TENANT_HAS_CHILDREN": "see its children: rowhouse tenants list --filter 'parent = \"tenants/ID\"'",
		"TENANT_ID_TAKEN":     "choose another id; deleted tenants keep theirs: rowhouse tenants list --show-deleted",
		"METHOD_UNKNOWN":      "the service is older than this command line",
		"SETTING_LOCKED":      "see who may set it: rowhouse config explain TENANT NAMESPACE",
		"SETTING_CLAMPED":     "see the bounds: rowhouse config explain TENANT NAMESPACE -o json",
		"SCHEMA_VIOLATION":    "see the schema: rowhouse namespaces get NAMESPACE -o json",
		"MIGRATIONS_TOO_MANY": "the limit is fixed: trying again does not help",
	}
}

// ExitCode returns the exit status for an error: 2 for a mistake in the command line, 3 for time that ran out, 4 for a
// caller who is not known or not allowed, 5 for a proof that did not look at all that it was to or a comparison that was
// not made, and other for all else.
func ExitCode(err error, other int) int {
	var m mistake
	var blind auditError
	var wait *waitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &m), errors.As(err, &blind):
		return exitUsage
	case errors.As(err, &wait) && wait.cause == nil:
		return exitTimeout
	case isIncomplete(err):
		return exitPartly
	}
	switch code(err) {
	case codes.DeadlineExceeded:
		return exitTimeout
	case codes.Unauthenticated, codes.PermissionDenied:
		return exitAccess
	}
	if _, ok := errors.AsType[blindError](err); ok {
		return exitPartly
	}
	return other
}

func isIncomplete(err error) bool {
	v, ok := errors.AsType[verdictError](err)
	return ok && v.report.Verdict == prove.Incomplete
}

func code(err error) codes.Code {
	if errors.Is(err, context.DeadlineExceeded) {
		return codes.DeadlineExceeded
	}
	if call, ok := errors.AsType[*callError](err); ok {
		return status.Code(call.err)
	}
	return status.Code(err)
}

// closedPipe says that the reader of our output went away, which is its right.
func closedPipe(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)
}

// commandMistake is the error for a noun or verb that does not exist.
func commandMistake(c *cobra.Command, got string) error {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return usagef("%s has no command %q%s; see: %s --help", c.CommandPath(), got, didYouMean(got, names, ""), c.CommandPath())
}

// flagMistake is the error for a flag that does not exist or has a bad value.
func flagMistake(c *cobra.Command, err error) error {
	got, unknown := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !unknown {
		return usagef("%w; see: %s --help", err, c.CommandPath())
	}
	var names []string
	usages := c.Flags().FlagUsages() + c.InheritedFlags().FlagUsages()
	for _, found := range regexp.MustCompile(`--([a-z][a-z0-9-]*)`).FindAllStringSubmatch(usages, -1) {
		names = append(names, found[1])
	}
	hint := didYouMean(got, names, "--")
	if other := synonyms()[got]; slices.Contains(names, other) {
		hint = "; did you mean --" + other + "?"
	}
	return usagef("%s has no flag --%s%s; see: %s --help", c.CommandPath(), got, hint, c.CommandPath())
}

// synonyms are flags that people try, and the flags that do what they mean, where a command has those.
func synonyms() map[string]string {
	return map[string]string{"colour": "primary", "color": "primary", "foreground": "text", "title": "name", "icon": "logo"}
}

// didYouMean names the candidate that what was typed begins, or else the nearest; nothing when none is near.
func didYouMean(got string, candidates []string, prefix string) string {
	begun := func(c string) bool { return got != "" && strings.HasPrefix(c, got) }
	if i := slices.IndexFunc(candidates, begun); i >= 0 {
		return "; did you mean " + prefix + candidates[i] + "?"
	}
	if near := nearest.Name(got, candidates); near != "" {
		return "; did you mean " + prefix + near + "?"
	}
	return ""
}
