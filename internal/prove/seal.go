package prove

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
)

// What an envelope holds: a DSSE envelope of an in-toto statement, so that tools which know
// those can verify it without us.
const (
	payloadType   = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://github.com/rowhouse-platform/rowhouse/prove/v1"
)

// maxEnvelope bounds what Open reads, in bytes.
const maxEnvelope = 64 << 20

// ErrSignature says that an envelope was not signed by the key, or is not what it was when
// it was signed.
var ErrSignature = errors.New("the signature does not hold")

// envelope is a DSSE envelope, protocol version 1. See github.com/secure-systems-lab/dsse.
type envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     []byte      `json:"payload"` // base64 in JSON
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	KeyID string `json:"keyid"`
	Sig   []byte `json:"sig"`
}

// statement is an in-toto statement, version 1.
type statement struct {
	Type          string          `json:"_type"`
	Subject       []subject       `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// File is a rendering of a report that a signature covers.
type File struct {
	Name string
	Data []byte
}

// Files returns the report in all its forms: report.json, report.txt and report.html.
func (r *Report) Files() ([]File, error) {
	var files []File
	for _, form := range []struct {
		name  string
		write func(io.Writer) error
	}{{"report.json", r.WriteJSON}, {"report.txt", r.WriteText}, {"report.html", r.WriteHTML}} {
		var b bytes.Buffer
		if err := form.write(&b); err != nil {
			return nil, err
		}
		files = append(files, File{form.name, b.Bytes()})
	}
	return files, nil
}

// Seal signs the report and its files, and returns the envelope as JSON. The report is in the
// envelope as well, which so can be read alone.
func Seal(r *Report, files []File, key ed25519.PrivateKey) ([]byte, error) {
	predicate, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("sign the report: %w", err)
	}
	s := statement{Type: statementType, PredicateType: predicateType, Predicate: predicate}
	for _, f := range files {
		sum := sha256.Sum256(f.Data)
		s.Subject = append(s.Subject, subject{f.Name, map[string]string{"sha256": hex.EncodeToString(sum[:])}})
	}
	payload, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("sign the report: %w", err)
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("sign the report: not an Ed25519 key")
	}
	id, err := Fingerprint(public)
	if err != nil {
		return nil, err
	}
	e := envelope{payloadType, payload, []signature{{id, ed25519.Sign(key, authenticated(payloadType, payload))}}}
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("sign the report: %w", err)
	}
	return append(b, '\n'), nil
}

// Fingerprint returns the SHA-256 of a public key in its DER form, in hex:
// `openssl pkey -pubin -in FILE -outform DER | sha256sum` prints the same.
func Fingerprint(key ed25519.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("fingerprint: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// authenticated is DSSE's pre-authentication encoding, over which the signature is made.
func authenticated(kind string, payload []byte) []byte {
	b := []byte("DSSEv1 " + strconv.Itoa(len(kind)) + " " + kind + " " + strconv.Itoa(len(payload)) + " ")
	return append(b, payload...)
}

// Opened is a report whose signature holds.
type Opened struct {
	// Report is the report that was signed.
	Report *Report
	// Fingerprint is that of the key that signed it.
	Fingerprint string

	sums map[string]string
}

// Open verifies an envelope with any of the keys. What is not signed by one of them, and what
// is signed but no report of ours, is [ErrSignature].
func Open(data []byte, keys []ed25519.PublicKey) (*Opened, error) {
	if len(data) > maxEnvelope {
		return nil, fmt.Errorf("%w: the envelope has more than %d bytes", ErrSignature, maxEnvelope)
	}
	e, err := parseEnvelope(data)
	if err != nil {
		return nil, fmt.Errorf("%w: not a DSSE envelope: %w", ErrSignature, err)
	}
	signed := authenticated(e.PayloadType, e.Payload)
	for _, key := range keys {
		// The id in the envelope is not signed and says nothing: all keys are tried.
		if !slices.ContainsFunc(e.Signatures, func(s signature) bool { return ed25519.Verify(key, signed, s.Sig) }) {
			continue
		}
		o, err := parseStatement(e)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSignature, err)
		}
		o.Fingerprint, err = Fingerprint(key)
		return o, err
	}
	return nil, fmt.Errorf("%w: no signature of the key; it was changed, or somebody else signed it", ErrSignature)
}

// parseEnvelope reads an envelope. Other producers may write its base64 in the URL alphabet.
func parseEnvelope(data []byte) (envelope, error) {
	var text struct {
		PayloadType string `json:"payloadType"`
		Payload     string `json:"payload"`
		Signatures  []struct {
			KeyID string `json:"keyid"`
			Sig   string `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(data, &text); err != nil {
		return envelope{}, err
	}
	payload, err := anyBase64(text.Payload)
	e := envelope{PayloadType: text.PayloadType, Payload: payload}
	for _, s := range text.Signatures {
		sig, bad := anyBase64(s.Sig)
		e.Signatures, err = append(e.Signatures, signature{s.KeyID, sig}), errors.Join(err, bad)
	}
	return e, err
}

func anyBase64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		b, err = base64.URLEncoding.DecodeString(s)
	}
	return b, err
}

func parseStatement(e envelope) (*Opened, error) {
	var s statement
	if e.PayloadType != payloadType {
		return nil, fmt.Errorf("it holds %q, not a statement", e.PayloadType)
	}
	if err := json.Unmarshal(e.Payload, &s); err != nil {
		return nil, fmt.Errorf("the statement cannot be read: %w", err)
	}
	if s.Type != statementType || s.PredicateType != predicateType {
		return nil, fmt.Errorf("it states %q, not what prove does", s.PredicateType)
	}
	o := &Opened{Report: &Report{}, sums: map[string]string{}}
	if err := json.Unmarshal(s.Predicate, o.Report); err != nil {
		return nil, fmt.Errorf("the report cannot be read: %w", err)
	}
	if o.Report.Format != Format {
		return nil, fmt.Errorf("the report has format %q; this release reads %s", o.Report.Format, Format)
	}
	for _, sub := range s.Subject {
		o.sums[sub.Name] = sub.Digest["sha256"]
	}
	return o, nil
}

// Names returns the files that the signature covers, in order.
func (o *Opened) Names() []string {
	names := make([]string, 0, len(o.sums))
	for name := range o.sums {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Matches reports whether a file is byte for byte the one that was signed.
func (o *Opened) Matches(f File) bool {
	sum := sha256.Sum256(f.Data)
	return o.sums[f.Name] == hex.EncodeToString(sum[:])
}
