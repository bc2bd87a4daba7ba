"""The same work as slurmstack's, done by Ansible and by pyinfra: what it costs beside it."""
