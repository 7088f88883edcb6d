// Package picture makes uploaded raster images safe to serve: it looks at what the bytes are and not at what they are
// said to be, asks for its size first, and only then decodes it and encodes it anew. That drops EXIF, profiles, text chunks and
// whatever else was hidden in or behind the image. Start with Read; Icons makes the icons of a site from one picture.
package picture

import (
	"bytes"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"

	"golang.org/x/image/webp"

	"github.com/rowhouse-platform/rowhouse/internal/brand"
)

// The limits of an upload, and of what is made from it.
const (
	MaxBytes  = 5 << 20
	MaxSide   = 4096              // pixels
	MaxFrames = 60                // of an animation
	MaxPixels = MaxSide * MaxSide // of all its frames together
)

// A Type is what the first bytes say.
type Type string

// The types that Read takes. SVG and woff2 have readers of their own.
const (
	PNG  Type = "image/png"
	JPEG Type = "image/jpeg"
	GIF  Type = "image/gif"
	WebP Type = "image/webp"
)

// A Picture is an image that we have written ourselves.
type Picture struct {
	Type          Type // PNG for an upload in WebP, which nobody here writes
	Bytes         []byte
	Width, Height int
	Frames        int         // 1 unless it is an animated GIF
	Image         image.Image // the first frame
}

// Sniff tells the type by the first bytes, as https://mimesniff.spec.whatwg.org/#matching-an-image-type-pattern says; "" is none of ours.
func Sniff(upload []byte) Type {
	switch {
	case bytes.HasPrefix(upload, []byte("\x89PNG\r\n\x1a\n")):
		return PNG
	case bytes.HasPrefix(upload, []byte("\xff\xd8\xff")):
		return JPEG
	case bytes.HasPrefix(upload, []byte("GIF87a")), bytes.HasPrefix(upload, []byte("GIF89a")):
		return GIF
	case len(upload) >= 14 && string(upload[:4]) == "RIFF" && string(upload[8:14]) == "WEBPVP":
		return WebP
	}
	return ""
}

// Read takes an upload of the declared type. Errors are of type *brand.Refusal. An image of the largest size needs up
// to 300 MB while it is read (a progressive JPEG), so callers read few at a time. JPEG is written with quality 90: reading the result
// again loses a little more.
func Read(upload []byte, declared Type) (p Picture, err error) {
	if len(upload) > MaxBytes {
		return Picture{}, refuse("size", "%d bytes, allowed are %d", len(upload), MaxBytes)
	}
	found := Sniff(upload)
	if found == "" || found != declared {
		return Picture{}, refuse("type", "declared as %.40q, and is %q", declared, found)
	}
	defer func() { // a decoder that falls over an image must not take the publisher with it
		if fault := recover(); fault != nil {
			p, err = Picture{}, refuse("syntax", "the decoder of %s failed: %v", found, fault)
		}
	}()
	config, err := decodeConfig(upload, found)
	if err != nil {
		return Picture{}, refuse("syntax", "%v", err)
	}
	if config.Width < 1 || config.Height < 1 || config.Width > MaxSide || config.Height > MaxSide {
		return Picture{}, refuse("dimensions", "%d by %d pixels, allowed are %d each", config.Width, config.Height, MaxSide)
	}
	p = Picture{Type: found, Width: config.Width, Height: config.Height, Frames: 1}
	if err := p.recode(upload); err != nil {
		return Picture{}, err
	}
	if len(p.Bytes) > MaxBytes {
		return Picture{}, refuse("size", "%d bytes when written out, allowed are %d", len(p.Bytes), MaxBytes)
	}
	return p, nil
}

func refuse(rule, format string, values ...any) error {
	return &brand.Refusal{Rule: rule, Text: fmt.Sprintf(format, values...)}
}

func decodeConfig(upload []byte, t Type) (image.Config, error) {
	r := bytes.NewReader(upload)
	switch t {
	case PNG:
		return png.DecodeConfig(r)
	case JPEG:
		return jpeg.DecodeConfig(r)
	case GIF:
		return gif.DecodeConfig(r)
	default:
		return webp.DecodeConfig(r)
	}
}

// recode fills in what is made of the pixels.
func (p *Picture) recode(upload []byte) error {
	var out bytes.Buffer
	var err error
	switch r := bytes.NewReader(upload); p.Type {
	case JPEG:
		if p.Image, err = jpeg.Decode(r); err == nil {
			err = jpeg.Encode(&out, p.Image, &jpeg.Options{Quality: 90})
		}
	case GIF:
		err = p.recodeGIF(upload, &out)
	case PNG:
		if p.Image, err = png.Decode(r); err == nil {
			err = png.Encode(&out, p.Image)
		}
	default:
		p.Type = PNG
		if p.Image, err = webp.Decode(r); err == nil {
			err = png.Encode(&out, p.Image)
		}
	}
	if refusal, is := err.(*brand.Refusal); is { //nolint:errorlint // it is ours or the decoder's, never wrapped
		return refusal
	}
	if err != nil {
		return refuse("syntax", "%v", err)
	}
	p.Bytes = out.Bytes()
	return nil
}

func (p *Picture) recodeGIF(upload []byte, out *bytes.Buffer) error {
	frames, pixels, err := gifFrames(upload)
	if err != nil {
		return err
	}
	if frames > MaxFrames || pixels > MaxPixels {
		return refuse("frames", "%d frames of %d pixels, allowed are %d of %d", frames, pixels, MaxFrames, MaxPixels)
	}
	all, err := gif.DecodeAll(bytes.NewReader(upload))
	if err != nil {
		return err
	}
	p.Frames, p.Image = len(all.Image), all.Image[0]
	return gif.EncodeAll(out, all)
}

// gifFrames counts frames and their pixels without decoding one: 5 MB of GIF may hold a terabyte of pixels. It walks the
// blocks of https://www.w3.org/Graphics/GIF/spec-gif89a.txt.
func gifFrames(b []byte) (frames, pixels int, err error) {
	short := refuse("syntax", "the GIF ends too early")
	table := func(flags byte) int { // bytes of a colour table
		if flags&0x80 == 0 {
			return 0
		}
		return 3 << (flags&7 + 1)
	}
	if len(b) < 13 {
		return 0, 0, short
	}
	for at := 13 + table(b[10]); ; {
		if at >= len(b) {
			return 0, 0, short
		}
		switch b[at] {
		case 0x3b: // trailer
			return frames, pixels, nil
		case 0x21: // extension: a label, then sub-blocks
			at += 2
		case 0x2c: // image: place, size, flags, table, size of codes, then sub-blocks
			if at+10 > len(b) {
				return 0, 0, short
			}
			frames++
			pixels += (int(b[at+5]) | int(b[at+6])<<8) * (int(b[at+7]) | int(b[at+8])<<8)
			at += 11 + table(b[at+9])
		default:
			return 0, 0, refuse("syntax", "the GIF has a block of kind %#x", b[at])
		}
		for {
			if at >= len(b) {
				return 0, 0, short
			}
			n := int(b[at])
			if at += 1 + n; n == 0 {
				break
			}
		}
	}
}
