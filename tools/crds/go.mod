// Pins the modules whose custom resource definitions the API server of tests/cluster gets (KEDA's come with tools/keda).
// Nothing is built from them and there is no Go file, so `go mod tidy` would empty this. To move a pin, change it here and
// run `go mod download MODULE`, which writes its sum.
module superset-async/tools/crds

go 1.26.0

require (
	github.com/cert-manager/cert-manager v1.18.2
	github.com/cloudnative-pg/cloudnative-pg v1.27.0
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.6.3
)
