"""Container images of the cluster."""
