package raster_test

import (
	"errors"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/brand/raster"
)

// Dashes are gone through for each line, however short it is, and that is paid for.
func TestDashesSpendOfTheBudget(t *testing.T) {
	t.Parallel()
	lines := make([]raster.Line, 1000)
	for i := range lines {
		lines[i] = raster.Line{Points: []raster.Point{{}, {X: 1}}}
	}
	pen := raster.Pen{Width: 1, Cap: "butt", Join: "bevel", Miter: 4, Dashes: []float64{3, 1}}
	budget := raster.Budget{Left: 100_000}
	if _, err := raster.Stroke(lines, pen, raster.Identity(), &budget); err != nil {
		t.Errorf("two dashes: %v", err)
	}
	for range 1000 {
		pen.Dashes = append(pen.Dashes, 3)
	}
	budget.Left = 100_000
	if _, err := raster.Stroke(lines, pen, raster.Identity(), &budget); !errors.Is(err, raster.ErrWork) {
		t.Errorf("a thousand dashes: %v", err)
	}
}
