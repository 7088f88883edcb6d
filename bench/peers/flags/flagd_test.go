package flags_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	peer "github.com/diegoholiveira/jsonlogic/v3"
	schema "github.com/open-feature/flagd-schemas/json"
	"github.com/open-feature/flagd/core/pkg/evaluator"
	"github.com/open-feature/flagd/core/pkg/logger"
	"github.com/open-feature/flagd/core/pkg/model"
	"github.com/open-feature/flagd/core/pkg/store"
	"github.com/open-feature/flagd/core/pkg/sync"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/jsonlogic"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// sorted walks over an object's names in order.
func sorted(o object) iter.Seq[string] { return slices.Values(slices.Sorted(maps.Keys(o))) }

const source = "test"

// newFlagd makes flagd's evaluator. It also registers flagd's operators with its engine of JSONLogic, for the process.
func newFlagd(tb testing.TB) *evaluator.JSON {
	tb.Helper()
	log := logger.NewLogger(nil, false)
	s, err := store.NewStore(log, []string{source})
	if err != nil {
		tb.Fatal(err)
	}
	return evaluator.NewJSON(log, s)
}

// load gives a document to both.
func load(tb testing.TB, flagd *evaluator.JSON, document []byte) *flagset.Set {
	tb.Helper()
	if err := flagd.SetState(sync.DataSync{FlagData: string(document), Source: source}); err != nil {
		tb.Fatalf("flagd refuses %s: %v", document, err)
	}
	parsed, err := settings.Parse(document)
	if err != nil {
		tb.Fatal(err)
	}
	set, err := flagset.Compile(parsed, time.Now)
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// answer is what both say of a flag.
type answer struct {
	Value                 any
	Variant, Reason, Code string
	Metadata              map[string]any
}

func flagdAnswer(ctx context.Context, flagd *evaluator.JSON, key string, attributes object) answer {
	v := flagd.ResolveAsAnyValue(ctx, "", key, attributes)
	a := answer{Value: v.Value, Variant: v.Variant, Reason: v.Reason, Metadata: v.Metadata}
	if v.Reason == model.FallbackReason { // as flagd's services translate it
		a.Reason = model.DefaultReason
	}
	if v.Error != nil {
		a.Code = v.Error.Error()
	}
	return a
}

func ourAnswer(set *flagset.Set, key string, c *flagset.Context) answer {
	r := set.Evaluate(key, c)
	return answer{
		Value: r.Value(), Variant: r.Variant(), Reason: r.Reason().String(), Code: r.Code().String(), Metadata: r.Metadata(),
	}
}

// verdict is what an engine makes of a rule: JSON, or that it fails.
type verdict string

const (
	fails     verdict = "fails"
	notFinite verdict = "no finite number" // flagd fails only if that is the result of the whole rule
)

// theirs evaluates a rule as flagd's evaluator does.
func theirs(rule, data any) verdict {
	var result bytes.Buffer
	err := peer.Apply(bytes.NewReader(marshal(rule)), bytes.NewReader(marshal(data)), &result)
	var unsupported *json.UnsupportedValueError
	switch {
	case errors.As(err, &unsupported):
		return notFinite
	case err != nil:
		return fails
	}
	return verdict(marshal(decode(result.Bytes())))
}

// ours evaluates a rule. Data with $flagd in it is a flag's.
func ours(rule, data any) verdict {
	v, err := evaluate(rule, data)
	if err != nil {
		return fails
	}
	return verdict(marshal(v.Any()))
}

func evaluate(rule, data any) (jsonlogic.Value, error) {
	v, err := jsonlogic.Of(data)
	if err != nil {
		return v, err
	}
	in := jsonlogic.Input{Data: v}
	if members, ok := data.(object); ok {
		if own, ok := members["$flagd"].(object); ok {
			in.FlagKey, _ = own["flagKey"].(string)
			at, _ := own["timestamp"].(float64)
			in.Timestamp = int64(at)
		}
	}
	return jsonlogic.NewLibrary(nil).Compile(rule).Eval(in)
}

func marshal(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // it was decoded from JSON, or generated
	}
	return text
}

func decode(text []byte) (v any) {
	if err := json.Unmarshal(text, &v); err != nil {
		panic(err)
	}
	return v
}

// flagdSchema compiles the schema of flagd's documents.
func flagdSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	var errs []error
	for name, text := range map[string]string{
		"flagd": schema.FlagdSchema, "flags": schema.FlagSchema, "targeting": schema.TargetingSchema,
	} {
		parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		errs = append(errs, err, compiler.AddResource("https://flagd.dev/schema/v0/"+name+".json", parsed))
	}
	compiled, err := compiler.Compile("https://flagd.dev/schema/v0/flagd.json")
	if err := errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}
	return compiled
}
