// Package meter is what quota knows about limits, without wire or database: whose
// limit a name means, and which of several layers holds.
package meter

import (
	"errors"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Layer is who sets a limit.
type Layer string

// The layers, the nearest to a tenant last.
const (
	Platform Layer = "platform"
	Plan     Layer = "plan"
	Tenant   Layer = "tenant"
)

// Owner is one place where limits are set: the platform, a plan, or a tenant as it
// was named.
type Owner struct {
	Layer Layer
	// Name is the plan's or tenant's id, empty for the platform.
	Name string
}

// ErrName is returned for what is not a name of ours.
var ErrName = errors.New("meter: not the name of a limit or of its owner")

// ParseOwner reads "platform", "plans/{plan}" or "tenants/{tenant}".
func ParseOwner(name string) (Owner, error) {
	if name == "platform" {
		return Owner{Layer: Platform}, nil
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

// String returns the owner's resource name.
func (o Owner) String() string {
	switch o.Layer {
	case Plan:
		return "plans/" + o.Name
	case Tenant:
		return "tenants/" + o.Name
	default:
		return string(Platform)
	}
}

// ParseName reads "{owner}/limits/{limit}".
func ParseName(name string) (o Owner, id string, err error) {
	owner, id, ok := strings.Cut(name, "/limits/")
	if !ok || id == "" || strings.Contains(id, "/") {
		return o, "", ErrName
	}
	o, err = ParseOwner(owner)
	return o, id, err
}
