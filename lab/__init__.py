"""Real nodes on one machine: systemd machines on a bridge that the product deploys to over SSH.

Nothing that runs in production imports this package. `docs/lab.md` is the operator's page.
"""
