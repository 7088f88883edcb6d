package settings

// RegionKey is the key of a region's document in the feed.
func RegionKey(namespace, region string) string { return "doc/" + namespace + "/region/" + region }

// EnvironmentKey is the key, in the feed, of a tenant's document for one environment; uid is the text of a uid.
func EnvironmentKey(namespace, uid, environment string) string {
	return "doc/" + namespace + "/environment/" + uid + "/" + environment
}
