package manifests_test

import (
	"strings"
	"testing"
)

// TestRulesFindOffenders plants one fault at a time into the real manifests; the rule that is about it has to find it.
func TestRulesFindOffenders(t *testing.T) {
	t.Parallel()
	objects := render(t, deploy+"/base")
	const pod, container = "spec.template.spec.", "spec.template.spec.containers.0."
	type m = map[string]any
	type l = []any
	gatewayConfig := "ConfigMap/" + text(house{objects}.pod(t, "gateway").spec, "volumes", "0", "configMap", "name")
	tests := []struct {
		rule, what, object, way string
		value                   any // nil removes; an empty way removes the object
	}{
		{"namespace", "baseline", "Namespace/rowhouse", "metadata.labels.pod-security.kubernetes.io/enforce", "baseline"},
		{"namespace", "unlabelled", "Namespace/rowhouse", "metadata.labels", nil},
		{"parts", "no quota", "Deployment/quota", "", nil},
		{"account", "default account", "Deployment/tenancy", pod + "serviceAccountName", "default"},
		{"account", "another's account", "Deployment/tenancy", pod + "serviceAccountName", "quota"},
		{"account", "token", "Deployment/tenancy", pod + "automountServiceAccountToken", true},
		{"account", "token by default", "Job/quota-migrate", pod + "automountServiceAccountToken", nil},
		{"account", "token of the account", "ServiceAccount/gateway", "automountServiceAccountToken", nil},
		{"account", "service links", "Deployment/config", pod + "enableServiceLinks", nil},
		{"pod", "root", "Deployment/tenancy", pod + "securityContext.runAsUser", 0},
		{"pod", "may be root", "Job/tenancy-migrate", pod + "securityContext.runAsNonRoot", nil},
		{"pod", "no seccomp", "Deployment/tenancy", pod + "securityContext.seccompProfile.type", "Unconfined"},
		{"pod", "groups of the image", "Deployment/tenancy", pod + "securityContext.supplementalGroupsPolicy", nil},
		{"pod", "network of the host", "Deployment/gateway", pod + "hostNetwork", true},
		{"container", "privileged", "Deployment/gateway", container + "securityContext.privileged", true},
		{"container", "added capability", "Deployment/gateway", container + "securityContext.capabilities.add", l{"NET_ADMIN"}},
		{"container", "root that can be written", "Deployment/gateway", container + "securityContext.readOnlyRootFilesystem", false},
		{"container", "escalation", "Job/config-migrate", container + "securityContext.allowPrivilegeEscalation", nil},
		{"container", "privileged side car", "Deployment/quota", pod + "containers.-", m{"name": "x", "securityContext": m{"privileged": true}}},
		{"container", "host port", "Deployment/gateway", container + "ports.0.hostPort", 443},
		{"volumes", "host path", "Deployment/quota", pod + "volumes.-", m{"name": "x", "hostPath": m{"path": "/"}}},
		{"volumes", "token by projection", "Deployment/quota", pod + "volumes.-", m{"name": "x", "projected": m{"sources": l{}}}},
		{"volumes", "unbounded", "Deployment/gateway", pod + "volumes.7", m{"name": "state", "emptyDir": m{}}},
		{"volumes", "everyone reads", "Deployment/gateway", pod + "volumes.3.secret.defaultMode", 0o444},
		{"secrets", "in a variable", "Deployment/config", container + "env", l{m{"name": "DSN", "valueFrom": m{"secretKeyRef": m{"name": "x"}}}}},
		{"secrets", "all variables", "Deployment/config", container + "envFrom", l{m{"secretRef": m{"name": "x"}}}},
		{"secrets", "one file", "Deployment/config", container + "volumeMounts.0.subPath", "config.yaml"},
		{"secrets", "can be written", "Deployment/config", container + "volumeMounts.3.readOnly", nil},
		{"image", "latest", "Deployment/config", container + "image", "registry.invalid/rowhouse:latest"},
		{"image", "no tag", "Deployment/config", container + "image", "rowhouse"},
		{"image", "tag and digest", "Job/config-migrate", container + "image", "rowhouse:v1@sha256:" + strings.Repeat("0", 64)},
		{"image", "another program", "Deployment/config", container + "command", l{"/bin/sh"}},
		{"resources", "no limits", "Deployment/quota", container + "resources.limits", nil},
		{"resources", "no requests", "Job/quota-migrate", container + "resources.requests", nil},
		{"resources", "cpu limit", "Deployment/quota", container + "resources.limits.cpu", "1"},
		{"probes", "none for liveness", "Deployment/quota", container + "livenessProbe", nil},
		{"probes", "liveness asks readiness", "Deployment/quota", container + "livenessProbe.httpGet.path", "/readyz"},
		{"probes", "on the port of gRPC", "Deployment/quota", container + "startupProbe.httpGet.port", "grpc"},
		{"ending", "short grace", "Deployment/gateway", pod + "terminationGracePeriodSeconds", 30},
		{"ending", "no wait", "Deployment/gateway", container + "lifecycle", nil},
		{"rollout", "fewer replicas", "Deployment/gateway", "spec.strategy.rollingUpdate.maxUnavailable", "25%"},
		{"rollout", "recreate", "Deployment/gateway", "spec.strategy.type", "Recreate"},
		{"rollout", "replicas", "Deployment/gateway", "spec.replicas", 3},
		{"scaling", "no autoscaler", "HorizontalPodAutoscaler/gateway", "", nil},
		{"scaling", "no behaviour", "HorizontalPodAutoscaler/gateway", "spec.behavior", nil},
		{"scaling", "another's", "HorizontalPodAutoscaler/gateway", "spec.scaleTargetRef.name", "quota"},
		{"disruption", "none", "PodDisruptionBudget/tenancy", "", nil},
		{"disruption", "both bounds", "PodDisruptionBudget/tenancy", "spec.minAvailable", 1},
		{"disruption", "never", "PodDisruptionBudget/tenancy", "spec.maxUnavailable", 0},
		{"disruption", "of other pods", "PodDisruptionBudget/tenancy", "spec.selector.matchLabels", m{"app": "x"}},
		{"disruption", "sick pods stay", "PodDisruptionBudget/tenancy", "spec.unhealthyPodEvictionPolicy", nil},
		{"spread", "must hold", "Deployment/tenancy", pod + "topologySpreadConstraints.1.whenUnsatisfiable", "DoNotSchedule"},
		{"spread", "counts old pods", "Deployment/tenancy", pod + "topologySpreadConstraints.0.matchLabelKeys", nil},
		{"spread", "not over zones", "Deployment/tenancy", pod + "topologySpreadConstraints.0", nil},
		{"deny", "none", "NetworkPolicy/default-deny", "", nil},
		{"deny", "with a hole", "NetworkPolicy/default-deny", "spec.ingress", l{m{}}},
		{"deny", "of some pods", "NetworkPolicy/default-deny", "spec.podSelector", m{"matchLabels": m{"a": "b"}}},
		{"policies", "one direction", "NetworkPolicy/quota", "spec.policyTypes", l{"Ingress"}},
		{"policies", "about nobody", "NetworkPolicy/quota", "spec.podSelector.matchLabels", m{"app": "x"}},
		{"policies", "no peers for jobs", "NetworkPolicy/migrate", "", nil},
		{"peers", "from all", "NetworkPolicy/quota", "spec.ingress.-", m{"ports": l{m{"port": "grpc"}}}},
		{"peers", "from every namespace", "NetworkPolicy/quota", "spec.ingress.0.from.-", m{"namespaceSelector": m{}}},
		{"peers", "from every pod", "NetworkPolicy/quota", "spec.ingress.0.from.-", m{"podSelector": m{}}},
		{"peers", "to the world", "NetworkPolicy/quota", "spec.egress.1.to.-", m{"ipBlock": m{"cidr": "0.0.0.0/0"}}},
		{"peers", "every port", "NetworkPolicy/quota", "spec.egress.1.ports", nil},
		{"peers", "every port of a protocol", "NetworkPolicy/quota", "spec.egress.1.ports", l{m{"protocol": "TCP"}}},
		{"peers", "the world at gRPC", "NetworkPolicy/gateway", "spec.ingress.0.ports.-", m{"protocol": "TCP", "port": "grpc"}},
		{"operators", "tenancy is shut", "NetworkPolicy/tenancy", "spec.ingress.0.from.4", nil},
		{"operators", "quota at another port", "NetworkPolicy/quota", "spec.ingress.0.ports.0.port", "ops"},
		{"operators", "gateway is shut", "NetworkPolicy/gateway", "spec.ingress.1.from.0", nil},
		{"operators", "another label", "NetworkPolicy/config", "spec.ingress.0.from.2.namespaceSelector.matchLabels", m{"operators": "true"}},
		{"apps", "no follower of config", "NetworkPolicy/config", "spec.ingress.0.from.1", nil},
		{"apps", "nothing behind the gateway", "NetworkPolicy/gateway", "spec.egress.6", nil},
		{"apps", "one port behind the gateway", "NetworkPolicy/gateway", "spec.egress.6.ports.0.endPort", nil},
		{"telemetry", "no metrics", "NetworkPolicy/quota", "spec.ingress.1", nil},
		{"telemetry", "no traces", "NetworkPolicy/tenancy", "spec.egress.2", nil},
		{"database", "tenancy's is cut off", "NetworkPolicy/tenancy", "spec.egress.1", nil},
		{"database", "another port", "NetworkPolicy/gateway", "spec.egress.1.ports.0.port", 5433},
		{"database", "the jobs' are cut off", "NetworkPolicy/migrate", "spec.egress.1", nil},
		{"database", "UDP", "NetworkPolicy/config", "spec.egress.1.ports.0.protocol", "UDP"},
		{"database", "to no namespace", "NetworkPolicy/quota", "spec.egress.1.to.0", nil},
		{"dns", "cut off", "NetworkPolicy/config", "spec.egress.0", nil},
		{"dns", "long answers cut off", "NetworkPolicy/gateway", "spec.egress.0.ports.1", nil},
		{"dns", "the jobs' are cut off", "NetworkPolicy/migrate", "spec.egress.0.ports.0", nil},
		{"world", "shut", "NetworkPolicy/gateway", "spec.ingress.0", nil},
		{"world", "shut for IPv6", "NetworkPolicy/gateway", "spec.ingress.0.from.1", nil},
		{"world", "another port", "NetworkPolicy/gateway", "spec.ingress.0.ports.0.port", "http"},
		{"world", "no front door", "Service/gateway-front", "", nil},
		{"services", "one address", "Service/tenancy", "spec.clusterIP", nil},
		{"services", "any zone", "Service/tenancy", "spec.trafficDistribution", nil},
		{"services", "the ops port", "Service/tenancy", "spec.ports.0.targetPort", "ops"},
		{"services", "no such port", "Service/gateway-front", "spec.ports.0.targetPort", "htpp"},
		{"services", "jobs too", "Service/quota", "spec.selector", m{"app.kubernetes.io/name": "quota"}},
		{"front", "second door", "Service/tenancy", "spec.type", "LoadBalancer"},
		{"front", "port of the nodes", "Service/gateway-front", "spec.type", "NodePort"},
		{"front", "address lost", "Service/gateway-front", "spec.externalTrafficPolicy", nil},
		{"clear", "port 80", "Service/gateway-front", "spec.ports.-", m{"name": "http", "port": 80, "targetPort": "http"}},
		{"clear", "a container's port", "Deployment/gateway", container + "ports.-", m{"name": "http", "containerPort": 8080}},
		{"clear", "configured", gatewayConfig, "data.config.yaml", "http: \":8080\"\n"},
		{"migrations", "none", "Job/config-migrate", "", nil},
		{"migrations", "endless", "Job/config-migrate", "spec.activeDeadlineSeconds", nil},
		{"migrations", "by the service", "Deployment/config", pod + "initContainers", l{m{"name": "migrate"}}},
		{"references", "no such ConfigMap", "Deployment/config", pod + "volumes.0.configMap.name", "confg"},
		{"references", "undocumented secret", "Deployment/config", pod + "volumes.3.secret.secretName", "surprise"},
		{"references", "unmounted", "Deployment/config", container + "volumeMounts.2", nil},
		{"belonging", "another namespace", "Service/quota", "metadata.namespace", "default"},
		{"belonging", "unlabelled", "Service/quota", "metadata.labels", nil},
		{"kinds", "secret in the repository", "ConfigMap/", "kind", "Secret"},
		{"kinds", "rights in the cluster", "ServiceAccount/quota", "kind", "ClusterRoleBinding"},
	}
	covered := map[string]bool{}
	for _, test := range tests {
		covered[test.rule] = true
		t.Run(test.rule+"/"+test.what, func(t *testing.T) {
			t.Parallel()
			check := rules()[test.rule]
			if check == nil {
				t.Fatal("there is no such rule")
			}
			target := test.object
			if prefix, ok := strings.CutSuffix(target, "/"); ok {
				target = house{objects}.all(prefix)[0].String()
			}
			if _, wrong := check(house{planted(t, objects, target, steps(test.way), test.value)}); len(wrong) == 0 {
				t.Error("the rule does not find it")
			}
		})
	}
	for name := range rules() {
		if !covered[name] {
			t.Errorf("no offender shows that rule %q finds anything", name)
		}
	}
}

// steps splits a way at its dots; a label or a file of a ConfigMap, which have dots themselves, come last.
func steps(way string) []string {
	if way == "" {
		return nil
	}
	if file, ok := strings.CutPrefix(way, "data."); ok {
		return []string{"data", file}
	}
	if i := strings.Index(way, "labels."); i >= 0 {
		return append(strings.Split(way[:i+len("labels")], "."), way[i+len("labels."):])
	}
	return strings.Split(way, ".")
}
