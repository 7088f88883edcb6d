package dev

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/services/config"
)

// What an operator adds to peers.yaml outlives a restart; what is ours is written anew.
func TestRestartKeepsForeignPeers(t *testing.T) {
	t.Parallel()
	l := Layout{filepath.Join(t.TempDir(), "state")}
	ports := fixedPorts(7100, 8080, 8443)
	if err := errors.Join(l.open(), l.prepareIdentities(), l.prepareKeys(), l.configure(ports, Options{})); err != nil {
		t.Fatal(err)
	}
	path := l.path("operator", "peers.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const tasks = "spiffe://rowhouse.localhost/cell/cell-1/app/tasks"
	edited := strings.Replace(string(b), "- gateway", "- app", 1) + "    - identity: " + tasks + "\n      roles: [app]\n"
	if err := os.WriteFile(path, []byte(edited), secretMode); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.configure(ports, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	var f operator.PeersFile
	if err := yamlfile.Load(path, &f); err != nil {
		t.Fatal(err)
	}
	roles := map[string]string{}
	for _, p := range f.Peers {
		roles[p.Identity.String()] = strings.Join(p.Roles, ",")
	}
	gateway, err := serviceID("gateway")
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Peers) != len(services())+1 || roles[tasks] != "app" || roles[gateway.String()] != operator.RoleGateway {
		t.Errorf("the peers are now %v", roles)
	}
	if err := os.WriteFile(path, []byte("peers: ["), secretMode); err != nil {
		t.Fatal(err)
	}
	if err := l.configure(ports, Options{}); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "--reset") {
		t.Errorf("the line is: %v", err)
	}
}

// A second operator is made, in the state of an earlier version too, and a restart keeps both with whom their reader added.
func TestSecondOperator(t *testing.T) {
	t.Parallel()
	l := Layout{filepath.Join(t.TempDir(), "state")}
	if err := errors.Join(l.open(), l.prepareOperators(), os.Remove(l.secondToken())); err != nil {
		t.Fatal(err)
	}
	path := l.path("operator", "operators.yaml")
	first, err := os.ReadFile(l.Token())
	if err != nil {
		t.Fatal(err)
	}
	if err := writeYAML(path, operator.OperatorsFile{Operators: []operator.OperatorEntry{
		{Name: "dev", TokenSHA256: "00", Roles: []string{operator.RoleOwner}}, {Name: "carl", TokenSHA256: "01", Roles: []string{"viewer"}},
	}}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.prepareOperators(), l.prepareOperators()); err != nil {
		t.Fatal(err)
	}
	var f operator.OperatorsFile
	if err := yamlfile.Load(path, &f); err != nil {
		t.Fatal(err)
	}
	again, errFirst := os.ReadFile(l.Token())
	second, err := os.ReadFile(l.secondToken())
	if err = errors.Join(err, errFirst); err != nil || string(first) != string(again) || string(second) == string(first) {
		t.Errorf("the tokens are %d and %d bytes, %v", len(again), len(second), err)
	}
	if len(f.Operators) != 3 || f.Operators[0].TokenSHA256 != "00" || f.Operators[2].Name != "ada" || f.Operators[2].Roles[0] != operator.RoleOperator {
		t.Errorf("the operators are %+v", f.Operators)
	}
}

// Where webhooks and hooks may be outlives a restart.
func TestRestartKeepsEgress(t *testing.T) {
	t.Parallel()
	l := Layout{filepath.Join(t.TempDir(), "state")}
	ports := fixedPorts(7100, 8080, 8443)
	if err := errors.Join(l.open(), l.prepareIdentities(), l.prepareKeys(), l.configure(ports, Options{})); err != nil {
		t.Fatal(err)
	}
	path := l.Config("config")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	edited := string(b) + "egress:\n  ports: [9443]\n  allow: [127.0.0.0/8]\nhooks:\n  egress:\n    ports: [9444]\n"
	if err := os.WriteFile(path, []byte(edited), secretMode); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.configure(ports, Options{}), l.configure(fixedPorts(7100, 8080, 9999), Options{})); err != nil {
		t.Fatal(err)
	}
	var c config.Config
	if err := yamlfile.Load(path, &c); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.Egress.Ports, []int{9443}) || len(c.Egress.Allow) != 1 || !slices.Equal(c.Hooks.Egress.Ports, []int{9444}) || c.HTTPSPort != 9999 {
		t.Errorf("the file is %+v", c)
	}
}
