package gitops

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// Rule says which documents of a namespace need approval, and how many must approve.
type Rule struct {
	Layers []string `json:"layers"`
	Count  int      `json:"count,omitempty"`
}

// Content is the rule as the content of an [Item]: in order, so that equal rules are equal texts.
func (r Rule) Content() string {
	layers := slices.Sorted(slices.Values(r.Layers))
	return string(settings.Canonical(settings.Object{"layers": list(slices.Compact(layers)), "count": float64(max(r.Count, 1))}))
}

// ParseRule is the inverse of [Rule.Content]. Whether the layers are some that there are is the house's to say.
func ParseRule(content string) (Rule, error) {
	var r Rule
	o, err := settings.Parse([]byte(content))
	if err != nil {
		return r, err
	}
	for name := range o {
		if name != "layers" && name != "count" {
			return r, fmt.Errorf("/%s is no member of an approval rule: layers and count are", name)
		}
	}
	if err := json.Unmarshal([]byte(content), &r); err != nil {
		return r, errors.New("an approval rule has layers, a list of texts, and may have a count, a whole number")
	}
	if len(r.Layers) == 0 {
		return r, errors.New("an approval rule names layers; without the file there is no rule")
	}
	return r, nil
}

// rule is the content of a rule's file in its one form.
func rule(content string) (string, error) {
	r, err := ParseRule(content)
	return r.Content(), err
}
