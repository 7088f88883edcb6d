package registry

import "github.com/rowhouse-platform/rowhouse/sdk/fault"

// Adopt gives t a parent. isParent says whether any tenant, deleted ones included, has t as its parent. Families are of
// one level, so that the layers of settings are a fixed few and no circle can be made. Error: PARENT_INVALID.
func Adopt(t, parent Tenant, isParent bool) (Tenant, error) {
	switch {
	case t.UID == parent.UID:
		return t, badParent("self", "a tenant is not its own parent")
	case parent.State != StateActive && parent.State != StateSuspended:
		return t, badParent("state", "a tenant that is "+parent.State.String()+" cannot become a parent")
	case !parent.Parent.UID.IsZero():
		return t, badParent("nested", "that tenant has a parent of its own, and parents have none")
	case isParent:
		return t, badParent("has-children", "the tenant is a parent itself, and parents have none; deleted children count too")
	}
	t.Parent = Parent{UID: parent.UID, ID: parent.ID}
	return t, nil
}

func badParent(rule, text string) *fault.Error {
	return refuse(fault.FailedPrecondition, ReasonParentInvalid, "%s", text).WithMetadata("rule", rule).
		WithField(fault.FieldViolation{Field: "tenant.parent", Description: text})
}
