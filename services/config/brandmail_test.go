package config_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// A tenant's mails are drafted, shown, published and inherited as the rest of its brand is.
func TestBrandMails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	const doc, published, drafted = "tenants/acme/config/brand", "tenants/acme/config/brand", "tenants/acme/brandDraft"
	show := func(name, kind, locale string, values map[string]string) (*configv1.PreviewBrandMailResponse, error) {
		return r.as("viewer").PreviewBrandMail(ctx, &configv1.PreviewBrandMailRequest{
			Name: name, Kind: kind, Locale: locale, Host: "Acme.example", Values: values,
		})
	}
	subject := func(name, kind, locale string) string {
		m, err := show(name, kind, locale, nil)
		must(t, err)
		return m.GetLanguage() + " " + m.GetSubject()
	}
	r.set(a, "platform/config/brand", `{"mail-kinds":{"digest":{"variables":{"week":"text"},"lists":{"items":{"title":"text"}},"unsubscribe":true}},
		"mails":{"en":{"digest":{"subject":"Week {{.week}}","text":"{{range .items}}{{.title}} {{end}}{{.unsubscribe}}"}},
		"de":{"invitation":{"subject":"Einladung zu {{.brand}}","text":"{{.link}}"}}}}`)
	if got := subject(published, "invitation", "de-AT"); got != "de Einladung zu acme" {
		t.Error(got)
	}
	m, err := show(published, "digest", "", map[string]string{"week": "7 <b>"})
	must(t, err)
	if m.GetSubject() != "Week 7 <b>" || m.GetText() != "[title] [title] https://www.example.com/unsubscribe\n" || m.GetVariables()["items"] != "list" ||
		m.GetVariables()["week"] != "text" || m.GetHeaders()["List-Unsubscribe"] == "" || len(m.GetKinds()) != 5 || strings.Contains(m.GetHtml(), "<b>") {
		t.Errorf("%v", m)
	}
	_, err = a.UpdateBrandDraft(ctx, draft(drafted, `{"name":"Acme","mails":{"de":{"invitation":{"subject":"Neu: {{.brand}}"}}}}`))
	must(t, err)
	if got := subject(drafted, "invitation", "de") + ", " + subject(published, "invitation", "de"); got != "de Neu: Acme, de Einladung zu acme" {
		t.Error(got)
	}
	_, err = a.PublishBrandDraft(ctx, &configv1.PublishBrandDraftRequest{Name: drafted})
	must(t, err)
	if got := subject(published, "invitation", "de"); got != "de Neu: Acme" {
		t.Error(got)
	}
	_, err = show(drafted, "invitation", "", nil)
	refused(t, "a draft that is published", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = show(published, "nothing", "", nil)
	refused(t, "an unknown kind", err, codes.NotFound, fault.ReasonResourceNotFound)
	for _, values := range []map[string]string{{"link": "javascript:1"}, {"secret": "x"}, {"inviter": "a\nb"}} {
		_, err = show(published, "invitation", "", values)
		refused(t, "hostile values", err, codes.InvalidArgument, fault.ReasonInvalidField)
	}
	_, err = show("tenants/nobody/config/brand", "invitation", "", nil)
	refused(t, "nobody's", err, codes.NotFound, fault.ReasonResourceNotFound)
	for text, reason := range map[string]string{
		`{"mails":{"de":{"invitation":{"text":"{{printf \"%s\" .link}}"}}}}`:                         "SCHEMA_VIOLATION",
		`{"mails":{"de":{"invitation":{"html":"<p>{{.link}}</p><script>1</script>"}}}}`:              "SCHEMA_VIOLATION",
		`{"mails":{"de":{"invitation":{"subject":"a\nBcc: b"}}}}`:                                    "SCHEMA_VIOLATION",
		`{"mails":{"de":{"invitation":{"text":"no link"}}}}`:                                         "SCHEMA_VIOLATION",
		`{"mail-kinds":{"mine":{}},"mails":{"en":{"mine":{"subject":"x","text":"y"}}}}`:              "SETTING_LOCKED",
		`{"mails":{"it":{"invitation":{"subject":"solo","html":"<p><a href=\"{{.link}}\">x</a>"}}}}`: "SCHEMA_VIOLATION",
	} {
		_, err := a.UpdateDocument(ctx, setting(doc, text))
		if got := fault.ReasonOf(tenantgrpc.FromStatus(err)); got != reason {
			t.Errorf("%s: %v", text, err)
		}
		_, err = a.UpdateBrandDraft(ctx, draft(drafted, text))
		if got := fault.ReasonOf(tenantgrpc.FromStatus(err)); got != reason {
			t.Errorf("as a draft: %s: %v", text, err)
		}
	}
}
