"""Health of a compute node, told on the node: checks, what Slurm is told of them, and what is done
before and after a job. Python's standard library only; delivered by components/health/node_health.
"""
