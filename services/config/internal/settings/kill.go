package settings

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/santhosh-tekuri/jsonschema/v6"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// checkSafe refuses safe values that break their own schemas, and those that make the defaults invalid: nobody shall find
// out while something is on fire.
func (s *Schema) checkSafe(c *jsonschema.Compiler, schema sdk.Object) error {
	for _, safe := range sdk.SafeValues(schema) {
		at := safe.Schema + "/x-kill"
		own, err := c.Compile(base + (&url.URL{Fragment: safe.Schema}).String())
		if err != nil {
			return fmt.Errorf("%w: %w", ErrSchema, err)
		}
		if _, err := s.meter.validate(own, safe.Value); errors.Is(err, errWork) {
			s.heavy = true
		} else if err != nil {
			return fmt.Errorf("%w: %s has a value that its schema refuses", ErrSchema, quotePointer(at))
		}
		if safe.Pointer == "" {
			continue
		}
		stack := sdk.Stack{Schema: s.Merge, Kills: []sdk.Kill{{Pointer: safe.Pointer, Layer: sdk.LayerPlatform}}}
		if found := s.checkOwn(stack); len(found) > 0 {
			return fmt.Errorf("%w: with the value of %s the defaults are not valid: %s %s", ErrSchema, quotePointer(at),
				quotePointer(found[0].Pointer), found[0].Text)
		}
	}
	return nil
}
