package rule

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"

	"google.golang.org/grpc/metadata"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantotel"
)

const (
	metadataAuthorization = "authorization"
	bearer                = "bearer "
)

// authenticate fills in the principal.
func (e *Enforcer) authenticate(ctx context.Context, m *method, call *Call) error {
	if m.entry.Open {
		return nil
	}
	id, certified := identity.FromPeer(ctx)
	switch m.rule.GetPlane() {
	case apiv1.Plane_PLANE_ADMIN:
		return e.administrator(ctx, call, id, certified)
	case apiv1.Plane_PLANE_PEER:
		if !certified {
			return errNoCredential("a client certificate")
		}
		call.Principal = e.cfg.Authenticator.Peer(id)
		return nil
	case apiv1.Plane_PLANE_DATA:
		if !certified {
			return errNoCredential("a client certificate")
		}
		tc, err := tenant.FromContext(ctx)
		if err != nil {
			return err
		}
		call.Principal = tenantPrincipal(tc)
		call.Peer += " " + id.String()
		return nil
	default:
		return errors.New("the method has no plane")
	}
}

// administrator is the operator whose token came, and otherwise the workload. A token that is not accepted is never
// made good by a certificate.
func (e *Enforcer) administrator(ctx context.Context, call *Call, id identity.ID, certified bool) error {
	token, sent, err := bearerToken(ctx)
	switch {
	case err != nil:
		return err
	case sent:
		if certified {
			call.Peer += " " + id.String()
		}
		call.Principal, err = e.cfg.Authenticator.Bearer(ctx, token)
		return err
	case certified:
		call.Principal = e.cfg.Authenticator.Peer(id)
		return nil
	default:
		return errNoCredential("a bearer token or a client certificate")
	}
}

func bearerToken(ctx context.Context) (token string, sent bool, err error) {
	values := metadata.ValueFromIncomingContext(ctx, metadataAuthorization)
	switch {
	case len(values) == 0:
		return "", false, nil
	case len(values) > 1:
		return "", true, errCredential("more than one authorization was sent")
	case len(values[0]) < len(bearer) || !strings.EqualFold(values[0][:len(bearer)], bearer):
		return "", true, errCredential("the authorization is no bearer token")
	}
	return values[0][len(bearer):], true, nil
}

// tenantPrincipal names whoever acts inside a tenant, without telling who that is.
func tenantPrincipal(tc tenant.Context) operator.Principal {
	name := "tenant:" + tc.UID().String() + "/" + strings.ToLower(tc.PrincipalKind().String())
	if digest := tc.PrincipalDigest(); digest != [16]byte{} {
		name += ":" + hex.EncodeToString(digest[:])
	}
	return operator.NewPrincipal(operator.KindTenant, name)
}

// authorize decides about permission and reason.
func (e *Enforcer) authorize(ctx context.Context, m *method, call *Call) error {
	answer, audited := e.permitted(ctx, m, call)
	if audited == nil && m.rule.GetAudit() == apiv1.AuditClass_AUDIT_CLASS_SENSITIVE &&
		strings.TrimSpace(call.Reason) == "" {
		audited = fault.New(fault.InvalidArgument, fault.ReasonReasonRequired, "the call needs a reason").
			WithField(fault.FieldViolation{Field: fieldReason, Description: "must not be empty"})
		answer = audited
	}
	if audited != nil {
		e.deny(ctx, m, call, audited)
		return answer
	}
	if answer == nil && m.rule.GetPlane() == apiv1.Plane_PLANE_ADMIN {
		if id := targetTenant(call.Target); id != "" {
			tenantotel.StampTarget(ctx, id)
		}
	}
	return answer
}

// permitted returns what to answer and, where it was a denial, what to audit.
func (e *Enforcer) permitted(ctx context.Context, m *method, call *Call) (answer, denial error) {
	switch {
	case m.entry.Open:
		return nil, nil
	case m.rule.GetPlane() == apiv1.Plane_PLANE_DATA:
		err := e.inScope(ctx, m)
		return err, err
	case m.entry.Permission != nil:
		return e.permittedByTarget(ctx, m, call)
	case !call.Principal.Has(m.rule.GetPermission()):
		err := errPermission(m.rule.GetPermission())
		return err, err
	default:
		return nil, nil
	}
}

// permittedByTarget asks which permission the target needs. To those without it, a target that exists looks like one
// that does not.
func (e *Enforcer) permittedByTarget(ctx context.Context, m *method, call *Call) (answer, denial error) {
	if !call.Principal.HasAny(m.entry.Permissions...) {
		err := errPermission(m.entry.Permissions[0])
		return err, err
	}
	permission, err := m.entry.Permission(ctx, call.Target)
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return errNotFound(), nil
	case err != nil:
		return err, nil
	case !call.Principal.Has(permission):
		return errNotFound(), errPermission(permission)
	default:
		return nil, nil
	}
}

func (e *Enforcer) inScope(ctx context.Context, m *method) error {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return err
	}
	if scope := m.rule.GetPermission(); scope != "" && !tc.Scopes().Has(e.cfg.Scopes[scope]) {
		return errPermission(scope)
	}
	once := m.rule.GetContext() == apiv1.ContextClass_CONTEXT_CLASS_TRANSACTION
	if once && tc.Class() != tenant.ClassTransaction {
		return fault.New(fault.PermissionDenied, fault.ReasonPresenterRefused,
			"the call needs a tenant context made for it alone")
	}
	return nil
}

// deny tells the hook. Calls that leave no audit record are not told of.
func (e *Enforcer) deny(ctx context.Context, m *method, call *Call, err error) {
	plane := m.rule.GetPlane()
	audited := m.rule.GetAudit() != apiv1.AuditClass_AUDIT_CLASS_NONE && plane != apiv1.Plane_PLANE_DATA
	if e.cfg.Denied != nil && audited && isDenial(err) {
		e.cfg.Denied(ctx, *call, err)
	}
}

func isDenial(err error) bool {
	kind := fault.KindOf(err)
	return kind == fault.Unauthenticated || kind == fault.PermissionDenied ||
		fault.ReasonOf(err) == fault.ReasonReasonRequired
}

// targetTenant returns the tenant in names such as "tenants/acme/domains/x".
func targetTenant(target string) string {
	rest, ok := strings.CutPrefix(target, "tenants/")
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(rest, "/")
	return id
}

func errNoCredential(what string) error {
	return fault.New(fault.Unauthenticated, fault.ReasonCredentialMissing, "the call needs %s", what)
}

func errCredential(cause string) error {
	return fault.New(fault.Unauthenticated, fault.ReasonCredentialInvalid, "the credential cannot be verified").
		WithCause(errors.New(cause))
}

func errPermission(permission string) error {
	return fault.New(fault.PermissionDenied, fault.ReasonPermissionMissing, "the caller lacks the permission %s", permission).
		WithMetadata("permission", permission)
}

func errNotFound() error {
	return fault.New(fault.NotFound, fault.ReasonResourceNotFound, "there is no such resource")
}
