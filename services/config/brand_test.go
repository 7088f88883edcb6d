package config_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/brand/brandtest"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// pngOf is a picture in one colour.
func pngOf(tb testing.TB, side int, c color.Color) []byte {
	tb.Helper()
	m := image.NewNRGBA(image.Rect(0, 0, side, side))
	draw.Draw(m, m.Bounds(), image.NewUniform(c), image.Point{}, draw.Src)
	var b bytes.Buffer
	must(tb, png.Encode(&b, m))
	return b.Bytes()
}

// upload asks for an asset.
func upload(parent, mediaType string, content []byte) *configv1.CreateBrandAssetRequest {
	return &configv1.CreateBrandAssetRequest{Parent: parent, MediaType: mediaType, Content: content}
}

// put uploads a file and returns the name by which brands know it.
func (r *rig) put(a api, parent, mediaType string, content []byte) string {
	r.tb.Helper()
	resp, err := a.CreateBrandAsset(r.tb.Context(), upload(parent, mediaType, content))
	must(r.tb, err)
	_, asset, _ := strings.Cut(resp.GetBrandAssets()[0].GetName(), "/brandAssets/")
	return asset
}

func (r *rig) content(asset string) []byte {
	r.tb.Helper()
	sha, err := hex.DecodeString(asset[:64])
	must(r.tb, err)
	resp, err := configv1.NewBrandAssetServiceClient(r.gateway()).ReadBrandAsset(r.tb.Context(), &configv1.ReadBrandAssetRequest{Sha256: sha})
	must(r.tb, err)
	return resp.GetContent()
}

const svgLogo = `<?xml version="1.0"?><!-- drawn --><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 2"><rect width="2" height="2" style="fill:#b91c1c"/></svg>`

func TestBrandAssets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	red := append(pngOf(t, 8, color.NRGBA{200, 0, 0, 255}), "<script>behind</script>"...)
	resp, err := a.CreateBrandAsset(ctx, upload("tenants/acme", "image/png", red))
	must(t, err)
	first := resp.GetBrandAssets()[0]
	_, asset, _ := strings.Cut(first.GetName(), "/brandAssets/")
	content := r.content(asset)
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:])+".png" != asset || first.GetName() != "tenants/acme/brandAssets/"+asset ||
		first.GetWidth() != 8 || first.GetSizeBytes() != int64(len(content)) || first.GetMediaType() != "image/png" ||
		first.GetPath() != "/.well-known/rowhouse/b/"+asset || first.GetAuthor() == "" || bytes.Contains(content, []byte("script")) {
		t.Errorf("uploaded %v", first)
	}
	if again := r.put(a, "tenants/acme", "image/png", red); again != asset {
		t.Errorf("uploaded twice, it is %s and %s", asset, again)
	}
	logo := r.put(a, "tenants/acme", "image/svg+xml", []byte(svgLogo))
	if got := string(r.content(logo)); strings.Contains(got, "drawn") || !strings.Contains(got, "#b91c1c") {
		t.Errorf("the SVG became %s", got)
	}
	face := r.put(a, "tenants/acme", "font/woff2", brandtest.Font("packed"))
	sheet := r.put(a, "tenants/acme", "text/css", []byte(`.rh-header{background:url(/.well-known/rowhouse/b/`+asset+`)}`))

	list, err := a.ListBrandAssets(ctx, &configv1.ListBrandAssetsRequest{Parent: "tenants/acme", PageSize: 3})
	must(t, err)
	rest, err := a.ListBrandAssets(ctx, &configv1.ListBrandAssetsRequest{Parent: "tenants/acme", PageSize: 3, PageToken: list.GetNextPageToken()})
	must(t, err)
	if len(list.GetBrandAssets()) != 3 || len(rest.GetBrandAssets()) != 1 || rest.GetNextPageToken() != "" {
		t.Errorf("listed %v, then %v", list, rest)
	}

	const doc = "tenants/acme/config/brand"
	_, err = a.UpdateDocument(ctx, setting(doc, `{"styles":"`+sheet+`"}`))
	refused(t, "a sheet without its picture", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	r.set(a, doc, `{"styles":"`+sheet+`","assets":["`+asset+`"],"logos":{"light":"`+logo+`"},
		"typography":{"body":"Acme","faces":[{"family":"Acme","file":"`+face+`"}]}}`)
	del := func(asset string) error {
		_, err := a.DeleteBrandAsset(ctx, &configv1.DeleteBrandAssetRequest{Name: "tenants/acme/brandAssets/" + asset})
		return err
	}
	for _, used := range []string{asset, logo, face, sheet} {
		refused(t, "delete what is used", del(used), codes.FailedPrecondition, "BRAND_ASSET_IN_USE")
	}
	before := r.set(a, doc, `{"name":"Acme"}`).GetRevision() - 1
	refused(t, "delete what a sheet loads", del(asset), codes.FailedPrecondition, "BRAND_ASSET_IN_USE")
	must(t, del(sheet))
	must(t, del(asset))
	refused(t, "delete twice", del(asset), codes.NotFound, fault.ReasonResourceNotFound)
	_, err = configv1.NewBrandAssetServiceClient(r.gateway()).ReadBrandAsset(ctx, &configv1.ReadBrandAssetRequest{Sha256: make([]byte, 32)})
	refused(t, "content that nobody has", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.RollbackDocument(ctx, &configv1.RollbackDocumentRequest{Name: doc, Revision: before})
	refused(t, "back to what is gone", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
}

// What one tenant uploaded is no other's: not to read, not to name, not to remove. Content that two have stays with the
// one when the other removes it.
func TestBrandAssetsOfOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	shared := pngOf(t, 4, color.White)
	ofAcme := r.put(a, "tenants/acme", "image/png", pngOf(t, 4, color.Black))
	both := r.put(a, "tenants/acme", "image/png", shared)
	if r.put(a, "tenants/globex", "image/png", shared) != both {
		t.Error("the same file has two names")
	}
	other := "tenants/globex/brandAssets/" + ofAcme
	_, err := a.GetBrandAsset(ctx, &configv1.GetBrandAssetRequest{Name: other})
	refused(t, "get", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.DeleteBrandAsset(ctx, &configv1.DeleteBrandAssetRequest{Name: other})
	refused(t, "delete", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.UpdateDocument(ctx, setting("tenants/globex/config/brand", `{"logos":{"light":"`+ofAcme+`"}}`))
	refused(t, "name", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	_, err = a.UpdateDocument(ctx, setting("tenants/globex/config/brand", `{"domains":{"x.example":{"assets":["`+ofAcme+`"]}}}`))
	refused(t, "name on a domain", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	_, err = a.CreateBrandAsset(ctx, upload("tenants/globex", "text/css", []byte(`.rh-a{background:url(/.well-known/rowhouse/b/`+ofAcme+`)}`)))
	refused(t, "load", err, codes.InvalidArgument, "UPLOAD_REFUSED")
	list, err := a.ListBrandAssets(ctx, &configv1.ListBrandAssetsRequest{Parent: "tenants/globex"})
	must(t, err)
	if len(list.GetBrandAssets()) != 1 || strings.Contains(list.String(), ofAcme[:64]) {
		t.Errorf("globex has %v", list)
	}
	_, err = a.DeleteBrandAsset(ctx, &configv1.DeleteBrandAssetRequest{Name: "tenants/acme/brandAssets/" + both})
	must(t, err)
	if len(r.content(both)) == 0 {
		t.Error("globex lost what acme removed")
	}
	_, err = a.CreateBrandAsset(ctx, upload("tenants/nobody", "image/png", shared))
	refused(t, "of nobody", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = r.as("viewer").CreateBrandAsset(ctx, upload("tenants/acme", "image/png", shared))
	refused(t, "a viewer's", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
	_, err = r.as("owner").ReadBrandAsset(ctx, &configv1.ReadBrandAssetRequest{Sha256: make([]byte, 32)})
	refused(t, "an operator reads content", err, codes.Unauthenticated, fault.ReasonCredentialMissing)
	dry := upload("tenants/globex", "image/png", pngOf(t, 5, color.White))
	dry.ValidateOnly = true
	resp, err := a.CreateBrandAsset(ctx, dry)
	must(t, err)
	_, err = a.GetBrandAsset(ctx, &configv1.GetBrandAssetRequest{Name: resp.GetBrandAssets()[0].GetName()})
	refused(t, "a dry run's", err, codes.NotFound, fault.ReasonResourceNotFound)
	events, err := r.as("auditor").ListEvents(ctx, &auditv1.ListEventsRequest{Parent: "chains/" + tenanttest.UID("acme").String()})
	must(t, err)
	if text := events.String(); !strings.Contains(text, "CreateBrandAsset") || !strings.Contains(text, both) {
		t.Errorf("acme's chain is %s", text)
	}
}

func TestIcons(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("operator")
	req := upload("tenants/acme", "image/png", pngOf(t, 512, color.NRGBA{10, 60, 200, 128}))
	req.Icons, req.Ground = true, "#112233"
	resp, err := a.CreateBrandAsset(t.Context(), req)
	must(t, err)
	var icons []string
	for _, i := range resp.GetBrandAssets() {
		icons = append(icons, fmt.Sprintf("%s %d %s", i.GetIcon(), i.GetWidth(), i.GetMediaType()))
	}
	want := []string{"ico 48 image/x-icon", "32 32 image/png", "180 180 image/png", "192 192 image/png", "512 512 image/png", "maskable 512 image/png"}
	if diff := cmp.Diff(want, icons); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	patch := setting("tenants/acme/config/brand", resp.GetPatch())
	patch.MergePatch = true
	_, err = a.UpdateDocument(t.Context(), patch)
	must(t, err)
	req.Content = pngOf(t, 100, color.White)
	_, err = a.CreateBrandAsset(t.Context(), req)
	refused(t, "too small", err, codes.InvalidArgument, "UPLOAD_REFUSED")
}

// One SVG is the whole set: itself, and what it looks like.
func TestIconsOfSVG(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("operator")
	req := upload("tenants/acme", "image/svg+xml", []byte(svgLogo))
	req.Icons = true
	resp, err := a.CreateBrandAsset(t.Context(), req)
	must(t, err)
	var icons []string
	for _, i := range resp.GetBrandAssets() {
		icons = append(icons, i.GetIcon())
		_, name, _ := strings.Cut(i.GetName(), "/brandAssets/")
		if content := r.content(name); i.GetIcon() == "512" {
			m, err := png.Decode(bytes.NewReader(content))
			must(t, err)
			if c := color.NRGBAModel.Convert(m.At(256, 256)); c != (color.NRGBA{0xb9, 0x1c, 0x1c, 0xff}) {
				t.Errorf("it is drawn in %v", c)
			}
		}
	}
	if diff := cmp.Diff([]string{"svg", "ico", "32", "180", "192", "512", "maskable"}, icons); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	patch := setting("tenants/acme/config/brand", resp.GetPatch())
	patch.MergePatch = true
	_, err = a.UpdateDocument(t.Context(), patch)
	must(t, err)
	for _, inside := range []string{`<text>x</text>`, `<path d="M0 0h1" stroke="red" stroke-dasharray="1e-9"/>`, `<script/>`} {
		req.Content = []byte(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 2">` + inside + `</svg>`)
		_, err = a.CreateBrandAsset(t.Context(), req)
		refused(t, inside, err, codes.InvalidArgument, "UPLOAD_REFUSED")
	}
}

// Reading an upload may take a second. It holds no connection meanwhile.
func TestUploadsAreReadOutsideOfTransactions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	req := upload("tenants/acme", "image/svg+xml", []byte(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><path d="M0 0`+
		strings.Repeat("L10 9L0 1L9 10L1 0", 1500)+`" stroke="red" fill="none" stroke-dasharray="1e-6"/></svg>`))
	req.Icons = true
	done := make(chan error, 1)
	go func() {
		_, err := r.as("operator").CreateBrandAsset(t.Context(), req)
		done <- err
	}()
	db := r.db.Owner(t)
	for looks := 0; ; looks++ {
		select {
		case err := <-done:
			refused(t, "an upload that is too much work", err, codes.InvalidArgument, "UPLOAD_REFUSED")
			if looks < 10 {
				t.Errorf("it was read too fast to be seen: %d looks", looks)
			}
			return
		default:
		}
		var waiting int
		must(t, db.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND state = 'idle in transaction' AND query LIKE '%FROM settings.brand_asset%'`).Scan(&waiting))
		if waiting > 0 {
			t.Fatal("a transaction waits for it")
		}
	}
}

// few is one attack of n, and all in a long run.
func few(all []brandtest.Attack, n int) (some []brandtest.Attack) {
	if os.Getenv("ROWHOUSE_TEST_LONG") != "" {
		n = 1
	}
	for i := 0; i < len(all); i += n {
		some = append(some, all[i])
	}
	return some
}

// A hostile file is refused by the RPC with a rule, and nothing of it is kept.
func TestHostileUploads(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	own := "/.well-known/rowhouse/b/" + r.put(a, "tenants/acme", "image/png", pngOf(t, 2, color.White))
	var photo bytes.Buffer
	must(t, jpeg.Encode(&photo, image.NewGray(image.Rect(0, 0, 1, 1)), nil))
	type hostile struct {
		name, mediaType string
		content         []byte
	}
	all := []hostile{
		{"a page as PNG", "image/png", []byte("<html><script>1</script>")},
		{"JPEG as PNG", "image/png", photo.Bytes()},
		{"SVG as PNG", "image/png", []byte(svgLogo)},
		{"PNG as SVG", "image/svg+xml", pngOf(t, 1, color.White)},
		{"half a PNG", "image/png", pngOf(t, 64, color.White)[:60]},
		{"5 MiB of nothing", "image/gif", make([]byte, 5<<20)},
		{"a page as font", "font/woff2", []byte("<html>")},
		{"a font and more", "font/woff2", append(brandtest.Font("x"), "<script>"...)},
		{"SVG as CSS", "text/css", []byte(svgLogo)},
	}
	for _, at := range few(brandtest.SVG(), 9) {
		all = append(all, hostile{at.Name, "image/svg+xml", []byte(at.Input)})
	}
	for _, at := range few(brandtest.CSS(own), 9) {
		all = append(all, hostile{at.Name, "text/css", []byte(at.Input)})
	}
	for _, h := range all {
		if len(h.content) == 0 || len(h.content) > 5<<20 {
			continue
		}
		resp, err := a.CreateBrandAsset(ctx, upload("tenants/acme", h.mediaType, h.content))
		if err == nil && h.mediaType == "image/svg+xml" && harmless(t, r, resp) {
			continue
		}
		if status.Code(err) != codes.InvalidArgument || fault.ReasonOf(tenantgrpc.FromStatus(err)) != "UPLOAD_REFUSED" {
			t.Errorf("%s: %v, %v", h.name, resp, err)
		}
	}
	list, err := a.ListBrandAssets(ctx, &configv1.ListBrandAssetsRequest{Parent: "tenants/acme", PageSize: 1000})
	must(t, err)
	for _, kept := range list.GetBrandAssets() {
		if strings.HasSuffix(kept.GetName(), ".css") || strings.HasSuffix(kept.GetName(), ".woff2") {
			t.Errorf("kept %v", kept)
		}
	}
	large := upload("tenants/acme", "image/png", make([]byte, 5<<20+1))
	_, err = a.CreateBrandAsset(ctx, large)
	refused(t, "more than 5 MiB", err, codes.InvalidArgument, fault.ReasonInvalidField)
	large.Content = make([]byte, 7<<20)
	if _, err = a.CreateBrandAsset(ctx, large); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("7 MiB: %v", err)
	}
	_, err = a.UpdateDocument(ctx, &configv1.UpdateDocumentRequest{
		Document: &configv1.Document{Name: "tenants/acme/config/brand", Content: strings.Repeat(" ", 2<<20)},
	})
	refused(t, "2 MiB to another method", err, codes.InvalidArgument, "TOO_LARGE")
	t.Logf("%d files refused", len(all))
}

// harmless reports whether what was let through is as sanitised as can be: some attacks do nothing once comments are gone.
func harmless(t *testing.T, r *rig, resp *configv1.CreateBrandAssetResponse) bool {
	t.Helper()
	_, asset, _ := strings.Cut(resp.GetBrandAssets()[0].GetName(), "/brandAssets/")
	content := strings.ToLower(string(r.content(asset)))
	return !strings.Contains(content, "script") && !strings.Contains(content, "http://foreign") && !strings.Contains(content, "<!")
}

func TestContrastGate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("operator"), t.Context()
	const doc = "tenants/acme/config/brand"
	_, err := a.UpdateDocument(ctx, setting(doc, `{"light":{"text":"#777777","surface":"#ffffff"}}`))
	refused(t, "grey on white", err, codes.FailedPrecondition, "CONTRAST")
	f, ok := fault.As(tenantgrpc.FromStatus(err))
	if !ok || len(f.Fields) != 2 || f.Fields[0].Field != "document.content/light/text" || f.Fields[0].Reason != "CONTRAST" ||
		!strings.Contains(f.Fields[0].Description, "light/text/background has 4.47:1 and needs 4.50:1; the nearest that passes is #767676") {
		t.Errorf("the refusal is %+v", f)
	}
	r.set(a, doc, `{"light":{"text":"#767676","surface":"#ffffff"}}`)
	// On a domain, and by a change of the ground alone.
	_, err = a.UpdateDocument(ctx, setting(doc, `{"domains":{"x.example":{"light":{"text":"#777777","surface":"#ffffff"}}}}`))
	refused(t, "on a domain", err, codes.FailedPrecondition, "CONTRAST")
	patch := setting(doc, `{"light":{"background":"#eeeeee"}}`)
	patch.MergePatch = true
	_, err = a.UpdateDocument(ctx, patch)
	refused(t, "by the ground", err, codes.FailedPrecondition, "CONTRAST")
	// What is inherited counts.
	_, err = a.UpdateDocument(ctx, setting("plans/business/config/brand", `{"light":{"background":"#777777"}}`))
	refused(t, "by the plan", err, codes.FailedPrecondition, "CONTRAST")
	_, err = a.UpdateDocument(ctx, setting(doc, `{"light":{"text":"#777777","surface":"#ffffff"},"name":7}`))
	refused(t, "and of the schema", err, codes.InvalidArgument, "SCHEMA_VIOLATION")

	const excepted = `{"light":{"text":"#777777","surface":"#ffffff"},
		"exceptions":{"light/text/background":"the house style, ticket 4711","light/text/surface":"the house style, ticket 4711"}}`
	_, err = a.UpdateDocument(ctx, setting(doc, strings.ReplaceAll(excepted, "the house style, ticket 4711", "short")))
	refused(t, "without a reason", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	r.set(a, doc, excepted)
	events, err := r.as("auditor").ListEvents(ctx, &auditv1.ListEventsRequest{Parent: "chains/" + tenanttest.UID("acme").String(), PageSize: 100})
	must(t, err)
	n := 0
	for _, e := range events.GetEvents() {
		if strings.Contains(strings.Join(e.GetChangedPaths(), " "), "content.exceptions") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d events tell of exceptions", n)
	}
	e, err := a.ExplainSettings(ctx, &configv1.ExplainSettingsRequest{Name: doc})
	must(t, err)
	o, err := settings.Parse([]byte(e.GetEffective().GetContent()))
	must(t, err)
	if b, err := settings.BrandOf(settings.Effective{Object: o}); err != nil || b.Light.Text != "#777777" {
		t.Errorf("%v, %v", b, err)
	}
}
