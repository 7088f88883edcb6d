package picture_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/brand"
	"github.com/rowhouse-platform/rowhouse/internal/brand/picture"
)

// A WebP of one pixel, lossless.
const tinyWebP = "UklGRiQAAABXRUJQVlA4TBcAAAAvAAAAEAcQERGIiP4HAA=="

func drawn(w, h int) *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.SetNRGBA(x, y, color.NRGBA{uint8(x), uint8(y), 40, 255})
		}
	}
	return m
}

func asPNG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asJPEG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asGIF(t testing.TB, frames, w, h int) []byte {
	t.Helper()
	all := &gif.GIF{}
	for range frames {
		all.Image = append(all.Image, image.NewPaletted(image.Rect(0, 0, w, h), color.Palette{color.Black, color.White}))
		all.Delay = append(all.Delay, 1)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, all); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// chunk is a PNG chunk with its sum.
func chunk(kind, data string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	b = append(append(b, kind...), data...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}

func TestNothingButPixelsSurvives(t *testing.T) {
	t.Parallel()
	const script = "<script>alert(1)</script><?php PK\x03\x04"
	plain, photo := asPNG(t, drawn(20, 10)), asJPEG(t, drawn(20, 10))
	exif := append([]byte{0xff, 0xe1, 0, byte(len(script) + 2)}, script...)
	for name, c := range map[string]struct {
		upload []byte
		said   picture.Type
		want   picture.Type
	}{
		"PNG, script behind": {append(bytes.Clone(plain), script...), picture.PNG, picture.PNG},
		"PNG, script in text": {bytes.Join([][]byte{plain[:33], chunk("tEXt", "Comment\x00"+script), plain[33:]}, nil), picture.PNG,
			picture.PNG},
		"JPEG, EXIF":          {bytes.Join([][]byte{photo[:2], exif, photo[2:]}, nil), picture.JPEG, picture.JPEG},
		"JPEG, script behind": {append(bytes.Clone(photo), script...), picture.JPEG, picture.JPEG},
		"GIF, script behind":  {append(asGIF(t, 3, 20, 10), script...), picture.GIF, picture.GIF},
	} {
		if !bytes.Contains(c.upload, []byte(script)) {
			t.Fatalf("%s: the upload is harmless", name)
		}
		p, err := picture.Read(c.upload, c.said)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if bytes.Contains(p.Bytes, []byte("script")) || picture.Sniff(p.Bytes) != c.want || p.Type != c.want || p.Width != 20 || p.Height != 10 {
			t.Errorf("%s: %s of %d by %d: %q", name, p.Type, p.Width, p.Height, p.Bytes)
		}
		if again, err := picture.Read(p.Bytes, p.Type); err != nil || (c.want != picture.JPEG && !bytes.Equal(again.Bytes, p.Bytes)) {
			t.Errorf("%s: the second reading differs: %v", name, err)
		}
	}
}

func TestWebPBecomesPNG(t *testing.T) {
	t.Parallel()
	upload, err := base64.StdEncoding.DecodeString(tinyWebP)
	if err != nil {
		t.Fatal(err)
	}
	p, err := picture.Read(upload, picture.WebP)
	if err != nil || p.Type != picture.PNG || picture.Sniff(p.Bytes) != picture.PNG || p.Width != 1 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	wide := asPNG(t, image.NewPaletted(image.Rect(0, 0, picture.MaxSide+1, 1), color.Palette{color.Black}))
	bomb := bytes.Clone(asPNG(t, drawn(1, 1))) // says that it is 60,000 by 60,000
	binary.BigEndian.PutUint32(bomb[16:], 60_000)
	binary.BigEndian.PutUint32(bomb[20:], 60_000)
	binary.BigEndian.PutUint32(bomb[29:], crc32.ChecksumIEEE(bomb[12:29]))
	animation := asGIF(t, 3, 20, 10)
	for name, c := range map[string]struct {
		upload []byte
		said   picture.Type
		rule   string
	}{
		"nothing":             {nil, picture.PNG, "type"},
		"HTML":                {[]byte("<!doctype html><script>"), picture.PNG, "type"},
		"SVG as PNG":          {[]byte("<svg/>"), picture.PNG, "type"},
		"GIF as PNG":          {animation, picture.PNG, "type"},
		"script as GIF":       {[]byte("GIF89a=1;alert(1)//"), picture.GIF, "dimensions"},
		"BMP":                 {[]byte("BM123456789"), "image/bmp", "type"},
		"no type":             {[]byte("BM123456789"), "", "type"},
		"too wide":            {wide, picture.PNG, "dimensions"},
		"too many pixels":     {bomb, picture.PNG, "dimensions"},
		"too many frames":     {asGIF(t, picture.MaxFrames+1, 2, 2), picture.GIF, "frames"},
		"frames of all sizes": {asGIF(t, 5, 2048, 2049), picture.GIF, "frames"},
		"half a GIF":          {animation[:len(animation)-5], picture.GIF, "syntax"},
		"half a PNG":          {asPNG(t, drawn(20, 20))[:60], picture.PNG, "syntax"},
		"too long":            {make([]byte, picture.MaxBytes+1), picture.PNG, "size"},
		"animated WebP": {[]byte("RIFF\x1e\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x01\x00\x00ANIM"), picture.WebP,
			"syntax"},
	} {
		_, err := picture.Read(c.upload, c.said)
		var refusal *brand.Refusal
		if !errors.As(err, &refusal) || refusal.Rule != c.rule {
			t.Errorf("%s: %v, want %s", name, err, c.rule)
		}
	}
	if _, err := picture.Read(asGIF(t, picture.MaxFrames, 2, 2), picture.GIF); err != nil {
		t.Error(err)
	}
}

func TestIcons(t *testing.T) {
	t.Parallel()
	ground := color.NRGBA{10, 200, 30, 255}
	icons, err := picture.Icons(drawn(600, 300), ground)
	if err != nil {
		t.Fatal(err)
	}
	sides := map[string]int{"icon-32.png": 32, "apple-touch-icon.png": 180, "icon-192.png": 192, "icon-512.png": 512,
		"icon-maskable-512.png": 512}
	for _, icon := range icons {
		if icon.Name == "favicon.ico" {
			checkICO(t, icon.Bytes)
			continue
		}
		m, err := png.Decode(bytes.NewReader(icon.Bytes))
		if err != nil {
			t.Fatal(err)
		}
		side := sides[icon.Name]
		delete(sides, icon.Name)
		if m.Bounds().Dx() != side || m.Bounds().Dy() != side {
			t.Errorf("%s is %v", icon.Name, m.Bounds())
		}
		_, _, _, corner := m.At(0, 0).RGBA()
		if backed := icon.Name == "apple-touch-icon.png" || icon.Name == "icon-maskable-512.png"; backed != (corner == 0xffff) {
			t.Errorf("%s has the alpha %d in its corner", icon.Name, corner)
		}
		if _, _, blue, alpha := m.At(side/2, side/2).RGBA(); alpha != 0xffff || blue>>8 < 38 || blue>>8 > 42 {
			t.Errorf("%s has no picture in the middle", icon.Name)
		}
		if icon.Name != "icon-maskable-512.png" {
			continue
		}
		for y := range side { // outside of the circle is ground alone
			for x := range side {
				dx, dy := 2*x+1-side, 2*y+1-side
				if outside := dx*dx+dy*dy > side*side*64/100; outside && color.NRGBAModel.Convert(m.At(x, y)) != ground {
					t.Fatalf("a mask may cut the picture at %d, %d", x, y)
				}
			}
		}
	}
	if len(sides) > 0 || len(icons) != 6 {
		t.Errorf("missing: %v", sides)
	}
	for name, try := range map[string]func() ([]picture.Icon, error){
		"small":       func() ([]picture.Icon, error) { return picture.Icons(drawn(511, 20), ground) },
		"translucent": func() ([]picture.Icon, error) { return picture.Icons(drawn(512, 512), color.NRGBA{1, 2, 3, 254}) },
	} {
		if _, err := try(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func checkICO(t *testing.T, b []byte) {
	t.Helper()
	if n := binary.LittleEndian.Uint16(b[4:]); n != 3 || binary.LittleEndian.Uint32(b) != 0x10000 {
		t.Fatalf("%d images", n)
	}
	end := 0
	for i, side := range []int{16, 32, 48} {
		entry := b[6+16*i:]
		size, offset := int(binary.LittleEndian.Uint32(entry[8:])), int(binary.LittleEndian.Uint32(entry[12:]))
		config, err := png.DecodeConfig(bytes.NewReader(b[offset : offset+size]))
		if err != nil || config.Width != side || int(entry[0]) != side {
			t.Errorf("image %d: %+v, %v", i, config, err)
		}
		end = offset + size
	}
	if end != len(b) {
		t.Errorf("%d bytes, the images end at %d", len(b), end)
	}
}

func FuzzRead(f *testing.F) {
	webp, _ := base64.StdEncoding.DecodeString(tinyWebP)
	for _, seed := range [][]byte{asPNG(f, drawn(5, 5)), asJPEG(f, drawn(9, 9)), asGIF(f, 2, 5, 5), webp} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, upload []byte) {
		if len(upload) > 1<<16 {
			return
		}
		p, err := picture.Read(upload, picture.Sniff(upload))
		if err != nil {
			return
		}
		if again, err := picture.Read(p.Bytes,
			p.Type); err != nil || again.Width != p.Width || again.Height != p.Height || again.Frames != p.Frames {
			t.Errorf("the second reading: %v", err)
		}
	})
}
