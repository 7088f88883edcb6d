package settings

// NamespaceKey is a namespace's key in the feed.
func NamespaceKey(namespace string) string { return "namespace/" + namespace }

// PlatformKey is the key of the platform's document in the feed.
func PlatformKey(namespace string) string { return "doc/" + namespace + "/platform" }

// PlanKey is the key of a plan's document in the feed.
func PlanKey(namespace, plan string) string { return "doc/" + namespace + "/plan/" + plan }

// TenantKey is the key of a tenant's document in the feed; uid is the text of a uid.
func TenantKey(namespace, uid string) string {
	return "doc/" + namespace + "/tenant/" + uid
}

// RegionKey is the key of a region's document in the feed.
func RegionKey(namespace, region string) string { return "doc/" + namespace + "/region/" + region }

// EnvironmentKey is the key, in the feed, of a tenant's document for one environment; uid is the text of a uid.
func EnvironmentKey(namespace, uid, environment string) string {
	return "doc/" + namespace + "/environment/" + uid + "/" + environment
}

// RolloutKey is the key, in the feed, of the rollout that runs in a namespace.
func RolloutKey(namespace string) string { return "rollout/" + namespace }
