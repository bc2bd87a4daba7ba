"""Why a job failed: evidence is gathered on its nodes, and judged by documented rules.

The standard library of Python 3.9 is all that it needs: it lies on nodes, where users run it for
their own jobs, and travels with `slurmstack diagnose`.
"""
