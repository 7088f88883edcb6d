package tenant

import (
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

const (
	badTokenInterval = 20 * time.Millisecond // 50 a second
	badTokenBurst    = 100
	maxBudgetPeers   = 1024
)

// budget bounds how many bad tokens a presenter can make us verify: 50 a
// second, 100 at once. Good tokens cost nothing, cached ones are not even asked
// about. Per peer it keeps the time at which all is repaid.
type budget struct {
	mu    sync.Mutex
	peers map[identity.ID]time.Time
}

func newBudget() *budget { return &budget{peers: map[identity.ID]time.Time{}} }

// spent reports whether peer has no bad token left.
func (b *budget) spent(peer identity.ID, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.peers[b.slot(peer)].Sub(now) > (badTokenBurst-1)*badTokenInterval
}

// charge takes one bad token from peer.
func (b *budget) charge(peer identity.ID, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.peers) >= maxBudgetPeers {
		b.forgetRepaid(now)
	}
	peer = b.slot(peer)
	repaid := b.peers[peer]
	if repaid.Before(now) {
		repaid = now
	}
	b.peers[peer] = repaid.Add(badTokenInterval)
}

// slot returns the key under which peer is counted. When the table is full,
// newcomers share one budget.
func (b *budget) slot(peer identity.ID) identity.ID {
	if _, known := b.peers[peer]; known || len(b.peers) < maxBudgetPeers {
		return peer
	}
	return identity.ID{}
}

func (b *budget) forgetRepaid(now time.Time) {
	for peer, repaid := range b.peers {
		if !repaid.After(now) {
			delete(b.peers, peer)
		}
	}
}
