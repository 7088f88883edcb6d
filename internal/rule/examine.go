package rule

import (
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// examine judges a request by itself, as product services' servers do: see [tenantgrpc.Examine].
func (e *Enforcer) examine(m *method, msg proto.Message) error {
	return tenantgrpc.Examine(msg, tenantgrpc.Examination{MaxSize: max(e.cfg.MaxRequest, int(m.rule.GetMaxRequestBytes())), Newer: !m.change})
}
