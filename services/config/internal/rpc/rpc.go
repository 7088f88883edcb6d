// Package rpc serves rowhouse.config.v1.
package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/feedserver"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
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
	// Feeds serves the feed of settings.
	Feeds *feedserver.Server
	Clock func() time.Time
	// Log gets what no caller is told.
	Log *slog.Logger
}

// Register registers all services.
func Register(s *grpc.Server, c Config) {
	configv1.RegisterNamespaceServiceServer(s, &namespaceService{Config: c})
	configv1.RegisterDocumentServiceServer(s, &documentService{Config: c})
	configv1.RegisterSettingsServiceServer(s, &settingsService{Config: c})
}

// Domain and reasons of our own, see rowhouse.config.v1.Reason.
const (
	domain          = "rowhouse.config"
	schemaViolation = "SCHEMA_VIOLATION"
	malformed       = "MALFORMED_DOCUMENT"
	schemaInvalid   = "SCHEMA_INVALID"
	namespaceInUse  = "NAMESPACE_IN_USE"
)

func refuse(kind fault.Kind, reason, format string, args ...any) *fault.Error {
	return fault.New(kind, reason, format, args...).WithDomain(domain)
}

func badField(field, what string) error {
	return fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "%s %s", field, what).
		WithField(fault.FieldViolation{Field: field, Description: what})
}

// malformedField says that a document cannot be read, and why.
func malformedField(field string, err error) error {
	what := "is not acceptable: " + strings.TrimPrefix(err.Error(), "settings: ")
	return refuse(fault.InvalidArgument, malformed, "%s %s", field, what).
		WithField(fault.FieldViolation{Field: field, Description: what, Reason: malformed})
}

// compile is settings.Compile for a request.
func compile(namespace, text string) (*settings.Schema, error) {
	s, err := settings.Compile(namespace, text)
	if err != nil {
		what := "is not acceptable: " + strings.TrimPrefix(err.Error(), "settings: ")
		return nil, refuse(fault.InvalidArgument, schemaInvalid, "the schema %s", what).
			WithField(fault.FieldViolation{Field: "namespace.schema", Description: what, Reason: schemaInvalid})
	}
	return s, nil
}

// judge refuses a change that would break an effective value.
func judge(c settings.Change) error {
	findings := c.Findings()
	if len(findings) == 0 {
		return nil
	}
	const most = 50
	refusal := refuse(fault.InvalidArgument, schemaViolation, "the write would break %d rules of the schema", len(findings)).
		WithMetadata("violations", strconv.Itoa(len(findings)))
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
	return settings.State{Schema: schema, Plans: make(map[string]*sdk.Layer), Tenants: make(map[string]settings.Own)}, nil
}

// around reads what a write of the document at p is judged by: of a tenant its own layers alone, however many other
// tenants have documents.
func (c Config) around(ctx context.Context, q store.Querier, n *configv1.Namespace, p store.Place) (settings.State, error) {
	switch p.Owner.Kind {
	case settings.Tenant:
		s, err := stateOf(n)
		if err != nil {
			return s, err
		}
		found, err := store.Layers(ctx, q, n.GetUid(), p.Plan, p.ID)
		for _, w := range found {
			switch l := &w.Layer; w.Kind {
			case settings.Platform:
				s.Platform = l
			case settings.Plan:
				s.Plans[w.ID] = l
			case settings.Tenant:
				s.Tenants[p.Owner.Name] = settings.Own{Plan: p.Plan, Layer: l}
			}
		}
		return s, err
	case settings.Plan:
		return c.state(ctx, q, n, store.Scope{Plan: p.Owner.Name})
	default:
		return c.state(ctx, q, n, store.Scope{})
	}
}

// state reads what is written in a namespace; documents with the same text share their layer.
func (c Config) state(ctx context.Context, q store.Querier, n *configv1.Namespace, scope store.Scope) (settings.State, error) {
	s, err := stateOf(n)
	if err != nil {
		return s, err
	}
	return s, store.EachText(ctx, q, n.GetUid(), scope, func(k settings.Kind, ids []string, text string) error {
		var owners []tenant.TenantState
		if k == settings.Tenant {
			if owners = c.tenants(ids, scope.Plan); len(owners) == 0 {
				return nil
			}
		}
		o, err := sdk.Parse([]byte(text))
		if err != nil {
			return err
		}
		l := &sdk.Layer{Object: o}
		switch k {
		case settings.Platform:
			s.Platform = l
		case settings.Plan:
			for _, id := range ids {
				s.Plans[id] = l
			}
		case settings.Tenant:
			for _, t := range owners {
				s.Tenants[t.ID.String()] = settings.Own{Plan: t.Plan, Layer: l}
			}
		}
		return nil
	})
}

// tenants returns those with the uids that have the plan, "" for any. One that is gone for good has no effective value.
func (c Config) tenants(uids []string, plan string) (found []tenant.TenantState) {
	for _, uid := range uids {
		if t, ok := c.tenant(uid); ok && (plan == "" || t.Plan == plan) {
			found = append(found, t)
		}
	}
	return found
}

func (c Config) tenant(uid string) (tenant.TenantState, bool) {
	parsed, err := tenant.ParseUID(uid)
	if err != nil {
		return tenant.TenantState{}, false
	}
	return c.Trust.Tenant(parsed)
}

// effective merges what holds for a tenant.
func effective(ctx context.Context, q store.Querier, n *configv1.Namespace, plan, tenantUID, tenantID string) (sdk.Effective, error) {
	found, err := store.Layers(ctx, q, n.GetUid(), plan, tenantUID)
	if err != nil {
		return sdk.Effective{}, err
	}
	schema, err := sdk.Parse([]byte(n.GetSchema()))
	if err != nil {
		return sdk.Effective{}, fmt.Errorf("the stored schema: %w", err)
	}
	stack := sdk.Stack{Schema: schema}
	for _, w := range found {
		l := &w.Layer
		switch w.Kind {
		case settings.Platform:
			l.Name, stack.Platform = sdk.LayerPlatform, l
		case settings.Plan:
			l.Name, stack.Plan = settings.Owner{Kind: settings.Plan, Name: plan}.String(), l
		case settings.Tenant:
			l.Name, stack.Tenant = settings.Owner{Kind: settings.Tenant, Name: tenantID}.String(), l
		}
	}
	return stack.Effective(), nil
}

// effectiveOf is an effective value on the wire.
func effectiveOf(namespace string, e sdk.Effective, provenance bool) *configv1.Effective {
	out := &configv1.Effective{Namespace: namespace, Content: string(sdk.Canonical(e.Object)), Version: e.Version, Etag: e.Etag()}
	if !provenance {
		return out
	}
	for _, o := range e.Origins {
		out.Provenance = append(out.Provenance, &configv1.Provenance{
			Pointer: o.Pointer, Layer: o.Layer, Revision: o.Revision, Shadowed: o.Shadowed,
		})
	}
	return out
}
