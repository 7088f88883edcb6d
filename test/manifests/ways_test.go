package manifests_test

import (
	"fmt"
	"slices"
)

// What peersNamed forbids is not all that a policy can get wrong: these rules find the ways that must be open and are not.

// neighbour is the peer of a policy that is known by a label of its namespace, see README.md.
func neighbour(label string) map[string]any {
	return map[string]any{"namespaceSelector": map[string]any{"matchLabels": map[string]any{"rowhouse.platform/" + label: "true"}}}
}

func tcp(port any) map[string]any { return map[string]any{"protocol": "TCP", "port": port} }

// way reports whether a policy about a pod opens exactly this port, in one direction, for exactly this peer.
func (h house) way(about pod, direction string, peer, port map[string]any) bool {
	return slices.ContainsFunc(h.doors(), func(d door) bool {
		return d.direction == direction && carries(about, members(d.policy, "spec", "podSelector", "matchLabels")) &&
			slices.ContainsFunc(d.peers, func(p any) bool { return is(peer, p) }) &&
			slices.ContainsFunc(d.ports, func(p any) bool { return is(port, p) })
	})
}

// eachService makes a rule of a check of the pod of each service.
func eachService(h house, check func(p pod, fail func(string, ...any))) (looked int, wrong []string) {
	_, wrong = eachPod(h, func(p pod, fail func(string, ...any)) {
		if p.of.kind() == "Deployment" {
			looked++
			check(p, fail)
		}
	})
	return looked, wrong
}

// operatorsEnter holds the way of the command line, which talks to all services by itself.
func operatorsEnter(h house) (looked int, wrong []string) {
	return eachService(h, func(p pod, fail func(string, ...any)) {
		if !h.way(p, "from", neighbour("operators"), tcp("grpc")) {
			fail("operators cannot reach it")
		}
	})
}

func appsBothWays(h house) (looked int, wrong []string) {
	behind := map[string]any{"protocol": "TCP", "port": 7110, "endPort": 7199}
	return eachService(h, func(p pod, fail func(string, ...any)) {
		if !h.way(p, "from", neighbour("apps"), tcp("grpc")) {
			fail("apps cannot reach it")
		}
		if p.of.name() == "gateway" && !h.way(p, "to", neighbour("apps"), behind) {
			fail("cannot reach the apps")
		}
	})
}

func telemetryBothWays(h house) (looked int, wrong []string) {
	return eachService(h, func(p pod, fail func(string, ...any)) {
		if !h.way(p, "from", neighbour("telemetry"), tcp("ops")) {
			fail("nobody can read its metrics")
		}
		if !h.way(p, "to", neighbour("telemetry"), tcp(4317)) {
			fail("cannot send traces")
		}
	})
}

// databaseReached is about all that have a connection string, jobs too.
func databaseReached(h house) (looked int, wrong []string) {
	_, wrong = eachPod(h, func(p pod, fail func(string, ...any)) {
		if !slices.ContainsFunc(list(p.spec, "volumes"), func(v any) bool { return text(v, "name") == "database" }) {
			return
		}
		looked++
		if !h.way(p, "to", neighbour("postgresql"), tcp(5432)) {
			fail("cannot reach its database")
		}
	})
	return looked, wrong
}

func namesResolved(h house) (looked int, wrong []string) {
	resolver := map[string]any{
		"namespaceSelector": map[string]any{"matchLabels": map[string]any{"kubernetes.io/metadata.name": "kube-system"}},
		"podSelector":       map[string]any{"matchLabels": map[string]any{"k8s-app": "kube-dns"}},
	}
	return eachPod(h, func(p pod, fail func(string, ...any)) {
		for _, protocol := range []string{"UDP", "TCP"} {
			if !h.way(p, "to", resolver, map[string]any{"protocol": protocol, "port": 53}) {
				fail("cannot ask DNS by %s", protocol)
			}
		}
	})
}

// worldEnters holds the way of the customers: what the front door's Service leads to is open to every address.
func worldEnters(h house) (looked int, wrong []string) {
	for _, o := range h.all("Service") {
		if o.name() != "gateway-front" {
			continue
		}
		for _, p := range h.selected(members(o, "spec", "selector")) {
			for _, port := range list(o, "spec", "ports") {
				for _, cidr := range []string{"0.0.0.0/0", "::/0"} {
					looked++
					world := map[string]any{"ipBlock": map[string]any{"cidr": cidr}}
					if !h.way(p, "from", world, tcp(text(port, "targetPort"))) {
						wrong = append(wrong, fmt.Sprintf("%s: port %s is shut for %s", o, text(port, "name"), cidr))
					}
				}
			}
		}
	}
	if looked == 0 {
		return 1, []string{"there is no front door"}
	}
	return looked, wrong
}
