package cli

import (
	"fmt"
	"slices"
	"strings"
)

// A form is a resource name with places in it, such as "tenants/{tenant}/domains/{domain}". A place "{chain=platform}"
// has a default and must be the last. The place {layer} takes "platform", "plans/x", "regions/x", "tenants/x" or just "x", and
// "tenants/x/environments/y".

// places are the names of a form's places.
func places(form string) []string {
	var names []string
	for rest := form; ; {
		_, after, ok := strings.Cut(rest, "{")
		if !ok {
			return names
		}
		var name string
		name, rest, _ = strings.Cut(after, "}")
		names = append(names, name)
	}
}

// usageOf is how a form's places are written in a command's usage.
func usageOf(form string) string {
	var b strings.Builder
	for _, place := range places(form) {
		name, _, optional := strings.Cut(place, "=")
		if optional {
			fmt.Fprintf(&b, " [%s]", name)
		} else {
			fmt.Fprintf(&b, " <%s>", name)
		}
	}
	return b.String()
}

// fill puts arguments into the places of a form and returns those that are left. One argument that is a whole name of
// the form is taken as it is.
func fill(form string, args []string) (name string, rest []string, err error) {
	if len(places(form)) > 1 && len(args) > 0 && whole(form, args[0]) {
		return args[0], args[1:], nil
	}
	name = form
	for _, place := range places(form) {
		id, fallback, optional := strings.Cut(place, "=")
		before, after, _ := strings.Cut(name, "{"+place+"}")
		value := fallback
		switch {
		case len(args) > 0:
			if value, err = placeValue(id, before, args[0]); err != nil {
				return "", nil, err
			}
			args = args[1:]
		case !optional:
			return "", nil, fmt.Errorf("<%s> is missing", id)
		}
		name = before + value + after
	}
	return name, args, nil
}

// placeValue is what an argument puts into a place: the id, also when the whole name was typed.
func placeValue(place, before, arg string) (string, error) {
	switch {
	case arg == "":
		return "", fmt.Errorf("<%s> is empty", place)
	case place == "layer":
		return layer(arg)
	case place == "host" || place == "key" || place == "pointer":
		return arg, nil
	case place == "envoy-domain": // has slashes where Envoy Gateway chose it
		return strings.TrimPrefix(arg, before), nil
	}
	id := strings.TrimPrefix(arg, before)
	if strings.Contains(id, "/") {
		return "", fmt.Errorf("%q is no <%s>", arg, place)
	}
	return id, nil
}

// layer is the name of a layer.
func layer(arg string) (string, error) {
	parts := strings.Split(arg, "/")
	switch {
	case arg == "platform":
		return arg, nil
	case len(parts) == 1:
		return "tenants/" + arg, nil
	case slices.Contains(parts, ""):
	case len(parts) == 2 && slices.Contains([]string{"plans", "regions", "tenants"}, parts[0]):
		return arg, nil
	case len(parts) == 4 && parts[0] == "tenants" && parts[2] == "environments":
		return arg, nil
	}
	return "", fmt.Errorf("%q is no layer; write %s", arg, layers)
}

// layers is how layers are written.
const layers = "platform, plans/<plan>, regions/<region>, <tenant> or tenants/<tenant>/environments/<environment>"

// whole says whether an argument has the literal parts of a form, in order, and something in each place.
func whole(form, arg string) bool {
	for _, place := range places(form) {
		before, after, _ := strings.Cut(form, "{"+place+"}")
		rest, ok := strings.CutPrefix(arg, before)
		if !ok || rest == "" {
			return false
		}
		next, _, _ := strings.Cut(after, "{")
		if form = after; next != "" {
			i := strings.Index(rest, next)
			if i < 1 {
				return false
			}
			arg = rest[i:]
			continue
		}
		return !strings.HasPrefix(rest, "/")
	}
	return false
}

// lastID is the last segment of a resource name: what an operator types to confirm.
func lastID(name string) string { return name[strings.LastIndex(name, "/")+1:] }
