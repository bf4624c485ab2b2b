// Adapter is KEDA's metrics server: its provider of external metrics, behind the API server library that KEDA uses.
//
// KEDA's own program also serves its internal metrics on every address of the machine, which a test must not do.
package main

import (
	"context"
	"log"
	"os"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/cmd"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/kedacore/keda/v2/pkg/metricsservice"
	kedaprovider "github.com/kedacore/keda/v2/pkg/provider"
)

func main() {
	ctrl.SetLogger(zap.New())
	if err := run(ctrl.SetupSignalHandler()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	adapter := &cmd.AdapterBase{Name: "keda-adapter"}
	operator := adapter.Flags().String("metrics-service-address", "", "host:port of the operator's metrics service")
	if err := adapter.Flags().Parse(os.Args); err != nil {
		return err
	}
	metrics, err := externalMetrics(ctx, *operator, adapter.SecureServing.ServerCert.CertDirectory)
	if err != nil {
		return err
	}
	adapter.WithExternalMetrics(metrics)
	return adapter.Run(ctx)
}

// externalMetrics asks the operator, with the certificates in a folder, and reads ScaledObjects (KUBECONFIG says where).
func externalMetrics(ctx context.Context, operator, certificates string) (provider.ExternalMetricsProvider, error) {
	if err := v1alpha1.AddToScheme(scheme.Scheme); err != nil {
		return nil, err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, err
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:  scheme.Scheme,
		Metrics: server.Options{BindAddress: "0"},
	})
	if err != nil {
		return nil, err
	}
	client, err := metricsservice.NewGrpcClient(ctx, operator, certificates, "", "", grpcprom.NewClientMetrics(), false)
	if err != nil {
		return nil, err
	}
	go func() {
		if err := manager.Start(ctx); err != nil {
			log.Fatal(err)
		}
	}()
	return kedaprovider.NewProvider(ctx, ctrl.Log, manager.GetClient(), *client), nil
}
