package quota_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

const rules = `
domain: DOMAIN
descriptors:
  - key: user
    rate_limit: {unit: hour, requests_per_unit: 3}
  - key: path
    value: /login
    rate_limit: {unit: minute, requests_per_unit: 5, name: logins}
`

// file is a file of envoyproxy/ratelimit for a domain.
func file(domain string) *quotav1.RateLimitFile {
	return &quotav1.RateLimitFile{Name: domain + ".yaml", Content: strings.Replace(rules, "DOMAIN", domain, 1)}
}

func imports(files ...*quotav1.RateLimitFile) *quotav1.ImportRateLimitConfigRequest {
	return &quotav1.ImportRateLimitConfigRequest{Parent: "platform", Files: files}
}

func TestImportRateLimitConfig(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	dry := imports(file("edge"))
	dry.ValidateOnly = true
	checked, err := a.ImportRateLimitConfig(ctx, dry)
	r.need(err)
	if d := checked.GetDomains(); len(d) != 1 || d[0].GetName() != "rateLimitDomains/edge" || d[0].GetLimits() != 2 {
		t.Errorf("checked %v", checked)
	}
	_, err = a.GetRateLimitDomain(ctx, &quotav1.GetRateLimitDomainRequest{Name: "rateLimitDomains/edge"})
	refused(t, "after a check", err, codes.NotFound, fault.ReasonResourceNotFound)

	made, err := a.ImportRateLimitConfig(ctx, imports(file("edge"), file("default/eg/http")))
	r.need(err)
	got, err := a.GetRateLimitDomain(ctx, &quotav1.GetRateLimitDomainRequest{Name: "rateLimitDomains/edge"})
	r.need(err)
	if got.GetDomain().GetYaml() != file("edge").GetContent() || got.GetDomain().GetFile() != "edge.yaml" {
		t.Errorf("got %v", got)
	}
	got.Domain.Yaml = ""
	if diff := cmp.Diff(made.GetDomains()[0], got.GetDomain(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	again, err := a.ImportRateLimitConfig(ctx, imports(file("edge")))
	r.need(err)
	if diff := cmp.Diff(made.GetDomains()[0], again.GetDomains()[0], protocmp.Transform()); diff != "" {
		t.Errorf("the same file changed something: %s", diff)
	}
	changed := file("edge")
	changed.Content = strings.Replace(changed.GetContent(), "requests_per_unit: 3", "requests_per_unit: 4", 1)
	after, err := a.ImportRateLimitConfig(ctx, imports(changed))
	r.need(err)
	one := after.GetDomains()[0]
	if one.GetUid() != made.GetDomains()[0].GetUid() || one.GetRevision() <= made.GetDomains()[0].GetRevision() || one.GetEtag() == made.GetDomains()[0].GetEtag() {
		t.Errorf("another file: %v, before %v", one, made.GetDomains()[0])
	}
	_, err = a.DeleteRateLimitDomain(ctx, &quotav1.DeleteRateLimitDomainRequest{Name: one.GetName(), Etag: `"x"`})
	refused(t, "delete an old state", err, codes.Aborted, fault.ReasonEtagMismatch)
	_, err = a.DeleteRateLimitDomain(ctx, &quotav1.DeleteRateLimitDomainRequest{Name: "rateLimitDomains/default/eg/http"})
	r.need(err)
	_, err = a.DeleteRateLimitDomain(ctx, &quotav1.DeleteRateLimitDomainRequest{Name: "rateLimitDomains/default/eg/http"})
	refused(t, "delete twice", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.DeleteRateLimitDomain(ctx, &quotav1.DeleteRateLimitDomainRequest{Name: "rateLimitDomains/none", AllowMissing: true})
	r.need(err)
}

// A repeat with the same request_id gets the first answer; another request under it is refused.
func TestImportReplays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	req := imports(file("edge"))
	req.RequestId = newID()
	first, err := a.ImportRateLimitConfig(ctx, req)
	r.need(err)
	_, err = a.DeleteRateLimitDomain(ctx, &quotav1.DeleteRateLimitDomainRequest{Name: "rateLimitDomains/edge"})
	r.need(err)
	again, err := a.ImportRateLimitConfig(ctx, req)
	r.need(err)
	if diff := cmp.Diff(first, again, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	_, err = a.GetRateLimitDomain(ctx, &quotav1.GetRateLimitDomainRequest{Name: "rateLimitDomains/edge"})
	refused(t, "a replay makes nothing", err, codes.NotFound, fault.ReasonResourceNotFound)
	req.Files = append(req.Files, file("other"))
	_, err = a.ImportRateLimitConfig(ctx, req)
	refused(t, "a used id", err, codes.InvalidArgument, fault.ReasonRequestIDReused)
}

// Files that cannot be used are refused together, each with its place, and nothing is stored.
func TestImportRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	bad := &quotav1.RateLimitFile{Name: "bad.yaml", Content: "domain: bad\ndescriptors:\n  - key: a\n    rate_limit: {unit: eon}\n  - kee: b\n"}
	_, err := a.ImportRateLimitConfig(ctx, imports(file("edge"), bad, file("edge")))
	refused(t, "bad files", err, codes.InvalidArgument, fault.ReasonInvalidField)
	f, _ := fault.As(tenantgrpc.FromStatus(err))
	var told []string
	for _, v := range f.Fields {
		told = append(told, v.Field+" "+v.Description)
	}
	for i, want := range []string{
		`files[1].content bad.yaml:4: "eon" is no unit`, `files[1].content bad.yaml:5: unknown key "kee"`,
		`files[1].content bad.yaml:5: a descriptor has an empty key`, `files[2].content edge.yaml:2: the domain "edge" is in edge.yaml already`,
	} {
		if i >= len(told) || !strings.HasPrefix(told[i], want) {
			t.Errorf("%d: %q, want %q", i, told, want)
		}
	}
	for what, req := range map[string]*quotav1.ImportRateLimitConfigRequest{
		"no file":       imports(),
		"no parent":     {Files: []*quotav1.RateLimitFile{file("edge")}},
		"no name":       imports(&quotav1.RateLimitFile{Content: file("edge").GetContent()}),
		"a long domain": imports(file(strings.Repeat("x", 257))),
		"a long file":   imports(&quotav1.RateLimitFile{Name: "f", Content: strings.Repeat("#", 900_001)}),
	} {
		_, err := a.ImportRateLimitConfig(ctx, req)
		refused(t, what, err, codes.InvalidArgument, fault.ReasonInvalidField)
	}
	list, err := a.ListRateLimitDomains(ctx, &quotav1.ListRateLimitDomainsRequest{Parent: "platform"})
	if err != nil || len(list.GetDomains()) > 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestRateLimitDomainsArePaged(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	var files []*quotav1.RateLimitFile
	var want []string
	for i := range 5 {
		files = append(files, file(fmt.Sprintf("d%d", i)))
		want = append(want, fmt.Sprintf("rateLimitDomains/d%d", i))
	}
	_, err := a.ImportRateLimitConfig(ctx, imports(files...))
	r.need(err)
	var got []string
	req := &quotav1.ListRateLimitDomainsRequest{Parent: "platform", PageSize: 2}
	for range 5 {
		resp, err := a.ListRateLimitDomains(ctx, req)
		r.need(err)
		for _, d := range resp.GetDomains() {
			got = append(got, d.GetName())
		}
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestWhoMayImport(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	change := func(a api) error {
		_, err := a.ImportRateLimitConfig(ctx, imports(file("edge")))
		return err
	}
	remove := func(a api) error {
		_, err := a.DeleteRateLimitDomain(ctx, &quotav1.DeleteRateLimitDomainRequest{Name: "rateLimitDomains/edge"})
		return err
	}
	get := func(a api) error {
		_, err := a.GetRateLimitDomain(ctx, &quotav1.GetRateLimitDomainRequest{Name: "rateLimitDomains/edge"})
		return err
	}
	list := func(a api) error {
		_, err := a.ListRateLimitDomains(ctx, &quotav1.ListRateLimitDomainsRequest{Parent: "platform"})
		return err
	}
	r.need(errors.Join(change(r.as("operator")), get(r.as("viewer")), list(r.as("viewer"))))
	viewer, gateway, nobody := r.as("viewer"), r.peer("service", "gateway", 0), r.as("")
	for what, err := range map[string]error{"import": change(viewer), "delete": remove(viewer), "gateway": change(gateway), "read": get(gateway)} {
		refused(t, what, err, codes.PermissionDenied, fault.ReasonPermissionMissing)
	}
	for what, err := range map[string]error{"import": change(nobody), "delete": remove(nobody), "get": get(nobody), "list": list(nobody)} {
		refused(t, what, err, codes.Unauthenticated, fault.ReasonCredentialMissing)
	}
	events, err := r.as("owner").ListEvents(ctx, &auditv1.ListEventsRequest{Parent: "chains/platform"})
	r.need(err)
	var seen []string
	for _, e := range events.GetEvents() {
		seen = append(seen, e.GetMethod()[strings.LastIndex(e.GetMethod(), "/")+1:])
	}
	for _, method := range []string{"ImportRateLimitConfig", "GetRateLimitDomain", "ListRateLimitDomains", "DeleteRateLimitDomain"} {
		if !slices.Contains(seen, method) {
			t.Errorf("%s left no event: %v", method, seen)
		}
	}
}
