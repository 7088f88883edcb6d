package rpc

import (
	"regexp"
	"strings"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

const maxTerms = 10

// parseFilter reads terms "field = value" joined by AND, over plan, state, parent and labels.{key}. A value with other characters
// than letters, digits, "_", ".", "/" and "-" stands in double quotes.
func parseFilter(filter string) (store.TenantList, error) {
	var list store.TenantList
	rest := strings.TrimSpace(filter)
	if rest == "" {
		return list, nil
	}
	term := regexp.MustCompile(`^([a-z_]+(?:\.(?:[A-Za-z0-9_./-]+|"[^"]*"))?)\s*=\s*("[^"]*"|[A-Za-z0-9_./-]+)\s*`)
	for n := 0; ; n++ {
		m := term.FindStringSubmatch(rest)
		if m == nil || n == maxTerms {
			return list, badFilter()
		}
		if !addTerm(&list, m[1], strings.Trim(m[2], `"`)) {
			return list, badFilter()
		}
		rest = rest[len(m[0]):]
		if rest == "" {
			return list, nil
		}
		var ok bool
		if rest, ok = strings.CutPrefix(rest, "AND "); !ok {
			return list, badFilter()
		}
		rest = strings.TrimSpace(rest)
	}
}

// addTerm reports whether the term may be used, each field once.
func addTerm(list *store.TenantList, field, value string) bool {
	if key, ok := strings.CutPrefix(field, "labels."); ok {
		key = strings.Trim(key, `"`)
		if _, twice := list.Labels[key]; twice || key == "" {
			return false
		}
		if list.Labels == nil {
			list.Labels = map[string]string{}
		}
		list.Labels[key] = value
		return true
	}
	switch field {
	case "plan":
		id, ok := strings.CutPrefix(value, "plans/")
		if list.Plan != "" || !ok || id == "" {
			return false
		}
		list.Plan = id
		return true
	case "parent":
		id, ok := strings.CutPrefix(value, "tenants/")
		if list.Parent != "" || !ok || id == "" {
			return false
		}
		list.Parent = id
		return true
	case "state":
		number, ok := tenancyv1.TenantState_value["TENANT_STATE_"+value]
		if list.State != 0 || !ok || number == 0 {
			return false
		}
		list.State = registry.State(number)
		return true
	default:
		return false
	}
}

func badFilter() error {
	return fault.New(fault.InvalidArgument, fault.ReasonFilterInvalid,
		`filter is terms "field = value" joined by AND, at most %d, over plan, state, parent and labels.{key}`, maxTerms).
		WithField(fault.FieldViolation{Field: "filter", Description: "cannot be read"})
}

func parseOrder(order string, list *store.TenantList) error {
	field, direction, _ := strings.Cut(strings.TrimSpace(order), " ")
	switch strings.TrimSpace(direction) {
	case "":
	case "desc":
		list.Descending = true
	default:
		return badField("order_by", `is "name" or "create_time", each with an optional " desc"`)
	}
	switch field {
	case "", "name":
	case "create_time":
		list.ByTime = true
	default:
		return badField("order_by", `is "name" or "create_time", each with an optional " desc"`)
	}
	return nil
}
