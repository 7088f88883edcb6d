package manifests_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func denyByDefault(h house) (looked int, wrong []string) {
	want := map[string]any{"podSelector": map[string]any{}, "policyTypes": []any{"Ingress", "Egress"}}
	for _, o := range h.all("NetworkPolicy") {
		if o.name() == "default-deny" {
			looked++
			if !is(want, o, "spec") {
				wrong = append(wrong, o.String()+": does not deny everything to everybody")
			}
		}
	}
	if looked == 0 {
		return 1, []string{"nothing denies by default"}
	}
	return looked, wrong
}

func policyForEveryPod(h house) (looked int, wrong []string) {
	for _, o := range h.all("NetworkPolicy") {
		looked++
		if !is([]any{"Ingress", "Egress"}, o, "spec", "policyTypes") {
			wrong = append(wrong, o.String()+": leaves a direction open")
		}
		labels := members(o, "spec", "podSelector", "matchLabels")
		if o.name() != "default-deny" && len(h.selected(labels)) == 0 {
			wrong = append(wrong, o.String()+": is about no pod")
		}
	}
	_, alone := eachPod(h, func(p pod, fail func(string, ...any)) {
		if len(h.policies(p)) == 0 {
			fail("no policy names its peers")
		}
	})
	return looked, append(wrong, alone...)
}

// policies returns the policies about a pod that name peers.
func (h house) policies(p pod) []object {
	return slices.DeleteFunc(h.all("NetworkPolicy"), func(o object) bool {
		labels := members(o, "spec", "podSelector", "matchLabels")
		return len(labels) == 0 || !slices.ContainsFunc(h.selected(labels), func(s pod) bool { return s.of.String() == p.of.String() })
	})
}

// door is one opening that a policy makes.
type door struct {
	policy    object
	direction string // from or to
	peers     []any
	ports     []any
}

func (h house) doors() []door {
	var found []door
	for _, o := range h.all("NetworkPolicy") {
		for _, rule := range list(o, "spec", "ingress") {
			found = append(found, door{o, "from", list(rule, "from"), list(rule, "ports")})
		}
		for _, rule := range list(o, "spec", "egress") {
			found = append(found, door{o, "to", list(rule, "to"), list(rule, "ports")})
		}
	}
	return found
}

// isFront reports whether it is the one door through which everybody comes.
func (d door) isFront() bool {
	front := []any{map[string]any{"protocol": "TCP", "port": "https"}}
	return d.policy.name() == "gateway" && d.direction == "from" && is(front, object{"ports": d.ports}, "ports")
}

func peersNamed(h house) (looked int, wrong []string) {
	for _, d := range h.doors() {
		looked++
		fail := func(what string) {
			wrong = append(wrong, fmt.Sprintf("%s, %s %v: %s", d.policy, d.direction, d.peers, what))
		}
		if len(d.peers) == 0 {
			fail("is open to all")
		}
		if len(d.ports) == 0 {
			fail("is about every port")
		}
		for _, port := range d.ports {
			if at(port, "port") == nil {
				fail("is about every port of a protocol")
			}
		}
		for _, peer := range d.peers {
			if wide(peer) && !d.isFront() {
				fail("names nobody")
			}
		}
	}
	return looked, wrong
}

// wide reports whether a peer is everybody somewhere.
func wide(peer any) bool {
	cidr := text(peer, "ipBlock", "cidr")
	empty := func(selector string) bool {
		_, there := members(peer)[selector]
		return there && len(members(peer, selector, "matchLabels")) == 0 && len(list(peer, selector, "matchExpressions")) == 0
	}
	return strings.HasSuffix(cidr, "/0") || empty("namespaceSelector") || empty("podSelector") || len(members(peer)) == 0
}

// referencesExist finds names of objects that nobody makes. Secrets are made by the installation: README.md lists them.
func referencesExist(h house) (looked int, wrong []string) {
	documented, err := secretsInReadme()
	if err != nil {
		return 1, []string{err.Error()}
	}
	looked, wrong = eachPod(h, func(p pod, fail func(string, ...any)) {
		mounted := map[string]bool{}
		for _, c := range p.containers() {
			for _, m := range list(c, "volumeMounts") {
				mounted[text(m, "name")] = true
			}
		}
		for _, v := range list(p.spec, "volumes") {
			if name := text(v, "configMap", "name"); name != "" && !h.has("ConfigMap", name) {
				fail("there is no ConfigMap %s", name)
			}
			if name := text(v, "secret", "secretName"); name != "" && documented[name] == nil {
				fail("README.md does not say what is in the secret %s", name)
			}
			if !mounted[text(v, "name")] {
				fail("volume %s is mounted nowhere", text(v, "name"))
			}
			delete(mounted, text(v, "name"))
		}
		for name := range mounted {
			fail("there is no volume %s", name)
		}
	})
	return looked, wrong
}

// secretsInReadme returns the keys of each secret in README.md's table.
func secretsInReadme() (map[string][]string, error) {
	readme, err := os.ReadFile(deploy + "/README.md")
	if err != nil {
		return nil, err
	}
	secrets := map[string][]string{}
	row := regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| ([^|]+) \\|")
	for _, match := range row.FindAllStringSubmatch(string(readme), -1) {
		for _, key := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(match[2], -1) {
			secrets[match[1]] = append(secrets[match[1]], key[1])
		}
	}
	return secrets, nil
}

// TestReadmeSecrets finds secrets in README.md that nothing mounts.
func TestReadmeSecrets(t *testing.T) {
	t.Parallel()
	secrets, err := secretsInReadme()
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, p := range (house{render(t, deploy+"/base")}).pods() {
		for _, v := range list(p.spec, "volumes") {
			used[text(v, "secret", "secretName")] = true
		}
	}
	for name := range secrets {
		if !used[name] {
			t.Errorf("README.md asks for the secret %s, which nothing mounts", name)
		}
	}
}
