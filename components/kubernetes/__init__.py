"""The bridge to Kubernetes: Slurm schedules, Kubernetes runs."""
