package settings

import (
	"fmt"

	"github.com/rowhouse-platform/rowhouse/internal/brand/look"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// RuleContrast is the rule of pairs of colours that are hard to tell apart.
const RuleContrast = "contrast"

// contrast judges the colours of a brand's effective value, on each domain that has colours of its own. What is no sound
// brand has no colours to judge; [sdk.CheckBrand] says why. Equal colours are judged once, and for the first pairs only a
// way out is looked for: a tenant may have many domains, and everybody's writes wait.
func contrast(o sdk.Object) []sdk.Problem {
	j := judge{known: make(map[string][]sdk.Problem), ways: make(map[look.Failure]string)}
	return sdk.EachDomain(o, [][]string{{"light", "dark", "light-contrast", "dark-contrast", "exceptions"}}, j.problems)
}

// mostProposals is for how many pairs the nearest colour that passes is looked for.
const mostProposals = 10

type judge struct {
	known map[string][]sdk.Problem // by the canonical text of the colours and exceptions
	ways  map[look.Failure]string
}

func (j *judge) problems(o sdk.Object) []sdk.Problem {
	key := string(sdk.Canonical(o))
	found, ok := j.known[key]
	if !ok {
		found = j.contrastOf(o)
		j.known[key] = found
	}
	return found
}

func (j *judge) contrastOf(o sdk.Object) (found []sdk.Problem) {
	b, err := sdk.BrandOf(sdk.Effective{Object: o})
	if err != nil {
		return nil
	}
	for _, f := range look.Check(b) {
		found = append(found, sdk.Problem{
			Pointer: sdk.Pointer(f.Side, f.Role), Rule: RuleContrast,
			Text: fmt.Sprintf("is hard to tell apart: %s has %s and needs %s; %s", f.Key(), f.Ratio, f.Need, j.wayOut(f)),
		})
	}
	return found
}

func (j *judge) wayOut(f look.Failure) string {
	if way, ok := j.ways[f]; ok {
		return way
	}
	if len(j.ways) == mostProposals {
		return fmt.Sprintf("the nearest that passes is said for the first %d pairs only", mostProposals)
	}
	way := "no colour passes there"
	if near := f.Nearest(); near != "" {
		way = "the nearest that passes is " + near
	}
	j.ways[f] = way
	return way
}

// HasExceptions reports whether a brand's document lets colours pass that are hard to tell apart, on any domain.
func HasExceptions(o sdk.Object) bool {
	if _, ok := o["exceptions"]; ok {
		return true
	}
	domains, _ := o["domains"].(sdk.Object)
	for _, d := range domains {
		if own, _ := d.(sdk.Object); own["exceptions"] != nil {
			return true
		}
	}
	return false
}
