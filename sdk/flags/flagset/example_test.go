package flagset_test

import (
	"fmt"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

func Example() {
	document, err := settings.Parse([]byte(`{
		"$evaluators": {"staff": {"ends_with": [{"var": "email"}, "@example.com"]}},
		"flags": {
			"new-checkout": {
				"state": "ENABLED",
				"variants": {"on": true, "off": false},
				"defaultVariant": "off",
				"targeting": {"if": [{"or": [{"$ref": "staff"}, {"==": [{"var": "plan"}, "enterprise"]}]}, "on"]}
			}
		}
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	set, err := flagset.Compile(document, time.Now)
	if err != nil {
		fmt.Println(err)
		return
	}
	who := flagset.Identity{Tenant: "acme", Plan: "business"} // from the verified tenant context
	for _, email := range []string{"ann@example.com", "bob@acme.test"} {
		caller, err := flagset.NewContext(who, map[string]any{"email": email, "plan": "enterprise"})
		if err != nil {
			fmt.Println(err)
			return
		}
		result := set.Evaluate("new-checkout", caller)
		on, _ := result.Bool()
		fmt.Println(email, on, result.Variant(), result.Reason())
	}
	// Output:
	// ann@example.com true on TARGETING_MATCH
	// bob@acme.test false off DEFAULT
}
