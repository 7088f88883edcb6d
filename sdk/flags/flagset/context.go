package flagset

import (
	"errors"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/jsonlogic"
)

// ErrContext is wrapped by what [NewContext] refuses.
var ErrContext = errors.New("flagset: not an acceptable evaluation context")

// Identity is what we know of a caller for certain. It comes from the verified tenant context and the caller's
// registration, never from what the caller says.
type Identity struct {
	Tenant, Plan, Region, Environment string
}

// Context is what rules are evaluated over: the caller's attributes, with our own over them. It is immutable and safe
// for concurrent use: make one per request, and evaluate all flags with it. The zero Context has no attributes.
type Context struct {
	data jsonlogic.Value
}

// NewContext makes a context of attributes as encoding/json decodes them.
func NewContext(who Identity, attributes map[string]any) (*Context, error) {
	data, err := jsonlogic.Of(attributes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrContext, err)
	}
	return ContextOf(who, data)
}

// ContextOf makes a context of an object. Members tenant, plan, region and environment are ours, and $flagd is the
// evaluation's: the caller's are dropped, but a tenant that is not who asks is refused.
func ContextOf(who Identity, attributes jsonlogic.Value) (*Context, error) {
	if kind := attributes.Kind(); kind != jsonlogic.Object && kind != jsonlogic.Null {
		return nil, fmt.Errorf("%w: no object", ErrContext)
	}
	if named, ok := attributes.Member("tenant"); ok && named != jsonlogic.OfString(who.Tenant) {
		return nil, fmt.Errorf("%w: it names another tenant", ErrContext)
	}
	ours := []jsonlogic.Member{
		{Name: "tenant", Value: jsonlogic.OfString(who.Tenant)}, {Name: "plan", Value: jsonlogic.OfString(who.Plan)},
		{Name: "region", Value: jsonlogic.OfString(who.Region)},
		{Name: "environment", Value: jsonlogic.OfString(who.Environment)},
	}
	members := make([]jsonlogic.Member, 0, len(attributes.Members())+len(ours))
	for _, m := range attributes.Members() {
		switch m.Name {
		case "tenant", "plan", "region", "environment", "$flagd":
		default:
			members = append(members, m)
		}
	}
	for _, m := range ours {
		if m.Value.String() != "" { // what we do not know is absent
			members = append(members, m)
		}
	}
	return &Context{data: jsonlogic.OfMembers(members)}, nil
}

// Data returns what rules see, without $flagd. Answers may be cached by it.
func (c *Context) Data() jsonlogic.Value { return c.data }
