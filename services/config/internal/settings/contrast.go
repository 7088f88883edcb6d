package settings

import (
	"fmt"

	"github.com/rowhouse-platform/rowhouse/internal/brand/look"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// RuleContrast is the rule of pairs of colours that are hard to tell apart.
const RuleContrast = "contrast"

// contrast judges the colours of a brand's effective value, on each domain. What is no sound brand has no colours to
// judge; [sdk.CheckBrand] says why.
func contrast(o sdk.Object) []sdk.Problem {
	common := contrastOf(o)
	return append(common, sdk.EachDomain(o, contrastOf)...)
}

func contrastOf(o sdk.Object) (found []sdk.Problem) {
	b, err := sdk.BrandOf(sdk.Effective{Object: o})
	if err != nil {
		return nil
	}
	for _, f := range look.Check(b) {
		way := "no colour passes there"
		if f.Nearest != "" {
			way = "the nearest that passes is " + f.Nearest
		}
		found = append(found, sdk.Problem{
			Pointer: sdk.Pointer(f.Side, f.Role), Rule: RuleContrast,
			Text: fmt.Sprintf("is hard to tell apart: %s has %s and needs %s; %s", f.Key(), f.Ratio, f.Need, way),
		})
	}
	return found
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
