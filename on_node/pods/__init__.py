"""Pods of jobs: made from what Slurm has given a job, followed by its batch step, cleaned up."""
