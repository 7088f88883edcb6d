// Package settings is what config knows about settings, without wire or database: whose
// document a name means, what a schema demands, and whether a write leaves every
// tenant that it concerns with a valid effective value.
//
// How layers are merged is not decided here but in sdk/settings, with which readers
// merge too. Start at [Change.Findings].
package settings

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Kind is which layer an owner is.
type Kind string

// The kinds of owners, the nearest to a tenant last. A parent is no kind: what its children see of it is its own layer.
const (
	Platform    Kind = "platform"
	Plan        Kind = "plan"
	Region      Kind = "region"
	Tenant      Kind = "tenant"
	Environment Kind = "environment"
)

// Owner is one layer: the platform, a plan, a region, a tenant as it was named, or one of its environments.
type Owner struct {
	Kind Kind
	// Name is the plan's, region's or tenant's id, empty for the platform.
	Name string
	// Environment is the tenant's environment, empty for all other kinds.
	Environment string
}

// ErrName is returned for what is not a name of ours.
var ErrName = errors.New("settings: not the name of a document or of its owner")

// ParseOwner reads "platform", "plans/{plan}", "regions/{region}", "tenants/{tenant}" or
// "tenants/{tenant}/environments/{environment}".
func ParseOwner(name string) (Owner, error) {
	parts := strings.Split(name, "/")
	switch {
	case name == sdk.LayerPlatform:
		return Owner{Kind: Platform}, nil
	case len(parts) == 2 && parts[0] == "plans" && parts[1] != "":
		return Owner{Kind: Plan, Name: parts[1]}, nil
	case len(parts) == 2 && parts[0] == "regions" && label(parts[1], MaxRegion):
		return Owner{Kind: Region, Name: parts[1]}, nil
	case len(parts) == 2 && parts[0] == "tenants":
		return tenantOwner(Owner{Kind: Tenant, Name: parts[1]})
	case len(parts) == 4 && parts[0] == "tenants" && parts[2] == "environments" && label(parts[3], MaxEnvironment):
		return tenantOwner(Owner{Kind: Environment, Name: parts[1], Environment: parts[3]})
	default:
		return Owner{}, ErrName
	}
}

// ParseWildcard reads what stands for many layers: "-" for all, "plans/-", "regions/-", "tenants/-" for tenants and their
// environments, and "tenants/{tenant}/environments/-" for those of the tenant whose id it returns. It returns no kinds for
// anything else.
func ParseWildcard(name string) (kinds []Kind, tenantID string) {
	switch name {
	case "-":
		return []Kind{Platform, Plan, Region, Tenant, Environment}, ""
	case "plans/-":
		return []Kind{Plan}, ""
	case "regions/-":
		return []Kind{Region}, ""
	case "tenants/-":
		return []Kind{Tenant, Environment}, ""
	}
	if id, ok := strings.CutSuffix(name, "/environments/-"); ok {
		if o, err := ParseOwner(id); err == nil && o.Kind == Tenant {
			return []Kind{Environment}, o.Name
		}
	}
	return nil, ""
}

// tenantOwner is o, unless its name is no tenant's id.
func tenantOwner(o Owner) (Owner, error) {
	if _, err := tenant.ParseID(o.Name); err != nil {
		return Owner{}, ErrName
	}
	return o, nil
}

// Bounds of names, in characters.
const (
	MaxRegion      = 24
	MaxEnvironment = 32
)

var labels = regexp.MustCompile(`^[a-z](-?[a-z0-9])*$`)

func label(s string, most int) bool { return len(s) <= most && labels.MatchString(s) }

// OfTenant says whether the owner is a tenant or one of its environments.
func (o Owner) OfTenant() bool { return o.Kind == Tenant || o.Kind == Environment }

// String returns the owner's resource name, which is the name of its layer.
func (o Owner) String() string {
	switch o.Kind {
	case Plan:
		return sdk.LayerPlan(o.Name)
	case Region:
		return sdk.LayerRegion(o.Name)
	case Tenant:
		return sdk.LayerTenant(o.Name)
	case Environment:
		return sdk.LayerEnvironment(o.Name, o.Environment)
	default:
		return sdk.LayerPlatform
	}
}

// Document returns the name of the owner's document in a namespace.
func (o Owner) Document(namespace string) string { return o.String() + "/config/" + namespace }

// ParseName reads "{owner}/config/{namespace}".
func ParseName(name string) (o Owner, namespace string, err error) {
	owner, namespace, ok := strings.Cut(name, "/config/")
	if !ok || namespace == "" || strings.Contains(namespace, "/") {
		return o, "", ErrName
	}
	o, err = ParseOwner(owner)
	return o, namespace, err
}

// ParseNamespace reads "namespaces/{namespace}".
func ParseNamespace(name string) (string, error) {
	id, ok := strings.CutPrefix(name, "namespaces/")
	if !ok || id == "" || strings.Contains(id, "/") {
		return "", ErrName
	}
	return id, nil
}

// Content reads a document and returns it with its canonical text. That text is read
// once more, because it is what readers get: a short number may be a long one there.
func Content(text string) (sdk.Object, string, error) {
	o, err := sdk.Parse([]byte(text))
	if err != nil {
		return nil, "", err
	}
	return canonical(o)
}

// Patched is Content of a document after a merge patch (RFC 7396).
func Patched(content, patch string) (sdk.Object, string, error) {
	o, err := sdk.Parse([]byte(content))
	if err != nil {
		return nil, "", fmt.Errorf("the current content: %w", err)
	}
	p, err := sdk.Parse([]byte(patch))
	if err != nil {
		return nil, "", err
	}
	return canonical(sdk.Patch(o, p))
}

func canonical(o sdk.Object) (sdk.Object, string, error) {
	text := sdk.Canonical(o)
	o, err := sdk.Parse(text)
	return o, string(text), err
}
