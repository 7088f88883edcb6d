package manifests_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/services/config"
	"github.com/rowhouse-platform/rowhouse/services/gateway"
	"github.com/rowhouse-platform/rowhouse/services/quota"
	"github.com/rowhouse-platform/rowhouse/services/tenancy"
)

// loaders read a configuration file as `rowhouse serve` does and return it with the part that all services have.
func loaders() map[string]func(path string) (any, serve.Config, error) {
	return map[string]func(path string) (any, serve.Config, error){
		"tenancy": func(path string) (any, serve.Config, error) {
			c, err := serve.Load[tenancy.Config](path)
			return c, c.Process, err
		},
		"config": func(path string) (any, serve.Config, error) {
			c, err := serve.Load[config.Config](path)
			return c, c.Process, err
		},
		"quota": func(path string) (any, serve.Config, error) {
			c, err := serve.Load[quota.Config](path)
			return c, c.Process, err
		},
		"gateway": func(path string) (any, serve.Config, error) {
			c, err := serve.Load[gateway.Config](path)
			return c, c.Process, err
		},
	}
}

// TestConfigurationsLoad reads what the pods would read, and looks for each file that it names.
func TestConfigurationsLoad(t *testing.T) {
	t.Parallel()
	documented, err := secretsInReadme()
	if err != nil {
		t.Fatal(err)
	}
	for _, overlay := range overlays() {
		h := house{render(t, deploy+"/"+overlay)}
		for service, load := range loaders() {
			t.Run(overlay+"/"+service, func(t *testing.T) {
				t.Parallel()
				p := h.pod(t, service)
				loaded, process, err := load(h.write(t, p, "config", "config.yaml"))
				if err != nil {
					t.Fatal(err)
				}
				if kek := reflect.ValueOf(loaded).FieldByName("KEK"); kek.IsValid() && kek.IsZero() {
					t.Error("the configuration names no key-encryption key: it is optional, and without it the service does less")
				}
				files := paths(reflect.ValueOf(loaded))
				if len(files) == 0 {
					t.Error("the configuration names no file")
				}
				for _, file := range files {
					if !h.holds(p, file, documented) {
						t.Errorf("%s is in no volume of the pod, or in a secret without that key in README.md", file)
					}
				}
				for name, address := range map[string]string{"grpc": process.Listen, "ops": process.Ops} {
					if number, _ := containerPort(p, name).(float64); address != ":"+strconv.Itoa(int(number)) {
						t.Errorf("the configuration listens on %s, the container's port %s is %v", address, name, number)
					}
				}
				dialled := peers(h.read(p, "config", "config.yaml"))
				if want := map[string]int{"config": 2, "quota": 1, "gateway": 3}[service]; len(dialled) != want {
					t.Errorf("%d peers are found in the configuration, not %d", len(dialled), want)
				}
				for _, peer := range dialled {
					h.reaches(t, p, peer)
				}
			})
		}
	}
}

// TestPeersLoad reads peers.yaml with its roles.
func TestPeersLoad(t *testing.T) {
	t.Parallel()
	for _, overlay := range overlays() {
		h := house{render(t, deploy+"/"+overlay)}
		path := h.write(t, h.pod(t, "tenancy"), "peers", "peers.yaml")
		if _, err := operator.New(t.Context(), operator.Config{PeersFile: path}); err != nil {
			t.Errorf("%s: %v", overlay, err)
		}
	}
}

// TestConfigurationsFindOffenders shows that what a service would not take fails here.
func TestConfigurationsFindOffenders(t *testing.T) {
	t.Parallel()
	h := house{render(t, deploy+"/base")}
	for name, change := range map[string][2]string{
		"misspelt key":    {"feed_key:", "feedkey:"},
		"removed key":     {"database:", "#"},
		"no SPIFFE name":  {"spiffe://", "https://"},
		"bad address":     {`":7103"`, `"7103"`},
		"value of a list": {"state: ", "state: [x] #"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good := h.read(h.pod(t, "quota"), "config", "config.yaml")
			if !strings.Contains(good, change[0]) {
				t.Fatalf("the configuration has no %q", change[0])
			}
			path := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(path, []byte(strings.Replace(good, change[0], change[1], 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := loaders()["quota"](path); err == nil {
				t.Error("it loads")
			}
		})
	}
}

func (h house) pod(t *testing.T, service string) pod {
	t.Helper()
	for _, p := range h.pods() {
		if p.of.String() == "Deployment/"+service {
			return p
		}
	}
	t.Fatalf("there is no Deployment %s", service)
	return pod{}
}

// read returns a file of a ConfigMap that a pod mounts as volume.
func (h house) read(p pod, volume, file string) string {
	for _, v := range list(p.spec, "volumes") {
		for _, o := range h.all("ConfigMap") {
			if text(v, "name") == volume && text(v, "configMap", "name") == o.name() {
				return text(o, "data", file)
			}
		}
	}
	return ""
}

func (h house) write(t *testing.T, p pod, volume, file string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), file)
	if err := os.WriteFile(path, []byte(h.read(p, volume, file)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// paths returns all files and folders that a configuration names.
func paths(v reflect.Value) []string {
	if p, ok := reflect.TypeAssert[yamlfile.Path](v); ok {
		if p == "" {
			return nil
		}
		return []string{string(p)}
	}
	var found []string
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				found = append(found, paths(v.Field(i))...)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			found = append(found, paths(v.Index(i))...)
		}
	default:
	}
	return found
}

// holds reports whether a pod has a file or folder: in a secret its README's keys count, in a ConfigMap its data.
func (h house) holds(p pod, path string, documented map[string][]string) bool {
	for _, m := range list(p.spec, "containers", "0", "volumeMounts") {
		rest, inside := strings.CutPrefix(path, text(m, "mountPath"))
		if !inside {
			continue
		}
		rest = strings.TrimPrefix(rest, "/")
		for _, v := range list(p.spec, "volumes") {
			if text(v, "name") != text(m, "name") {
				continue
			}
			if rest == "" {
				return true
			}
			if name := text(v, "secret", "secretName"); name != "" {
				return slices.Contains(documented[name], rest)
			}
			return h.read(p, text(v, "name"), rest) != ""
		}
	}
	return false
}

// peer is a service that a configuration names.
type peer struct{ name, port string }

func peers(configuration string) []peer {
	var found []peer
	for _, match := range regexp.MustCompile(`dns:///([a-z]+):(\d+)\n`).FindAllStringSubmatch(configuration, -1) {
		found = append(found, peer{match[1], match[2]})
	}
	return found
}

// reaches checks the whole way to a peer: its Service, the caller's policy and the peer's.
func (h house) reaches(t *testing.T, from pod, to peer) {
	t.Helper()
	var service object
	for _, o := range h.all("Service") {
		if o.name() == to.name {
			service = o
		}
	}
	number, _ := at(service, "spec", "ports", "0", "port").(float64)
	if to.port != strconv.Itoa(int(number)) {
		t.Errorf("the Service %s has port %v, the configuration dials %s", to.name, number, to.port)
	}
	target := h.pod(t, to.name)
	if listening, _ := containerPort(target, text(service, "spec", "ports", "0", "targetPort")).(float64); listening != number {
		t.Errorf("%s listens on %v, its Service, which is headless, says %v", to.name, listening, number)
	}
	if !h.opens("to", from, target, number) {
		t.Errorf("the policy of %s does not let it call %s", from.of.name(), to.name)
	}
	if !h.opens("from", target, from, "grpc") {
		t.Errorf("the policy of %s does not let %s call it", to.name, from.of.name())
	}
}

// opens reports whether a policy about one pod opens the port to or from another of the namespace.
func (h house) opens(direction string, about, other pod, port any) bool {
	for _, d := range h.doors() {
		labels := members(d.policy, "spec", "podSelector", "matchLabels")
		if d.direction != direction || !carries(about, labels) {
			continue
		}
		open := slices.ContainsFunc(d.ports, func(p any) bool { return is(port, p, "port") })
		meant := slices.ContainsFunc(d.peers, func(p any) bool {
			return at(p, "namespaceSelector") == nil && carries(other, members(p, "podSelector", "matchLabels"))
		})
		if open && meant {
			return true
		}
	}
	return false
}
