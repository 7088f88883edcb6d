package manifests_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A rule looks at the objects of one rendering and returns how many places it looked at, and what is wrong with them.
type rule func(house) (looked int, wrong []string)

// rules are by the names that tests of offenders use.
func rules() map[string]rule {
	return map[string]rule{
		"namespace":  namespaceRestricted,
		"parts":      servicesComplete,
		"account":    ownAccount,
		"pod":        podRestricted,
		"container":  containerRestricted,
		"volumes":    volumesBounded,
		"secrets":    secretsAsFiles,
		"image":      imageByDigest,
		"resources":  resourcesNamed,
		"probes":     probesOnOps,
		"ending":     endingGraceful,
		"rollout":    rolloutSafe,
		"scaling":    scalingCalm,
		"disruption": disruptionOne,
		"spread":     spreadLoose,
		"deny":       denyByDefault,
		"policies":   policyForEveryPod,
		"peers":      peersNamed,
		"operators":  operatorsEnter,
		"apps":       appsBothWays,
		"telemetry":  telemetryBothWays,
		"database":   databaseReached,
		"dns":        namesResolved,
		"world":      worldEnters,
		"services":   servicesHeadless,
		"front":      frontDoor,
		"clear":      nothingInTheClear,
		"migrations": migrationsApart,
		"references": referencesExist,
		"belonging":  objectsBelong,
		"kinds":      kindsHarmless,
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	for _, overlay := range overlays() {
		t.Run(overlay, func(t *testing.T) {
			t.Parallel()
			h := house{render(t, deploy+"/"+overlay)}
			for name, check := range rules() {
				looked, wrong := check(h)
				if looked == 0 {
					t.Errorf("rule %q matches nothing: it is out of date, or what it is about is missing", name)
				}
				for _, w := range wrong {
					t.Errorf("rule %q: %s", name, w)
				}
			}
		})
	}
}

// house is one rendering.
type house struct{ objects []object }

func (h house) all(kinds ...string) []object {
	var found []object
	for _, o := range h.objects {
		if slices.Contains(kinds, o.kind()) {
			found = append(found, o)
		}
	}
	return found
}

func (h house) has(kind, name string) bool {
	return slices.ContainsFunc(h.objects, func(o object) bool { return o.kind() == kind && o.name() == name })
}

// pod is the pod of a workload.
type pod struct {
	of   object
	spec map[string]any
}

func (p pod) labels() map[string]any { return members(p.of, "spec", "template", "metadata", "labels") }

func (p pod) containers() []any { return list(p.spec, "containers") }

// pods returns the pods of all workloads, whatever their kind.
func (h house) pods() []pod {
	var found []pod
	for _, o := range h.objects {
		if spec := members(o, "spec", "template", "spec"); spec != nil {
			found = append(found, pod{o, spec})
		}
	}
	return found
}

// eachPod makes a rule of a check of one pod.
func eachPod(h house, check func(p pod, fail func(format string, args ...any))) (looked int, wrong []string) {
	for _, p := range h.pods() {
		looked++
		check(p, func(format string, args ...any) {
			wrong = append(wrong, p.of.String()+": "+fmt.Sprintf(format, args...))
		})
	}
	return looked, wrong
}

// eachContainer makes a rule of a check of one container.
func eachContainer(h house, check func(c any, fail func(format string, args ...any))) (looked int, wrong []string) {
	for _, p := range h.pods() {
		for _, c := range slices.Concat(p.containers(), list(p.spec, "initContainers"), list(p.spec, "ephemeralContainers")) {
			looked++
			check(c, func(format string, args ...any) {
				wrong = append(wrong, fmt.Sprintf("%s, container %s: %s", p.of, text(c, "name"), fmt.Sprintf(format, args...)))
			})
		}
	}
	return looked, wrong
}

// eachDeployment makes a rule of a check of one deployment.
func eachDeployment(h house, check func(o object, fail func(format string, args ...any))) (looked int, wrong []string) {
	for _, o := range h.all("Deployment") {
		looked++
		check(o, func(format string, args ...any) { wrong = append(wrong, o.String()+": "+fmt.Sprintf(format, args...)) })
	}
	return looked, wrong
}

func namespaceRestricted(h house) (looked int, wrong []string) {
	for _, o := range h.all("Namespace") {
		looked++
		for _, mode := range []string{"enforce", "warn", "audit"} {
			if text(o, "metadata", "labels", "pod-security.kubernetes.io/"+mode) != "restricted" {
				wrong = append(wrong, fmt.Sprintf("%s does not %s the restricted standard", o, mode))
			}
		}
	}
	return looked, wrong
}

func servicesComplete(h house) (looked int, wrong []string) {
	for _, service := range []string{"tenancy", "config", "quota", "gateway"} {
		for _, part := range []string{
			"Deployment/", "Service/", "ServiceAccount/", "PodDisruptionBudget/", "HorizontalPodAutoscaler/", "NetworkPolicy/",
		} {
			looked++
			if !h.has(strings.TrimSuffix(part, "/"), service) {
				wrong = append(wrong, part+service+" is missing")
			}
		}
	}
	if n := len(h.all("Deployment")); n != services {
		wrong = append(wrong, fmt.Sprintf("there are %d deployments, not %d", n, services))
	}
	return looked, wrong
}

func ownAccount(h house) (looked int, wrong []string) {
	users := map[string]string{}
	looked, wrong = eachPod(h, func(p pod, fail func(string, ...any)) {
		account := text(p.spec, "serviceAccountName")
		if account == "default" || !h.has("ServiceAccount", account) {
			fail("service account %q is not its own", account)
		}
		if p.of.kind() == "Deployment" {
			if other := users[account]; other != "" {
				fail("shares the service account %q with %s", account, other)
			}
			users[account] = p.of.name()
		}
		if !is(false, p.spec, "automountServiceAccountToken") {
			fail("mounts a token of the cluster")
		}
		if !is(false, p.spec, "enableServiceLinks") {
			fail("gets variables for every service")
		}
	})
	for _, o := range h.all("ServiceAccount") {
		if !is(false, o, "automountServiceAccountToken") {
			wrong = append(wrong, o.String()+" mounts a token")
		}
	}
	return looked, wrong
}

func podRestricted(h house) (looked int, wrong []string) {
	const nobody = 65532
	return eachPod(h, func(p pod, fail func(string, ...any)) {
		for key, want := range map[string]any{
			"runAsNonRoot": true, "runAsUser": nobody, "runAsGroup": nobody, "fsGroup": nobody, "supplementalGroupsPolicy": "Strict",
			"seccompProfile": map[string]any{"type": "RuntimeDefault"},
		} {
			if !is(want, p.spec, "securityContext", key) {
				fail("securityContext.%s is %v, not %v", key, at(p.spec, "securityContext", key), want)
			}
		}
		for _, shared := range []string{"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostAliases"} {
			if at(p.spec, shared) != nil {
				fail("sets %s", shared)
			}
		}
	})
}

func containerRestricted(h house) (looked int, wrong []string) {
	want := map[string]any{
		"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": map[string]any{"drop": []any{"ALL"}},
	}
	return eachContainer(h, func(c any, fail func(string, ...any)) {
		if !is(want, c, "securityContext") {
			fail("securityContext is %v, not exactly %v", at(c, "securityContext"), want)
		}
		for _, port := range list(c, "ports") {
			if at(port, "hostPort") != nil {
				fail("takes a port of the host")
			}
		}
	})
}

func volumesBounded(h house) (looked int, wrong []string) {
	for _, p := range h.pods() {
		for _, v := range list(p.spec, "volumes") {
			looked++
			kinds := slices.Sorted(maps.Keys(members(v)))
			kinds = slices.DeleteFunc(kinds, func(k string) bool { return k == "name" })
			where := fmt.Sprintf("%s, volume %s", p.of, text(v, "name"))
			switch {
			case len(kinds) != 1 || !slices.Contains([]string{"configMap", "emptyDir", "secret"}, kinds[0]):
				wrong = append(wrong, fmt.Sprintf("%s: %v is not permitted", where, kinds))
			case kinds[0] == "emptyDir" && text(v, "emptyDir", "sizeLimit") == "":
				wrong = append(wrong, where+": no bound on its size")
			case kinds[0] == "secret" && !is(0o440, v, "secret", "defaultMode"):
				wrong = append(wrong, where+": others than the pod's group may read it, or the group may not")
			}
		}
	}
	return looked, wrong
}

func secretsAsFiles(h house) (looked int, wrong []string) {
	return eachContainer(h, func(c any, fail func(string, ...any)) {
		if at(c, "envFrom") != nil {
			fail("takes its environment from an object")
		}
		for _, e := range list(c, "env") {
			if at(e, "valueFrom", "secretKeyRef") != nil {
				fail("variable %s holds a secret", text(e, "name"))
			}
		}
		for _, m := range list(c, "volumeMounts") {
			if at(m, "subPath") != nil || at(m, "subPathExpr") != nil {
				fail("mount %s is of one file, which never changes again", text(m, "name"))
			}
			if text(m, "name") != "state" && !is(true, m, "readOnly") {
				fail("mount %s can be written", text(m, "name"))
			}
		}
	})
}

func imageByDigest(h house) (looked int, wrong []string) {
	digest := regexp.MustCompile(`^[^:@]+(:\d+/[^:@]+)?@sha256:[0-9a-f]{64}$`)
	return eachContainer(h, func(c any, fail func(string, ...any)) {
		if !digest.MatchString(text(c, "image")) {
			fail("image %q is not named by its digest alone", text(c, "image"))
		}
		if at(c, "command") != nil {
			fail("replaces the image's own program")
		}
	})
}

func resourcesNamed(h house) (looked int, wrong []string) {
	return eachContainer(h, func(c any, fail func(string, ...any)) {
		for _, way := range [][]string{{"requests", "cpu"}, {"requests", "memory"}, {"limits", "memory"}} {
			if at(c, "resources", way[0], way[1]) == nil {
				fail("no %s of %s", way[0], way[1])
			}
		}
		if at(c, "resources", "limits", "cpu") != nil {
			fail("limits cpu: it would be throttled while cores are idle")
		}
	})
}

func probesOnOps(h house) (looked int, wrong []string) {
	return eachDeployment(h, func(o object, fail func(string, ...any)) {
		for _, c := range list(o, "spec", "template", "spec", "containers") {
			for probe, path := range map[string]string{
				"startupProbe": "/startupz", "livenessProbe": "/livez", "readinessProbe": "/readyz",
			} {
				if !is(map[string]any{"path": path, "port": "ops"}, c, probe, "httpGet") {
					fail("%s asks %v, not %s on the port ops", probe, at(c, probe, "httpGet"), path)
				}
			}
		}
	})
}

func endingGraceful(h house) (looked int, wrong []string) {
	return eachDeployment(h, func(o object, fail func(string, ...any)) {
		if !is(45, o, "spec", "template", "spec", "terminationGracePeriodSeconds") {
			fail("the grace period is not 45 s: 5 before the signal, 30 to drain, 10 to spare")
		}
		for _, c := range list(o, "spec", "template", "spec", "containers") {
			if !is(map[string]any{"sleep": map[string]any{"seconds": 5}}, c, "lifecycle", "preStop") {
				fail("does not wait 5 s for balancers before it ends")
			}
		}
	})
}

func rolloutSafe(h house) (looked int, wrong []string) {
	return eachDeployment(h, func(o object, fail func(string, ...any)) {
		if !is(0, o, "spec", "strategy", "rollingUpdate", "maxUnavailable") || text(o, "spec", "strategy", "type") != "RollingUpdate" {
			fail("a rollout takes replicas away")
		}
		if at(o, "spec", "replicas") != nil {
			fail("replicas beside an autoscaler: each apply would undo its work")
		}
		if !is(at(o, "spec", "template", "metadata", "labels", "app.kubernetes.io/name"), o, "metadata", "name") {
			fail("its pods have another name")
		}
	})
}

func scalingCalm(h house) (looked int, wrong []string) {
	scalers := map[string]int{}
	for _, o := range h.all("HorizontalPodAutoscaler") {
		scalers[text(o, "spec", "scaleTargetRef", "name")]++
		if at(o, "spec", "behavior", "scaleDown", "policies") == nil || at(o, "spec", "behavior", "scaleUp", "policies") == nil {
			wrong = append(wrong, o.String()+": no behaviour, so it would halve the replicas at once")
		}
		if least, ok := at(o, "spec", "minReplicas").(float64); !ok || least < 1 {
			wrong = append(wrong, o.String()+": no least number of replicas")
		}
	}
	n, missing := eachDeployment(h, func(o object, fail func(string, ...any)) {
		if scalers[o.name()] != 1 {
			fail("%d autoscalers", scalers[o.name()])
		}
	})
	return n, append(wrong, missing...)
}

func disruptionOne(h house) (looked int, wrong []string) {
	for _, o := range h.all("PodDisruptionBudget") {
		if !is(1, o, "spec", "maxUnavailable") || at(o, "spec", "minAvailable") != nil {
			wrong = append(wrong, o.String()+": not exactly one at a time")
		}
		if text(o, "spec", "unhealthyPodEvictionPolicy") != "AlwaysAllow" {
			wrong = append(wrong, o.String()+": a pod that never was ready would hold up the drain of its node")
		}
	}
	n, missing := eachDeployment(h, func(o object, fail func(string, ...any)) {
		budgets := 0
		for _, b := range h.all("PodDisruptionBudget") {
			if is(at(b, "spec", "selector"), o, "spec", "selector") {
				budgets++
			}
		}
		if budgets != 1 {
			fail("%d disruption budgets", budgets)
		}
	})
	return n, append(wrong, missing...)
}

func spreadLoose(h house) (looked int, wrong []string) {
	return eachDeployment(h, func(o object, fail func(string, ...any)) {
		over := map[string]bool{}
		for _, s := range list(o, "spec", "template", "spec", "topologySpreadConstraints") {
			over[text(s, "topologyKey")] = true
			if text(s, "whenUnsatisfiable") != "ScheduleAnyway" {
				fail("a spread that must hold leaves evicted pods pending")
			}
			if !is([]any{"pod-template-hash"}, s, "matchLabelKeys") {
				fail("a spread that counts the old pods of a rollout")
			}
			if !is(at(s, "labelSelector"), o, "spec", "selector") {
				fail("a spread of other pods")
			}
		}
		if !over["topology.kubernetes.io/zone"] || !over["kubernetes.io/hostname"] {
			fail("not spread over zones and hosts")
		}
	})
}

func servicesHeadless(h house) (looked int, wrong []string) {
	for _, o := range h.all("Service") {
		looked++
		if text(o, "spec", "trafficDistribution") != "PreferSameZone" {
			wrong = append(wrong, o.String()+": does not prefer the same zone")
		}
		if o.name() != "gateway-front" && text(o, "spec", "clusterIP") != "None" {
			wrong = append(wrong, o.String()+": not headless, so a client's connections would all end at one replica")
		}
		target := h.selected(members(o, "spec", "selector"))
		if len(target) != 1 {
			wrong = append(wrong, fmt.Sprintf("%s: selects %d workloads", o, len(target)))
			continue
		}
		for _, port := range list(o, "spec", "ports") {
			if name := text(port, "targetPort"); name == "ops" || containerPort(target[0], name) == nil {
				wrong = append(wrong, fmt.Sprintf("%s: target port %q is not for it", o, name))
			}
		}
	}
	return looked, wrong
}

// selected returns the pods that carry labels.
func (h house) selected(labels map[string]any) []pod {
	return slices.DeleteFunc(h.pods(), func(p pod) bool {
		return !carries(p, labels)
	})
}

// carries reports whether a pod has all the labels, of which there must be some.
func carries(p pod, labels map[string]any) bool {
	for key, value := range labels {
		if p.labels()[key] != value {
			return false
		}
	}
	return len(labels) > 0
}

// containerPort returns the number of a pod's named port.
func containerPort(p pod, name string) any {
	for _, c := range p.containers() {
		for _, port := range list(c, "ports") {
			if text(port, "name") == name {
				return at(port, "containerPort")
			}
		}
	}
	return nil
}

func frontDoor(h house) (looked int, wrong []string) {
	for _, o := range h.all("Service") {
		switch kind := text(o, "spec", "type"); {
		case kind == "LoadBalancer" && o.name() == "gateway-front":
			looked++
			if text(o, "spec", "externalTrafficPolicy") != "Local" {
				wrong = append(wrong, o.String()+": loses the caller's address")
			}
		case kind == "" || kind == "ClusterIP":
			looked++
		default:
			wrong = append(wrong, fmt.Sprintf("%s: %s opens a second door", o, kind))
		}
	}
	return looked, wrong
}

// nothingInTheClear keeps customers' tokens and cookies off plain HTTP: the gateway has no such port, no Service leads to
// one, and the configuration opens none.
func nothingInTheClear(h house) (looked int, wrong []string) {
	for _, o := range h.all("Service") {
		if o.name() == "gateway-front" && !is([]any{map[string]any{"name": "https", "port": 443, "targetPort": "https"}}, o, "spec", "ports") {
			wrong = append(wrong, o.String()+": publishes something else than HTTPS")
		}
	}
	for _, p := range h.pods() {
		if p.of.String() != "Deployment/gateway" {
			continue
		}
		looked++
		if containerPort(p, "http") != nil {
			wrong = append(wrong, p.of.String()+": has a port in the clear")
		}
		if regexp.MustCompile(`(?m)^http:`).MatchString(h.read(p, "config", "config.yaml")) {
			wrong = append(wrong, p.of.String()+": is configured to serve in the clear")
		}
	}
	return looked, wrong
}

func migrationsApart(h house) (looked int, wrong []string) {
	jobs := map[string]bool{}
	for _, o := range h.all("Job") {
		looked++
		args := list(o, "spec", "template", "spec", "containers", "0", "args")
		if len(args) < 2 || args[0] != "migrate" {
			wrong = append(wrong, fmt.Sprintf("%s: runs %v", o, args))
			continue
		}
		service, _ := args[1].(string)
		jobs[service] = true
		if at(o, "spec", "activeDeadlineSeconds") == nil || at(o, "spec", "ttlSecondsAfterFinished") == nil {
			wrong = append(wrong, o.String()+": never ends, or stays for ever")
		}
	}
	_, without := eachDeployment(h, func(o object, fail func(string, ...any)) {
		if !jobs[o.name()] {
			fail("no job migrates its database")
		}
		if at(o, "spec", "template", "spec", "initContainers") != nil {
			fail("has init containers: each replica would migrate, with rights that serving never needs")
		}
	})
	return looked, append(wrong, without...)
}

func objectsBelong(h house) (looked int, wrong []string) {
	namespaces := h.all("Namespace")
	if len(namespaces) != 1 {
		return 1, []string{fmt.Sprintf("there are %d namespaces", len(namespaces))}
	}
	for _, o := range h.objects {
		looked++
		if o.kind() != "Namespace" && text(o, "metadata", "namespace") != namespaces[0].name() {
			wrong = append(wrong, o.String()+": in another namespace")
		}
		if text(o, "metadata", "labels", "app.kubernetes.io/part-of") != "rowhouse" {
			wrong = append(wrong, o.String()+": not labelled as part of rowhouse")
		}
	}
	return looked, wrong
}

// kindsHarmless keeps secrets out of the repository, and rights in the cluster out of the house.
func kindsHarmless(h house) (looked int, wrong []string) {
	permitted := []string{
		"ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Job", "Namespace", "NetworkPolicy", "PodDisruptionBudget", "Service",
		"ServiceAccount",
	}
	for _, o := range h.objects {
		looked++
		if !slices.Contains(permitted, o.kind()) {
			wrong = append(wrong, o.String()+": no part of the house is a "+o.kind())
		}
	}
	return looked, wrong
}
