package apiattack

import (
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/rowhouse-platform/rowhouse/gen/notes/v1" // for its descriptors, as those that follow
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/gateway/v1"
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/canary"
)

// Ordinary requests of all our methods obey the rules beside their fields, lean and full.
func TestRequestsObeyTheirRules(t *testing.T) {
	t.Parallel()
	watch := canary.New()
	r := &run{Target: Target{Canary: watch}, random: newRandom(1)}
	s := &side{name: victim, secret: watch.Secret(victim), values: map[string]bool{}}
	methods := 0
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if name := string(file.Package()); !strings.HasPrefix(name, "rowhouse.") && !strings.HasPrefix(name, "notes.") {
			return true
		}
		for i := range file.Services().Len() {
			for j := range file.Services().Get(i).Methods().Len() {
				m := newMethod(file.Services().Get(i).Methods().Get(j))
				methods++
				for _, how := range []style{{}, {full: true}, {full: true, names: true}, {member: 1}} {
					f := &filler{style: &how, r: r, s: s, m: m}
					if request, err := f.request(); err != nil {
						t.Errorf("%s %+v: %v %v", m.full, how, err, request)
					}
				}
			}
		}
		return true
	})
	if methods < 60 {
		t.Errorf("only %d methods were found", methods)
	}
}

func TestTextsMatchPatterns(t *testing.T) {
	t.Parallel()
	r := newRandom(2)
	for _, pattern := range []string{
		"^[a-z](-?[a-z0-9])*$", "^notes/[0-9a-f-]{36}$", "^(a|bc|d{3})+x?$", `^\d{4}-\d{2}$`, "^[^/]{3,5}$", "", "^(?i:ABC)$", `^[\p{L}]+$`,
		"^projects/[a-z]{2,8}/items/[A-Z]{4}[0-9]{2,}$",
	} {
		text, err := r.matching(pattern, 6)
		if err != nil || !regexp.MustCompile(pattern).MatchString(text) {
			t.Errorf("%s: %q, %v", pattern, text, err)
		}
	}
	if text, err := r.matching(`[^\x00-\x{10FFFF}]`, 6); err == nil {
		t.Errorf("a pattern that matches nothing gives %q", text)
	}
}

// An id that never existed looks like one that does.
func TestAbsentIDsKeepTheirForm(t *testing.T) {
	t.Parallel()
	r := newRandom(3)
	for id, form := range map[string]string{
		"01932f5e-7b3c-7a01-8000-00000000000a":       `^01932f5e-7b3c-7a01-8000-[0-9a-f]{12}$`,
		"notes/01932f5e-7b3c-7a01-8000-00000000000a": `^notes/01932f5e-7b3c-7a01-8000-[0-9a-f]{12}$`,
		"note_8Fk2xY":                      `^note_[0-9][A-Z][a-z][0-9][a-z][A-Z]$`,
		"projects/p/notes/7":               `^projects/p/notes/[1-9][0-9]{8}$`,
		"1234567890":                       `^[1-9][0-9]{9}$`,
		"deadbeef":                         `^[a-f]{8}$`,
		"\x01\x93\x2f\xfe\x01\x02\x03\x04": `^\x01`,
	} {
		for range 10 {
			got := r.alike(id)
			if len(got) < len(id) || got == id || !regexp.MustCompile(form).MatchString(strings.ToValidUTF8(got, "....")) {
				t.Errorf("%q: %q is not like it", id, got)
			}
		}
	}
}
