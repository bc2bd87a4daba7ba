"""Jobs for Kubernetes: what people put into the submit folder, read, checked and submitted."""
