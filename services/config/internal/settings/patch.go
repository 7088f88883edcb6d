package settings

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// PatchError says that one operation of a JSON Patch cannot be done. Nothing of the patch was then.
type PatchError struct {
	// Pointer is the operation's place in the patch, "/0".
	Pointer string
	// Test says that it is a "test" of what is not so.
	Test bool
	why  string
}

// Error implements error.
func (e *PatchError) Error() string { return e.Pointer + ": " + e.why }

// maxCopied bounds what "copy" adds, in bytes: a few of them could double a document again and again.
const maxCopied = 1 << 20

// JSONPatched is [Content] of a document after a JSON Patch (RFC 6902): all its operations are done, or none. The error is
// a [PatchError], or wraps [sdk.ErrDocument] where the patch itself or its result cannot be read.
func JSONPatched(content, patch string) (sdk.Object, string, error) {
	v, err := sdk.ParseValue([]byte(patch))
	if err != nil {
		return nil, "", err
	}
	operations, ok := v.([]any)
	if !ok {
		return nil, "", fmt.Errorf("%w: not a list of operations", sdk.ErrDocument)
	}
	for i, o := range operations {
		if why := operation(o); why != "" {
			return nil, "", &PatchError{Pointer: fmt.Sprintf("/%d", i), why: why}
		}
	}
	decoded, err := jsonpatch.DecodePatch(sdk.Canonical(operations))
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", sdk.ErrDocument, err)
	}
	options := jsonpatch.NewApplyOptions()
	options.SupportNegativeIndices, options.AccumulatedCopySizeLimit, options.EscapeHTML = false, maxCopied, false
	apply := func(n int) ([]byte, error) { return decoded[:n].ApplyWithOptions([]byte(content), options) }
	text, err := apply(len(decoded))
	if err != nil {
		// The library does not say which it was.
		failed := sort.Search(len(decoded), func(i int) bool { _, err := apply(i + 1); return err != nil })
		return nil, "", &PatchError{
			Pointer: fmt.Sprintf("/%d", failed), Test: errors.Is(err, jsonpatch.ErrTestFailed), why: whyFailed(operations[failed], err),
		}
	}
	return Content(string(text))
}

func whyFailed(o any, err error) string {
	operation, _ := o.(sdk.Object)
	switch {
	case errors.Is(err, jsonpatch.ErrTestFailed):
		return fmt.Sprintf("%s is not what the test says", operation["path"])
	case operation["op"] == "copy" || operation["op"] == "move":
		return fmt.Sprintf("cannot %s from %s to %s", operation["op"], operation["from"], operation["path"])
	default:
		return fmt.Sprintf("cannot %s at %s", operation["op"], operation["path"])
	}
}

// operation says what is wrong with one operation before it is tried.
func operation(v any) string {
	o, ok := v.(sdk.Object)
	if !ok {
		return "is not an object"
	}
	op, _ := o["op"].(string)
	members := map[string][]string{
		"add": {"path", "value"}, "replace": {"path", "value"}, "test": {"path", "value"}, "remove": {"path"},
		"move": {"from", "path"}, "copy": {"from", "path"},
	}[op]
	if members == nil {
		return `must have an "op": add, remove, replace, move, copy or test`
	}
	for _, name := range members {
		member, ok := o[name]
		if !ok {
			return fmt.Sprintf("lacks %q", name)
		}
		if pointer, isText := member.(string); name != "value" && (!isText || !isPointer(pointer)) {
			return fmt.Sprintf("%q is not a JSON pointer", name)
		}
	}
	return ""
}

// isPointer says whether a text is a JSON pointer (RFC 6901).
func isPointer(s string) bool {
	plain := strings.NewReplacer("~0", "", "~1", "").Replace(s)
	return (s == "" || s[0] == '/') && !strings.Contains(plain, "~")
}
