package icu_test

import (
	"fmt"

	"golang.org/x/text/language"

	"github.com/rowhouse-platform/rowhouse/sdk/icu"
)

func Example() {
	m, err := icu.Parse("{name} hat {n, plural, =0 {keine Dateien} one {# Datei} other {# Dateien}}",
		icu.Arguments{"name": icu.Text, "n": icu.Number})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Format(language.German, map[string]any{"name": "Ann", "n": 1200}))
	// Output: Ann hat 1.200 Dateien <nil>
}
