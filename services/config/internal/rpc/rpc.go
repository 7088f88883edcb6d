// Package rpc serves rowhouse.config.v1.
package rpc

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/feedserver"
	"github.com/rowhouse-platform/rowhouse/internal/hook"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/trust"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/ask"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/secret"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// Config is what the services need.
type Config struct {
	// Kernel runs the audited calls.
	Kernel *change.Kernel
	// Pool reaches the database for tenants' own reads.
	Pool *pgxpool.Pool
	// Trust knows the tenants by name, and their plans.
	Trust *tenant.Trust
	// Catalog knows the plans and regions by name.
	Catalog *trust.Catalog
	// Domains looks up tenants' domains. Optional.
	Domains tenancyv1.DomainServiceClient
	// ReadsSecrets says whether a workload is registered to read the secrets of a namespace.
	ReadsSecrets func(id identity.ID, namespace string) bool
	// Environment is the environment that a workload is registered for, "" for none.
	Environment func(identity.ID) string
	// Feeds serves the feed of settings.
	Feeds *feedserver.Server
	Clock func() time.Time
	// PreviewKey signs preview links: the key of the feed, which gateways trust already.
	PreviewKey ed25519.PrivateKey
	// HTTPSPort is the port in preview links; 0 and 443 are not written.
	HTTPSPort int
	// Webhooks tells others of changes.
	Webhooks Webhooks
	// Ask calls hooks.
	Ask *ask.Asker
	// Hooks are asked before steps; see [Config.WithHooks].
	Hooks *hook.Asker
	// Meters makes the metrics of webhooks and of the feed of hooks.
	Meters metric.MeterProvider
	// Secrets seals what settings refer to. Without a key there are no secrets.
	Secrets secret.Keeper
	// Caller is who has a name now, as the files of operators and workloads say: without permissions if nobody has.
	Caller func(name string) operator.Principal
	// Pace is when scheduled changes are looked for.
	Pace Pace
	// Harm, with one place, wakes the process's worker of rollouts. Optional.
	Harm chan struct{}
	// Log gets what no caller is told.
	Log *slog.Logger
}

// Register registers all services.
func Register(s *grpc.Server, c Config) {
	configv1.RegisterNamespaceServiceServer(s, &namespaceService{Config: c})
	documents := &documentService{Config: c}
	configv1.RegisterDocumentServiceServer(s, documents)
	configv1.RegisterFlagServiceServer(s, &flagService{documentService: documents})
	configv1.RegisterSettingsServiceServer(s, &settingsService{Config: c, writes: newWriteRate(c.Clock)})
	configv1.RegisterClientKeyServiceServer(s, &clientKeyService{Config: c})
	configv1.RegisterBrandAssetServiceServer(s, newBrandAssetService(c))
	configv1.RegisterBrandDraftServiceServer(s, &brandDraftService{Config: c, documents: &documentService{Config: c}})
	configv1.RegisterBrandMailServiceServer(s, &brandMailService{Config: c, documents: documents})
	configv1.RegisterWebhookServiceServer(s, &webhookService{Config: c})
	configv1.RegisterHookServiceServer(s, &hookService{Config: c})
	configv1.RegisterSecretServiceServer(s, &secretService{Config: c, documents: documents})
	configv1.RegisterChangeServiceServer(s, &changeService{Config: c, documents: documents})
	configv1.RegisterRolloutServiceServer(s, &rolloutService{Config: c, documents: documents})
}

// Domain and reasons of our own, see rowhouse.config.v1.Reason.
const (
	domain          = "rowhouse.config"
	schemaViolation = "SCHEMA_VIOLATION"
	malformed       = "MALFORMED_DOCUMENT"
	schemaInvalid   = "SCHEMA_INVALID"
	namespaceInUse  = "NAMESPACE_IN_USE"
	settingLocked   = "SETTING_LOCKED"
	settingClamped  = "SETTING_CLAMPED"
	patchTestFailed = "PATCH_TEST_FAILED"
	notEditable     = "SETTING_NOT_EDITABLE"
	notKillable     = "SETTING_NOT_KILLABLE"
	clientKeyLimit  = "CLIENT_KEY_LIMIT"
	uploadRefused   = "UPLOAD_REFUSED"
	brandAssetsFull = "BRAND_ASSETS_FULL"
	brandAssetInUse = "BRAND_ASSET_IN_USE"
	contrast        = "CONTRAST"
	rolloutRunning  = "ROLLOUT_RUNNING"
	rolloutEnded    = "ROLLOUT_ENDED"
)

func refuse(kind fault.Kind, reason, format string, args ...any) *fault.Error {
	return fault.New(kind, reason, format, args...).WithDomain(domain)
}

func badField(field, what string) error {
	return fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "%s %s", field, what).
		WithField(fault.FieldViolation{Field: field, Description: what})
}

// malformedField says that a document or a patch cannot be read or applied, where and why.
func malformedField(field string, err error) error {
	what := "is not acceptable: " + strings.TrimPrefix(err.Error(), "settings: ")
	kind, reason, pointer := fault.InvalidArgument, malformed, sdk.Place(err)
	if patch := (*settings.PatchError)(nil); errors.As(err, &patch) {
		if pointer = patch.Pointer; patch.Test {
			kind, reason = fault.FailedPrecondition, patchTestFailed
		}
	}
	return refuse(kind, reason, "%s %s", field, what).
		WithField(fault.FieldViolation{Field: field + pointer, Description: what, Reason: reason})
}

// compile is settings.CompileNew for a request.
func compile(namespace, text, stored string) (*settings.Schema, error) {
	s, err := settings.CompileNew(namespace, text, stored)
	if err == nil {
		return s, nil
	}
	const field, most = "namespace.schema", 50
	keywords := (*settings.KeywordsError)(nil)
	if !errors.As(err, &keywords) {
		what := "is not acceptable: " + strings.TrimPrefix(err.Error(), "settings: ")
		return nil, refuse(fault.InvalidArgument, schemaInvalid, "the schema %s", what).
			WithField(fault.FieldViolation{Field: field, Description: what, Reason: schemaInvalid})
	}
	refusal := refuse(fault.InvalidArgument, schemaInvalid, "the schema has %d keywords that cannot stand there", len(keywords.Found)).
		WithMetadata("violations", strconv.Itoa(len(keywords.Found)))
	for _, p := range keywords.Found[:min(len(keywords.Found), most)] {
		// The pointer follows the field: "namespace.schema/properties/size/x-lok".
		refusal = refusal.WithField(fault.FieldViolation{Field: field + p.Pointer, Description: p.Text, Reason: schemaInvalid})
	}
	return nil, refusal
}

// judge refuses a change that would break an effective value, or have a layer set what it may not.
func judge(c settings.Change) error { return judgeWith(c, false) }

// judgeWith is judge. With shadow, what locks and clamps are against may stand where it does not hold.
func judgeWith(c settings.Change, shadow bool) error {
	byRule := make(map[string][]settings.Finding)
	for _, f := range c.Refusals() {
		rule := f.Rule
		if rule != lockRule && rule != clampRule && rule != secretRule {
			rule = "" // what cannot be merged breaks the schema
		}
		byRule[rule] = append(byRule[rule], f)
	}
	if found := byRule[secretRule]; len(found) > 0 {
		return violated(refuse(fault.InvalidArgument, secretInClear, "%d secrets would stand in clear", len(found)), found)
	}
	if found := byRule[lockRule]; len(found) > 0 && !shadow {
		return violated(refuse(fault.FailedPrecondition, settingLocked, "locks of the schema are against %d values", len(found)), found)
	}
	if found := byRule[clampRule]; len(found) > 0 && !shadow {
		return violated(refuse(fault.InvalidArgument, settingClamped, "clamps of the schema are against %d values", len(found)), found)
	}
	found := slices.Concat(byRule[""], c.Findings())
	if len(found) == 0 {
		return nil
	}
	if !slices.ContainsFunc(found, func(f settings.Finding) bool { return f.Rule != settings.RuleContrast }) {
		return violated(refuse(fault.FailedPrecondition, contrast, "%d pairs of colours would be hard to tell apart; change them, "+
			"or say in \"exceptions\" why they stay", len(found)), found)
	}
	return violated(refuse(fault.InvalidArgument, schemaViolation, "the write would break %d rules of the schema", len(found)), found)
}

// Rules of [sdk.Schema.Refused] that have a reason of their own.
const (
	lockRule   = "x-lock"
	clampRule  = "x-clamp"
	secretRule = "x-secret"
)

// violated tells of findings in a refusal.
func violated(refusal *fault.Error, findings []settings.Finding) error {
	const most = 50
	refusal = refusal.WithMetadata("violations", strconv.Itoa(len(findings)))
	for _, f := range findings[:min(len(findings), most)] {
		refusal = refusal.WithField(fault.FieldViolation{
			// The pointer follows the field: "document.content/light/primary".
			Field: "document.content" + f.Pointer, Reason: constant(f.Rule),
			Description: fmt.Sprintf("%s (rule %s, in %s)", f.Text, f.Rule, where(f.Where)),
		})
	}
	return refusal
}

// where names the first tenants and counts the others.
func where(names []string) string {
	const most = 20
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// constant writes a rule of JSON Schema as reasons are written: "maxLength" is MAX_LENGTH.
func constant(rule string) string {
	var b strings.Builder
	for _, r := range rule {
		switch {
		case r >= 'A' && r <= 'Z':
			b.WriteByte('_')
			b.WriteRune(r)
		case r >= 'a' && r <= 'z':
			b.WriteRune(r - 'a' + 'A')
		default:
			b.WriteByte('_')
		}
	}
	return strings.Trim(b.String(), "_")
}

// stateOf is what stands in a namespace before anything in it changes.
func stateOf(n *configv1.Namespace) (settings.State, error) {
	id := strings.TrimPrefix(n.GetName(), "namespaces/")
	schema, err := settings.Compile(id, n.GetSchema())
	if err != nil {
		return settings.State{}, fmt.Errorf("the stored schema of %s: %w", id, err)
	}
	return settings.State{
		Schema: schema, Plans: make(map[string]*sdk.Layer), Regions: make(map[string]*sdk.Layer), Tenants: make(map[string]settings.Own),
	}, nil
}

// around reads what a write of the document at p is judged by: of a tenant its own layers and its children's alone,
// however many other tenants have documents.
func (c Config) around(ctx context.Context, q store.Querier, n *configv1.Namespace, p store.Place) (settings.State, error) {
	var scope store.Scope
	switch p.Owner.Kind {
	case settings.Plan:
		scope.Plan = p.Owner.Name
	case settings.Region:
		scope.Region = p.Owner.Name
	case settings.Tenant, settings.Environment:
		scope.Tenants = []tenant.UID{p.Tenant.UID}
		if !p.Tenant.Parent.IsZero() {
			scope.Tenants = append(scope.Tenants, p.Tenant.Parent)
		}
		if p.Owner.Kind == settings.Tenant {
			for _, child := range c.Trust.Children(p.Tenant.UID) {
				scope.Tenants = append(scope.Tenants, child.UID)
			}
		}
	}
	return c.state(ctx, q, n, scope)
}

// state reads what is written in a namespace; documents with the same text share their layer.
func (c Config) state(ctx context.Context, q store.Querier, n *configv1.Namespace, scope store.Scope) (settings.State, error) {
	s, err := stateOf(n)
	if err != nil {
		return s, err
	}
	return s, store.EachText(ctx, q, n.GetUid(), scope, func(k settings.Kind, ids []string, text string) error {
		if ids = c.known(k, ids, scope); len(ids) == 0 {
			return nil
		}
		o, err := sdk.Parse([]byte(text))
		if err != nil {
			return err
		}
		l := &sdk.Layer{Object: o}
		for _, id := range ids {
			switch k {
			case settings.Platform:
				s.Platform = l
			case settings.Plan:
				s.Plans[id] = l
			case settings.Region:
				s.Regions[id] = l
			case settings.Tenant, settings.Environment:
				c.put(s, k, id, l)
			}
		}
		return nil
	})
}

// known leaves out what concerns nobody in the scope: documents of tenants that are gone for good, and therefore have
// no effective value, and of those that have another plan or region, and no child that has these.
func (c Config) known(k settings.Kind, ids []string, scope store.Scope) []string {
	if k != settings.Tenant && k != settings.Environment {
		return ids
	}
	in := func(t tenant.TenantState) bool {
		return (scope.Plan == "" || scope.Plan == t.Plan) && (scope.Region == "" || scope.Region == t.Region)
	}
	return slices.DeleteFunc(ids, func(id string) bool {
		uid, _ := store.CutEnvironment(id)
		t, ok := c.tenant(uid)
		return !ok || !in(t) && !slices.ContainsFunc(c.Trust.Children(t.UID), in)
	})
}

// put adds the document of a tenant, or of one of its environments, with the children for whom it holds.
func (c Config) put(s settings.State, k settings.Kind, id string, l *sdk.Layer) {
	uid, environment := store.CutEnvironment(id)
	t, ok := c.tenant(uid)
	if !ok {
		return // between two looks
	}
	name := t.ID.String()
	own, ok := s.Tenants[name]
	if !ok {
		own = c.own(t)
	}
	if k == settings.Environment {
		if own.Environments == nil {
			own.Environments = make(map[string]*sdk.Layer)
		}
		own.Environments[environment] = l
		s.Tenants[name] = own
		return
	}
	own.Layer = l
	s.Tenants[name] = own
	c.adopt(s, t.UID)
}

// adopt adds the children of a tenant that has a document, or is about to.
func (c Config) adopt(s settings.State, parent tenant.UID) {
	for _, child := range c.Trust.Children(parent) {
		if _, ok := s.Tenants[child.ID.String()]; !ok {
			s.Tenants[child.ID.String()] = c.own(child)
		}
	}
}

// own is a tenant for which nothing is written yet.
func (c Config) own(t tenant.TenantState) settings.Own {
	own := settings.Own{Plan: t.Plan, Region: t.Region}
	if parent, ok := c.Trust.Tenant(t.Parent); ok {
		own.Parent = parent.ID.String()
	}
	return own
}

func (c Config) tenant(uid string) (tenant.TenantState, bool) {
	parsed, err := tenant.ParseUID(uid)
	if err != nil {
		return tenant.TenantState{}, false
	}
	return c.Trust.Tenant(parsed)
}

// readerOf is whose settings a document of a tenant, or of one of its environments, is part of.
func readerOf(p store.Place) store.Reader {
	t := p.Tenant
	return store.Reader{Plan: t.Plan, Region: t.Region, Parent: t.Parent, Tenant: t.UID, Environment: p.Owner.Environment}
}

// atOnce runs fn on the state of one moment. What stackOf reads by several statements would otherwise be the layers of before
// a rollout's completion and no rollout, which was never anybody's. It is for reads outside a unit of work: that holds a
// connection, and locks in it what it writes.
func (c Config) atOnce(ctx context.Context, fn func(ctx context.Context, q store.Querier) error) error {
	opts := pg.TxOptions{Isolation: pgx.RepeatableRead, ReadOnly: true}
	return pg.Tx(ctx, c.Pool, opts, func(ctx context.Context, tx pgx.Tx) error { return fn(ctx, tx) })
}

// stackOf reads the layers that hold for a reader whose tenant has the given id, and what was written of them. Beside writes
// it is for [Config.atOnce], or for a namespace that is locked.
func stackOf(
	ctx context.Context, q store.Querier, n *configv1.Namespace, r store.Reader, tenantID tenant.ID,
) (sdk.Stack, []store.Written, error) {
	found, err := store.Layers(ctx, q, n.GetUid(), r)
	if err != nil {
		return sdk.Stack{}, nil, err
	}
	schema, err := sdk.Parse([]byte(n.GetSchema()))
	if err != nil {
		return sdk.Stack{}, nil, fmt.Errorf("the stored schema: %w", err)
	}
	stack := sdk.Stack{Schema: sdk.NewSchema(schema)}
	for i, w := range found {
		l := &found[i].Layer
		switch w.Kind {
		case settings.Platform:
			l.Name, stack.Platform = sdk.LayerPlatform, l
		case settings.Plan:
			l.Name, stack.Plan = sdk.LayerPlan(r.Plan), l
		case settings.Region:
			l.Name, stack.Region = sdk.LayerRegion(r.Region), l
		case settings.Tenant:
			if w.ID != r.Tenant.String() {
				l.Name, stack.Parent = sdk.LayerParent, l
			} else {
				l.Name, stack.Tenant = sdk.LayerTenant(tenantID.String()), l
			}
		case settings.Environment:
			l.Name, stack.Environment = sdk.LayerEnvironment(tenantID.String(), r.Environment), l
		}
	}
	if stack.Rolling, found, err = rollingOf(ctx, q, n, r, tenantID, found); err != nil {
		return stack, found, err
	}
	stack.Kills, err = killsOf(ctx, q, n, stack.Schema, r, tenantID)
	return stack, found, err
}

// effectiveOf is an effective value on the wire.
func effectiveOf(namespace string, stack sdk.Stack, provenance bool) *configv1.Effective {
	e := stack.Effective()
	out := &configv1.Effective{Namespace: namespace, Content: string(sdk.Canonical(e.Object)), Version: e.Version, Etag: e.Etag()}
	if !provenance {
		return out
	}
	for _, o := range e.Origins {
		out.Provenance = append(out.Provenance, provenanceOf(namespace, o, stack.Schema))
	}
	for _, o := range e.Absent {
		out.Absent = append(out.Absent, provenanceOf(namespace, o, stack.Schema))
	}
	out.Rollout = sideOf(stack.Rolling)
	return out
}

func provenanceOf(namespace string, o sdk.Origin, schema *sdk.Schema) *configv1.Provenance {
	p := &configv1.Provenance{
		Pointer: o.Pointer, Layer: o.Layer, Revision: o.Revision, Shadowed: o.Shadowed, Lock: o.Lock, Clamp: o.Clamp,
		Editable: schema.Editable(o.Pointer), Rollout: rolloutName(namespace, o.Rollout),
	}
	if o.Kill != nil {
		p.Kill = settingKilled(*o.Kill)
	}
	if v, ok := sdk.At(schema.Defaults(), o.Pointer); ok {
		p.Default = string(sdk.Canonical(v))
	}
	return p
}
