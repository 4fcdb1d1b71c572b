"""The Helm chart deploy/chart, made from deploy/k8s and deploy/components (`make manifests`)."""
