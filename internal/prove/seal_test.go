package prove_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/internal/prove"
)

func newKey(seed byte) (ed25519.PublicKey, ed25519.PrivateKey) {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	return private.Public().(ed25519.PublicKey), private
}

func sealed(t *testing.T) (envelope []byte, files []prove.File, r *prove.Report, public ed25519.PublicKey) {
	t.Helper()
	public, private := newKey(1)
	r = sample(t)
	files, err := r.Files()
	if err != nil {
		t.Fatal(err)
	}
	envelope, err = prove.Seal(r, files, private)
	if err != nil {
		t.Fatal(err)
	}
	return envelope, files, r, public
}

// The example of DSSE's protocol.
func TestAuthenticatedEncoding(t *testing.T) {
	t.Parallel()
	got := prove.Authenticated("http://example.com/HelloWorld", []byte("hello world"))
	if want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	envelope, files, r, public := sealed(t)
	other, _ := newKey(2)
	for _, keys := range [][]ed25519.PublicKey{{public}, {other, public}} {
		opened, err := prove.Open(envelope, keys)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, opened.Report); diff != "" {
			t.Errorf("another report (-want +got):\n%s", diff)
		}
		want, err := prove.Fingerprint(public)
		if err != nil || opened.Fingerprint != want || len(want) != 64 {
			t.Errorf("fingerprint %q, want %q; %v", opened.Fingerprint, want, err)
		}
		if got := strings.Join(opened.Names(), " "); got != "report.html report.json report.txt" {
			t.Errorf("the files are %q", got)
		}
		for _, f := range files {
			if !opened.Matches(f) {
				t.Errorf("%s does not match", f.Name)
			}
			f.Data = append(bytes.Clone(f.Data), ' ')
			if opened.Matches(f) {
				t.Errorf("%s matches with a blank more", f.Name)
			}
		}
		if opened.Matches(prove.File{Name: "evil.html"}) {
			t.Error("a file that was not signed matches")
		}
	}
}

// In the words of the standards, so that others' tools can verify it.
func TestEnvelopeIsStandard(t *testing.T) {
	t.Parallel()
	envelope, _, _, public := sealed(t)
	var e struct {
		PayloadType, Payload string
		Signatures           []struct{ KeyID, Sig string }
	}
	if err := json.Unmarshal(envelope, &e); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := base64.StdEncoding.DecodeString(e.Signatures[0].Sig)
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(public, append([]byte("DSSEv1 28 application/vnd.in-toto+json "+strconv.Itoa(len(payload))+" "), payload...), sig) {
		t.Error("the signature is not DSSE's")
	}
	var s struct {
		Type          string `json:"_type"`
		PredicateType string
		Subject       []struct {
			Name   string
			Digest map[string]string
		}
	}
	if err := json.Unmarshal(payload, &s); err != nil {
		t.Fatal(err)
	}
	if s.Type != "https://in-toto.io/Statement/v1" || s.PredicateType == "" || len(s.Subject) != 3 || len(s.Subject[0].Digest["sha256"]) != 64 {
		t.Errorf("the statement is %+v", s)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	good, _, r, public := sealed(t)
	other, otherPrivate := newKey(2)
	keys := []ed25519.PublicKey{public}
	edit := func(field string, change func(string) string) []byte {
		var e map[string]any
		if err := json.Unmarshal(good, &e); err != nil {
			t.Fatal(err)
		}
		e[field] = change(e[field].(string))
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	forged, err := prove.Seal(r, nil, otherPrivate)
	if err != nil {
		t.Fatal(err)
	}
	turned := edit("payload", func(s string) string {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(bytes.Replace(b, []byte(`"verdict":"fail"`), []byte(`"verdict":"pass"`), 1))
	})
	for name, test := range map[string]struct {
		data []byte
		keys []ed25519.PublicKey
	}{
		"another key":        {good, []ed25519.PublicKey{other}},
		"no key":             {good, nil},
		"another's report":   {forged, keys},
		"a turned verdict":   {turned, keys},
		"another type":       {edit("payloadType", func(string) string { return "application/json" }), keys},
		"no envelope":        {[]byte("{}"), keys},
		"no JSON":            {[]byte("x"), keys},
		"nothing":            {nil, keys},
		"a file of its own":  {[]byte(render(t, r)["report.json"]), keys},
		"payload not base64": {edit("payload", func(s string) string { return "!" + s }), keys},
		"another statement":  {statement(t, inToto, `"`+inTotoStatement+`"`, `"https://slsa.dev/provenance/v1"`, format), keys},
		"no statement":       {statement(t, inToto, `"https://example.com/Statement"`, ours, format), keys},
		"no in-toto":         {statement(t, "text/plain", `"`+inTotoStatement+`"`, ours, format), keys},
		"an unknown format":  {statement(t, inToto, `"`+inTotoStatement+`"`, ours, `"rowhouse-prove/9"`), keys},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := prove.Open(test.data, test.keys); !errors.Is(err, prove.ErrSignature) {
				t.Errorf("error %v, want ErrSignature", err)
			}
		})
	}
}

const (
	inToto          = "application/vnd.in-toto+json"
	inTotoStatement = "https://in-toto.io/Statement/v1"
	ours            = `"https://github.com/rowhouse-platform/rowhouse/prove/v1"`
	format          = `"rowhouse-prove/1"`
)

// statement signs any statement with the right key; what it is made of is JSON.
func statement(t *testing.T, kind, of, predicate, format string) []byte {
	t.Helper()
	_, private := newKey(1)
	payload := []byte(`{"_type":` + of + `,"predicateType":` + predicate + `,"predicate":{"format":` + format + `}}`)
	b, err := json.Marshal(map[string]any{
		"payloadType": kind, "payload": payload,
		"signatures": []map[string]any{{"keyid": "x", "sig": ed25519.Sign(private, prove.Authenticated(kind, payload))}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What the refusals leave is accepted, so that each of them is for one reason.
func TestOpenAcceptsTheRest(t *testing.T) {
	t.Parallel()
	public, _ := newKey(1)
	if _, err := prove.Open(statement(t, inToto, `"`+inTotoStatement+`"`, ours, format), []ed25519.PublicKey{public}); err != nil {
		t.Error(err)
	}
}

// No bit of what is signed can be turned.
func TestEveryBitOfTheSignatureCounts(t *testing.T) {
	t.Parallel()
	good, _, _, public := sealed(t)
	var e struct {
		PayloadType string `json:"payloadType"`
		Payload     []byte `json:"payload"`
		Signatures  []struct {
			Sig []byte `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(good, &e); err != nil {
		t.Fatal(err)
	}
	try := func(what string, i int) {
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := prove.Open(b, []ed25519.PublicKey{public}); !errors.Is(err, prove.ErrSignature) {
			t.Errorf("%s %d turned: error %v", what, i, err)
		}
	}
	sig := e.Signatures[0].Sig
	for i := range len(sig) * 8 {
		sig[i/8] ^= 1 << (i % 8)
		try("bit of the signature", i)
		sig[i/8] ^= 1 << (i % 8)
	}
	for i := 0; i < len(e.Payload); i += 97 {
		e.Payload[i] ^= 1
		try("byte of the payload", i)
		e.Payload[i] ^= 1
	}
}
