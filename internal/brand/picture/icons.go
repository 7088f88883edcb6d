package picture

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"image/draw"
	"image/png"

	scale "golang.org/x/image/draw"
)

// An Icon is a file of the set that browsers and home screens ask for.
type Icon struct {
	Name  string // "favicon.ico", "icon-32.png", …
	Type  string
	Bytes []byte
}

// MinIcon is the least side of a picture from which icons are made; none is ever enlarged beyond it.
const MinIcon = 512

// Icons makes all raster icons of a site from one picture, which is centred in a square where it is none. Those that
// a system cuts or backs with black (180 for iOS, maskable for Android) stand on ground, which has to be opaque.
func Icons(from image.Image, ground color.Color) ([]Icon, error) {
	size := from.Bounds().Size()
	if max(size.X, size.Y) < MinIcon {
		return nil, refuse("dimensions", "%d by %d pixels, an icon needs %d", size.X, size.Y, MinIcon)
	}
	if _, _, _, alpha := ground.RGBA(); alpha != 0xffff {
		return nil, refuse("ground", "it is translucent")
	}
	var icons []Icon
	add := func(name string, side, inside int, ground color.Color) error {
		b, err := fit(from, side, inside, ground)
		icons = append(icons, Icon{name, string(PNG), b})
		return err
	}
	var small [][]byte
	for _, side := range []int{16, 32, 48} {
		b, err := fit(from, side, side, color.Transparent)
		if err != nil {
			return nil, err
		}
		small = append(small, b)
	}
	icons = append(icons, Icon{"favicon.ico", "image/x-icon", ico(small, []int{16, 32, 48})})
	// What a mask leaves for certain is a circle of 80 % (https://www.w3.org/TR/appmanifest/#icon-masks); the square in it
	// has a side of 0.8/√2.
	const safe = 512 * 566 / 1000
	for _, icon := range []struct {
		name         string
		side, inside int
		ground       color.Color
	}{
		{"icon-32.png", 32, 32, color.Transparent},
		{"apple-touch-icon.png", 180, 180, ground},
		{"icon-192.png", 192, 192, color.Transparent},
		{"icon-512.png", 512, 512, color.Transparent},
		{"icon-maskable-512.png", 512, safe, ground},
	} {
		if err := add(icon.name, icon.side, icon.inside, icon.ground); err != nil {
			return nil, err
		}
	}
	return icons, nil
}

// fit draws a picture as large as fits a square of inside pixels, in the middle of one of side pixels.
func fit(from image.Image, side, inside int, ground color.Color) ([]byte, error) {
	size := from.Bounds().Size()
	longest := max(size.X, size.Y)
	width, height := max(1, size.X*inside/longest), max(1, size.Y*inside/longest)
	corner := image.Pt((side-width)/2, (side-height)/2)
	canvas := image.NewNRGBA(image.Rect(0, 0, side, side))
	draw.Draw(canvas, canvas.Bounds(), image.NewUniform(ground), image.Point{}, draw.Src)
	scale.CatmullRom.Scale(canvas, image.Rectangle{corner, corner.Add(image.Pt(width, height))}, from, from.Bounds(), draw.Over, nil)
	var out bytes.Buffer
	err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, canvas)
	return out.Bytes(), err
}

// ico packs PNGs into one file: a header of 6 bytes, an entry of 16 each, the images
// (https://en.wikipedia.org/wiki/ICO_(file_format); PNG inside since Windows Vista, and in all browsers).
func ico(images [][]byte, sides []int) []byte {
	out := binary.LittleEndian.AppendUint16([]byte{0, 0, 1, 0}, uint16(len(images))) //nolint:gosec // three
	offset := 6 + 16*len(images)
	for i, b := range images {
		side := byte(sides[i]) //nolint:gosec // below 256
		out = append(out, side, side, 0, 0, 1, 0, 32, 0)
		out = binary.LittleEndian.AppendUint32(out, uint32(len(b))) //nolint:gosec // small
		out = binary.LittleEndian.AppendUint32(out, uint32(offset)) //nolint:gosec // small
		offset += len(b)
	}
	return append(out, bytes.Join(images, nil)...)
}
