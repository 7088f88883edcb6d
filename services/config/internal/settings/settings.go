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
	"strings"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Kind is which layer an owner is.
type Kind string

// The kinds of owners, the nearest to a tenant last.
const (
	Platform Kind = "platform"
	Plan     Kind = "plan"
	Tenant   Kind = "tenant"
)

// Owner is one layer: the platform, a plan, or a tenant as it was named.
type Owner struct {
	Kind Kind
	// Name is the plan's or tenant's id, empty for the platform.
	Name string
}

// ErrName is returned for what is not a name of ours.
var ErrName = errors.New("settings: not the name of a document or of its owner")

// ParseOwner reads "platform", "plans/{plan}" or "tenants/{tenant}".
func ParseOwner(name string) (Owner, error) {
	if name == sdk.LayerPlatform {
		return Owner{Kind: Platform}, nil
	}
	if id, ok := strings.CutPrefix(name, "plans/"); ok && id != "" && !strings.Contains(id, "/") {
		return Owner{Plan, id}, nil
	}
	if id, ok := strings.CutPrefix(name, "tenants/"); ok {
		if _, err := tenant.ParseID(id); err == nil {
			return Owner{Tenant, id}, nil
		}
	}
	return Owner{}, ErrName
}

// String returns the owner's resource name, which is the name of its layer.
func (o Owner) String() string {
	switch o.Kind {
	case Plan:
		return "plans/" + o.Name
	case Tenant:
		return "tenants/" + o.Name
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
