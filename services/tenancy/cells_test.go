package tenancy_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/services/tenancy"
)

// TestCellsAreNoMoreThanACertificateNames makes all the cells that there may be, and certifies a key for all of them.
func TestCellsAreNoMoreThanACertificateNames(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	create := func(n int) error {
		_, err := a.CreateCell(ctx, &tenancyv1.CreateCellRequest{CellId: fmt.Sprintf("cell-%d", n), Cell: &tenancyv1.Cell{
			Region: region, CredentialsRef: "secret://file/cell-1.dsn",
		}})
		return err
	}
	for n := 2; n <= 64; n++ {
		r.must(create(n))
	}
	refused(t, "one cell too many", create(65), codes.ResourceExhausted, "OVERLOADED")
	r.stop()
	r.config.Minters = []tenancy.Minter{{Identity: r.id("service", "gateway"), Cells: []string{"*"}}}
	r.start()
	if m := r.minter(time.Now); len(m.cert.Cells) != 64 {
		t.Errorf("the certificate names %d cells", len(m.cert.Cells))
	}
}
