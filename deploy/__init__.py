"""How the services are deployed: Kubernetes manifests, Prometheus rules, Grafana dashboards."""
