package ofrep

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"math"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/jsonlogic"
)

// evaluator is the version of how answers are made. It changes whenever equal flags and contexts may get other answers,
// or answers another form.
const evaluator = 1

// etagKey is all that the answer for all flags is made of. Two requests with equal keys get equal answers, so one that
// names the ETag of the other needs none; providers keep an ETag while their context changes.
type etagKey struct {
	// version is that of the flags.
	version string
	// key is the id of the client key, whose kind says which of them are seen. It is also in the address of the stream
	// that the answer names, as is epoch: a 304 renews no address.
	key   string
	epoch uint32
	// context is what rules see, the tenant included.
	context jsonlogic.Value
	// times are the answers of flags that read the time.
	times [sha256.Size]byte
}

// String returns the ETag: quoted, never cut.
func (k etagKey) String() string {
	const usual = 512
	d := make(digest, 0, usual)
	d.number(evaluator)
	d.text(k.version)
	d.text(k.key)
	d.number(uint64(k.epoch))
	d.value(k.context)
	d = append(d, k.times[:]...)
	sum := sha256.Sum256(d)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `"`
}

// digest collects values so that no two sequences look the same.
type digest []byte

func (d *digest) number(n uint64) { *d = binary.BigEndian.AppendUint64(*d, n) }

func (d *digest) text(s string) {
	d.number(uint64(len(s)))
	*d = append(*d, s...)
}

// value writes a JSON value. Members come by name, numbers as what rules compute with.
func (d *digest) value(v jsonlogic.Value) {
	d.number(uint64(v.Kind()))
	switch v.Kind() {
	case jsonlogic.Null:
	case jsonlogic.Bool:
		if v.Bool() {
			d.number(1)
		} else {
			d.number(0)
		}
	case jsonlogic.Number:
		d.number(math.Float64bits(v.Number()))
	case jsonlogic.String:
		d.text(v.String())
	case jsonlogic.List:
		d.number(uint64(len(v.Items())))
		for _, item := range v.Items() {
			d.value(item)
		}
	case jsonlogic.Object:
		d.number(uint64(len(v.Members())))
		for _, m := range v.Members() {
			d.text(m.Name)
			d.value(m.Value)
		}
	}
}

// times collects the answers of flags that read the time.
type times struct{ digest }

func (t *times) add(key string, r flagset.Result) {
	t.text(key)
	t.number(uint64(r.Code()))
	t.number(uint64(r.Reason()))
	t.text(r.Variant())
}

// sum is the same wherever no flag reads the time.
func (t *times) sum() [sha256.Size]byte { return sha256.Sum256(t.digest) }

// timesOf evaluates the flags that read the time, and no others.
func timesOf(view *flags.View, c *flagset.Context, k *clientkey.Key) [sha256.Size]byte {
	var t times
	for _, key := range view.Timed() {
		if result := view.Evaluate(key, c); visible(k, result.Metadata()) {
			t.add(key, result)
		}
	}
	return t.sum()
}

// matches reports whether a list of ETags (RFC 9110, 13.1.2) names this one. "*" names none: it asks for nothing that a
// client of ours could have.
func matches(given []string, tag string) bool {
	for _, line := range given {
		for name := range strings.SplitSeq(line, ",") {
			if strings.TrimPrefix(strings.TrimSpace(name), "W/") == tag {
				return true
			}
		}
	}
	return false
}
