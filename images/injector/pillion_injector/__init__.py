"""The sidecar in pods: a filter for Kubernetes files, and an admission webhook, over one pure core."""
