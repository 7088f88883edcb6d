package fair_test

import (
	"context"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/fair"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

func ExampleQueue_Enter() {
	queue, err := fair.New(fair.Config{Width: 8})
	if err != nil {
		fmt.Println(err)
		return
	}
	place, err := queue.Enter(context.Background(), fair.Call{Tenant: tenanttest.UID("acme"), Weight: 200})
	if err != nil {
		fmt.Println(err) // there is more to do than can be done, and acme wants more than its share
		return
	}
	defer place.Done()
	fmt.Println(queue.Stats().Held, "of", queue.Stats().Width)
	// Output: 1 of 8
}
