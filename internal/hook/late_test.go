package hook_test

import (
	"testing"
	"testing/synctest"
	"time"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/hook"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
)

// Config may start later than those who ask, and be found some seconds after that.
func TestAFirstStateThatComesLateIsWaitedFor(t *testing.T) {
	t.Parallel()
	for late, want := range map[time.Duration]string{5 * time.Second: "", time.Minute: fault.ReasonHookUnavailable} {
		synctest.Test(t, func(t *testing.T) {
			c := &config{known: hook.NewStore()}
			time.AfterFunc(late, func() {
				if err := c.known.Apply(feed.Change{Reset: true}); err != nil {
					t.Error(err)
				}
			})
			if err := c.ask(t, admin(&tenancyv1.CreateTenantRequest{})); fault.ReasonOf(err) != want {
				t.Errorf("after %v: %v", late, err)
			}
		})
	}
}
