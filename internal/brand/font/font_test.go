package font_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/brand"
	"github.com/rowhouse-platform/rowhouse/internal/brand/brandtest"
	"github.com/rowhouse-platform/rowhouse/internal/brand/font"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	good := brandtest.Font("a font")
	if err := font.Check(good); err != nil {
		t.Fatal(err)
	}
	with := func(at int, value uint32) []byte {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint32(b[at:], value)
		return b
	}
	for name, c := range map[string]struct {
		upload []byte
		rule   string
	}{
		"nothing":        {nil, "type"},
		"a page":         {bytes.Repeat([]byte("<html>"), 20), "type"},
		"woff":           {append([]byte("wOFF"), good[4:]...), "type"},
		"header alone":   {good[:48], "length"},
		"behind it":      {append(bytes.Clone(good), "<script>"...), "length"},
		"counted behind": {with(8, uint32(len(good))+8), "length"},
		"collection":     {with(4, 0x74746366), "flavour"},
		"no tables":      {with(12, 0), "tables"},
		"many tables":    {with(12, 0xffff0000), "tables"},
		"reserved":       {with(12, 0x00010001), "header"},
		"metadata":       {with(28, 1), "metadata"},
		"private":        {with(44, 1), "private"},
		"short stream":   {with(20, 1), "length"},
		"long stream":    {with(20, 0xffffffff), "length"},
		"huge table":     {with(48, 0x00ffffff), "directory"},
		"no number":      {with(48, 0x0080ffff), "directory"},
		"large":          {make([]byte, font.MaxBytes+1), "size"},
	} {
		var refusal *brand.Refusal
		if err := font.Check(c.upload); !errors.As(err, &refusal) || refusal.Rule != c.rule {
			t.Errorf("%s: %v, want %s", name, err, c.rule)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(brandtest.Font("a font"))
	f.Fuzz(func(_ *testing.T, upload []byte) { _ = font.Check(upload) }) // it must not panic
}
