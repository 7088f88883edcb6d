package tenant_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

var compareClaims = cmp.AllowUnexported(tenant.ID{})

// message says in protobuf-go what c says.
func message(c tenant.Claims) *tenancyv1.TenantContextPayload {
	blob := func(b []byte) []byte {
		if strings.Trim(string(b), "\x00") == "" {
			return nil
		}
		return b
	}
	return &tenancyv1.TenantContextPayload{
		TenantUid:           c.TenantUID[:],
		TenantGeneration:    c.Generation,
		PlacementModel:      tenancyv1.IsolationModel(c.Model),
		Cell:                c.Cell,
		Region:              c.Region,
		PlacementGeneration: c.PlacementGeneration,
		Plan:                c.Plan,
		PrincipalKind:       tenancyv1.PrincipalKind(c.PrincipalKind),
		PrincipalDigest:     blob(c.PrincipalDigest[:]),
		Scopes:              uint64(c.Scopes),
		Audience:            uint64(c.Audience),
		Minter:              c.Minter,
		IssueTime:           uint64(c.IssueTime.Unix()),
		ExpireTime:          uint64(c.ExpireTime.Unix()),
		Class:               tenancyv1.TenantContextClass(c.Class),
		Nonce:               blob(c.Nonce[:]),
		RequestDigest:       blob(c.RequestDigest[:]),
		TenantId:            c.TenantID.String(),
		CellNumber:          c.CellNumber,
		DbSeal:              blob(c.DBSeal[:]),
		FirstIssueTime:      uint64(max(c.FirstIssueTime.Unix(), 0)),
	}
}

// worstClaims says everything at its longest.
func worstClaims(tb testing.TB) tenant.Claims {
	tb.Helper()
	label := func(n int) string { return strings.Repeat("w", n) }
	id, err := tenant.ParseID(label(63))
	if err != nil {
		tb.Fatal(err)
	}
	c := tenant.Claims{
		TenantID: id, Generation: 1<<64 - 1, Model: tenant.ModelDatabase,
		Cell: label(20), CellNumber: 1<<32 - 1, Region: label(24), PlacementGeneration: 1<<64 - 1,
		Plan: label(20), PrincipalKind: tenant.PrincipalSupport, Scopes: 1<<64 - 1, Audience: 1<<64 - 1,
		Minter: label(12), IssueTime: time.Unix(1<<35-11, 0).UTC(), ExpireTime: time.Unix(1<<35-1, 0).UTC(),
		Class: tenant.ClassTransaction,
	}
	for _, b := range [][]byte{
		c.TenantUID[:], c.PrincipalDigest[:], c.Nonce[:], c.RequestDigest[:], c.DBSeal[:],
	} {
		for i := range b {
			b[i] = 0xff
		}
	}
	c.TenantUID[6], c.TenantUID[8] = 0x7f, 0xbf
	return c
}

// renewedClaims says everything at its longest that a renewed SESSION may say.
func renewedClaims(tb testing.TB) tenant.Claims {
	tb.Helper()
	c := worstClaims(tb)
	c.Class, c.Nonce, c.RequestDigest = tenant.ClassSession, [16]byte{}, [16]byte{}
	c.FirstIssueTime = c.ExpireTime.Add(-tenant.MaxChainLife)
	return c
}

// longest are the longest payloads of both kinds, with the numbers of their fields.
func longest(tb testing.TB) map[string]longestPayload {
	tb.Helper()
	found := map[string]longestPayload{"transaction": {claims: worstClaims(tb)}, "renewed session": {claims: renewedClaims(tb)}}
	for number := range uint64(21) {
		for name, p := range found {
			if onlyIn := map[uint64]string{16: "transaction", 17: "transaction", 21: "renewed session"}[number+1]; onlyIn == "" || onlyIn == name {
				p.fields = append(p.fields, number+1)
				found[name] = p
			}
		}
	}
	return found
}

type longestPayload struct {
	claims tenant.Claims
	fields []uint64
}

func drawClaims(t *rapid.T) tenant.Claims {
	label := func(what string, limit int) string {
		return rapid.StringMatching(`[a-z](-?[a-z0-9]){2,}`).Filter(func(s string) bool {
			return len(s) <= limit
		}).Draw(t, what)
	}
	blob := func(what string, b []byte) {
		copy(b, rapid.SliceOfN(rapid.Byte(), len(b)-1, len(b)-1).Draw(t, what))
		b[len(b)-1] = 1
	}
	number := func(what string, low uint64) uint64 {
		return max(low, rapid.Uint64().Draw(t, what)>>rapid.IntRange(0, 63).Draw(t, what+" shift"))
	}
	id, err := tenant.ParseID(label("tenant id", 63))
	if err != nil {
		t.Fatal(err)
	}
	c := tenant.Claims{
		TenantID: id, Generation: number("generation", 1),
		Model: tenant.Model(rapid.IntRange(1, 3).Draw(t, "model")),
		Cell:  label("cell", 20), CellNumber: rapid.Uint32Min(1).Draw(t, "cell number"), Region: label("region", 24),
		PlacementGeneration: number("placement generation", 1), Plan: label("plan", 20),
		PrincipalKind: tenant.PrincipalKind(rapid.IntRange(1, 6).Draw(t, "principal")),
		Scopes:        tenant.Scopes(number("scopes", 0)), Audience: tenant.Audience(number("audience", 1)),
		Minter: label("minter", 12), Class: tenant.Class(rapid.IntRange(1, 2).Draw(t, "class")),
		IssueTime:  time.Unix(rapid.Int64Range(1, 1<<35-1).Draw(t, "issue"), 0).UTC(),
		ExpireTime: time.Unix(rapid.Int64Range(1, 1<<35-1).Draw(t, "expire"), 0).UTC(),
	}
	blob("uid", c.TenantUID[:])
	c.TenantUID[6], c.TenantUID[8] = 0x70, 0x80
	if c.PrincipalKind != tenant.PrincipalVisitor {
		blob("principal digest", c.PrincipalDigest[:])
	}
	if c.Class == tenant.ClassTransaction {
		blob("nonce", c.Nonce[:])
		blob("request digest", c.RequestDigest[:])
	}
	if c.Class == tenant.ClassSession && rapid.Bool().Draw(t, "renewed") {
		first := rapid.Int64Range(1, 1<<35-2).Draw(t, "first issue")
		c.FirstIssueTime = time.Unix(first, 0).UTC()
		c.IssueTime = time.Unix(rapid.Int64Range(first+1, 1<<35-1).Draw(t, "later issue"), 0).UTC()
		c.ExpireTime = time.Unix(rapid.Int64Range(1, min(first+3600, 1<<35-1)).Draw(t, "bounded expire"), 0).UTC()
	}
	if rapid.Bool().Draw(t, "sealed") {
		blob("seal", c.DBSeal[:])
	}
	return c
}

func TestPayloadEqualsProtobuf(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := drawClaims(t)
		got := tenant.AppendPayload(nil, &c)
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(message(c))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("encoding differs from protobuf-go (-want +got):\n%s", diff)
		}
		var back tenant.Claims
		if err := tenant.DecodePayload(string(got), &back); err != nil {
			t.Fatalf("own encoding is refused: %v", err)
		}
		if diff := cmp.Diff(c, back, compareClaims); diff != "" {
			t.Fatalf("claims changed on the way (-want +got):\n%s", diff)
		}
	})
}

func TestWorstPayloadFits(t *testing.T) {
	t.Parallel()
	c := worstClaims(t)
	payload := tenant.AppendPayload(nil, &c)
	if len(payload) != tenant.MaxPayloadSize {
		t.Errorf("worst payload has %d bytes, the constant says %d", len(payload), tenant.MaxPayloadSize)
	}
	var back tenant.Claims
	if err := tenant.DecodePayload(string(payload), &back); err != nil {
		t.Errorf("worst payload: %v", err)
	}
	token, err := newSigner(t).Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	if len(token) != 384 || tenant.MaxTokenSize != 384 {
		t.Errorf("worst token has %d bytes, MaxTokenSize is %d, want 384", len(token), tenant.MaxTokenSize)
	}
	renewed := renewedClaims(t)
	if n := len(tenant.AppendPayload(nil, &renewed)); n > tenant.MaxPayloadSize {
		t.Errorf("the longest renewed session has %d bytes of payload", n)
	}
	if token, err := newSigner(t).Sign(renewed); err != nil || len(token) > tenant.MaxTokenSize {
		t.Errorf("the longest renewed session: %d bytes, %v", len(token), err)
	}
}

// pieces cuts a payload into its encoded fields.
func pieces(tb testing.TB, payload []byte) (out [][]byte) {
	tb.Helper()
	for len(payload) > 0 {
		tag, n := binary.Uvarint(payload)
		switch tag & 7 {
		case 0:
			_, m := binary.Uvarint(payload[n:])
			n += m
		case 1:
			n += 8
		case 2:
			size, m := binary.Uvarint(payload[n:])
			n += m + int(size)
		}
		out = append(out, payload[:n:n])
		payload = payload[n:]
	}
	return out
}

// TestOnlyOneEncoding rewrites a good payload in ways that protobuf-go reads as
// the same message, or nearly, and expects each to be refused.
func TestOnlyOneEncoding(t *testing.T) {
	t.Parallel()
	for name, long := range longest(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onlyOneEncoding(t, long)
		})
	}
}

func onlyOneEncoding(t *testing.T, long longestPayload) {
	t.Helper()
	fields := pieces(t, tenant.AppendPayload(nil, &long.claims))
	if len(fields) != len(long.fields) {
		t.Fatalf("payload has %d fields, want %d", len(fields), len(long.fields))
	}
	type rewrite struct {
		name string
		make func(i int, field []byte) []byte // what stands instead of field
	}
	for _, r := range []rewrite{
		{"overlong tag", func(_ int, f []byte) []byte { return overlong(f, 0) }},
		{"overlong value or length", func(_ int, f []byte) []byte {
			tag, n := binary.Uvarint(f)
			if tag&7 == 1 {
				n = 0 // fixed64 has no other varint
			}
			return overlong(f, n)
		}},
		{"left out", func(int, []byte) []byte { return nil }},
		{"twice", func(_ int, f []byte) []byte { return append(slices.Clip(f), f...) }},
		{"after the next", func(i int, f []byte) []byte {
			next := fields[(i+1)%len(fields)]
			return append(slices.Clip(next), f...)
		}},
		{"behind an unknown field", func(_ int, f []byte) []byte {
			return append(binary.AppendUvarint(nil, 22<<3), append([]byte{1}, f...)...)
		}},
		{"behind a field of another wire type", func(_ int, f []byte) []byte { return append([]byte{4 << 3, 1}, f...) }},
		{"behind a group", func(_ int, f []byte) []byte { return append([]byte{1<<3 | 3, 1<<3 | 4}, f...) }},
		{"behind an explicit zero", func(_ int, f []byte) []byte { return append([]byte{2 << 3, 0}, f...) }},
		{"cut", func(_ int, f []byte) []byte { return f[:len(f)-1] }},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			for i, f := range fields {
				var changed []byte
				for j, g := range fields {
					if i == j {
						g = r.make(i, f)
					} else if r.name == "after the next" && j == (i+1)%len(fields) {
						g = nil
					}
					changed = append(changed, g...)
				}
				var back tenant.Claims
				err := tenant.DecodePayload(string(changed), &back)
				mayBeAbsent := slices.Contains([]uint64{10, 20, 21}, long.fields[i]) // scopes, seal and first issue
				if err == nil && (r.name != "left out" || !mayBeAbsent) {
					t.Errorf("field %d %s is accepted", long.fields[i], r.name)
				}
			}
		})
	}
}

// overlong pads the varint at offset at with one byte that adds nothing.
func overlong(f []byte, at int) []byte {
	_, n := binary.Uvarint(f[at:])
	out := append([]byte{}, f[:at+n]...)
	out[at+n-1] |= 0x80
	out = append(out, 0)
	return append(out, f[at+n:]...)
}

// TestBitFlipsChangeMeaning is the codec's half of "one encoding per meaning":
// whoever could sign could not write one statement twice.
func TestBitFlipsChangeMeaning(t *testing.T) {
	t.Parallel()
	for name, long := range longest(t) {
		payload := tenant.AppendPayload(nil, &long.claims)
		for bit := range len(payload) * 8 {
			flipped := []byte(string(payload))
			flipped[bit/8] ^= 1 << (bit % 8)
			var back tenant.Claims
			if tenant.DecodePayload(string(flipped), &back) == nil && cmp.Equal(long.claims, back, compareClaims) {
				t.Errorf("%s: bit %d of the payload means nothing", name, bit)
			}
		}
	}
}

// TestFirstIssueHasOneEncoding holds that a context that was not renewed says
// nothing about its chain, and that no chain is longer than an hour. The payloads are
// what protobuf-go writes, so every one of them is canonical but for the rule.
func TestFirstIssueHasOneEncoding(t *testing.T) {
	t.Parallel()
	const hour = uint64(tenant.MaxChainLife / time.Second)
	good := renewedClaims(t)
	issue, expire := uint64(good.IssueTime.Unix()), uint64(good.ExpireTime.Unix())
	for name, c := range map[string]struct {
		first uint64
		class tenant.Class
		want  bool
	}{
		"a second before the issue":   {issue - 1, tenant.ClassSession, true},
		"an hour before the end":      {expire - hour, tenant.ClassSession, true},
		"more than an hour":           {expire - hour - 1, tenant.ClassSession, false},
		"the first second of all":     {1, tenant.ClassSession, false},
		"the issue itself":            {issue, tenant.ClassSession, false},
		"after the issue":             {issue + 1, tenant.ClassSession, false},
		"out of range":                {1 << 35, tenant.ClassSession, false},
		"of a one-request context":    {issue - 1, tenant.ClassTransaction, false},
		"absent from a session":       {0, tenant.ClassSession, true},
		"absent from the one-request": {0, tenant.ClassTransaction, true},
	} {
		claims := good
		if c.class == tenant.ClassTransaction {
			claims = worstClaims(t)
		}
		m := message(claims)
		m.FirstIssueTime = c.first
		payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var back tenant.Claims
		if err := tenant.DecodePayload(string(payload), &back); (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	explicit := append(tenant.AppendPayload(nil, new(worstClaims(t))), 21<<3&0x7f|0x80, 21<<3>>7, 0)
	if tenant.DecodePayload(string(explicit), new(tenant.Claims)) == nil {
		t.Error("an explicit zero is accepted")
	}
}

func TestSignRefusesBrokenClaims(t *testing.T) {
	t.Parallel()
	signer := newSigner(t)
	if _, err := signer.Sign(worstClaims(t)); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*tenant.Claims){
		"no uid":                         func(c *tenant.Claims) { c.TenantUID = tenant.UID{} },
		"uid of another version":         func(c *tenant.Claims) { c.TenantUID[6] = 0x4f },
		"uid of another variant":         func(c *tenant.Claims) { c.TenantUID[8] = 0xff },
		"no tenant id":                   func(c *tenant.Claims) { c.TenantID = tenant.ID{} },
		"no generation":                  func(c *tenant.Claims) { c.Generation = 0 },
		"no placement generation":        func(c *tenant.Claims) { c.PlacementGeneration = 0 },
		"no model":                       func(c *tenant.Claims) { c.Model = 0 },
		"unknown model":                  func(c *tenant.Claims) { c.Model = 4 },
		"no cell":                        func(c *tenant.Claims) { c.Cell = "" },
		"long cell":                      func(c *tenant.Claims) { c.Cell += "w" },
		"bad cell":                       func(c *tenant.Claims) { c.Cell = "cell_1" },
		"no cell number":                 func(c *tenant.Claims) { c.CellNumber = 0 },
		"long region":                    func(c *tenant.Claims) { c.Region += "w" },
		"long plan":                      func(c *tenant.Claims) { c.Plan += "w" },
		"long minter":                    func(c *tenant.Claims) { c.Minter += "w" },
		"no principal kind":              func(c *tenant.Claims) { c.PrincipalKind = 0 },
		"unknown principal kind":         func(c *tenant.Claims) { c.PrincipalKind = 7 },
		"visitor with digest":            func(c *tenant.Claims) { c.PrincipalKind = tenant.PrincipalVisitor },
		"user without digest":            func(c *tenant.Claims) { c.PrincipalDigest = [16]byte{} },
		"no audience":                    func(c *tenant.Claims) { c.Audience = 0 },
		"no class":                       func(c *tenant.Claims) { c.Class = 0 },
		"unknown class":                  func(c *tenant.Claims) { c.Class = 3 },
		"session with nonce":             func(c *tenant.Claims) { c.Class = tenant.ClassSession },
		"transaction without nonce":      func(c *tenant.Claims) { c.Nonce = [16]byte{} },
		"transaction without request":    func(c *tenant.Claims) { c.RequestDigest = [16]byte{} },
		"time past the limit":            func(c *tenant.Claims) { c.ExpireTime = c.ExpireTime.Add(time.Second) },
		"time before 1970":               func(c *tenant.Claims) { c.IssueTime = time.Unix(-1, 0) },
		"time with a fraction":           func(c *tenant.Claims) { c.ExpireTime = c.ExpireTime.Add(-time.Millisecond) },
		"transaction that lives 11 s":    func(c *tenant.Claims) { c.IssueTime = c.IssueTime.Add(-time.Second) },
		"context that ends as it begins": func(c *tenant.Claims) { c.IssueTime = c.ExpireTime },
		"transaction with first issue":   func(c *tenant.Claims) { c.FirstIssueTime = c.IssueTime.Add(-time.Second) },
	} {
		c := worstClaims(t)
		edit(&c)
		if _, err := signer.Sign(c); err == nil {
			t.Errorf("%s is signed", name)
		}
	}
	for name, first := range map[string]func(c tenant.Claims) time.Time{
		"first issue at the issue":         func(c tenant.Claims) time.Time { return c.IssueTime },
		"first issue after the issue":      func(c tenant.Claims) time.Time { return c.IssueTime.Add(time.Second) },
		"first issue with a fraction":      func(c tenant.Claims) time.Time { return c.IssueTime.Add(-time.Millisecond) },
		"first issue before 1970":          func(tenant.Claims) time.Time { return time.Unix(-1, 0) },
		"first issue at 1970":              func(tenant.Claims) time.Time { return time.Unix(0, 0) },
		"chain of an hour and a second":    func(c tenant.Claims) time.Time { return c.ExpireTime.Add(-tenant.MaxChainLife - time.Second) },
		"chain that began a long time ago": func(tenant.Claims) time.Time { return time.Unix(1, 0) },
	} {
		c := renewedClaims(t)
		c.FirstIssueTime = first(c)
		if _, err := signer.Sign(c); err == nil {
			t.Errorf("%s is signed", name)
		}
	}
}
