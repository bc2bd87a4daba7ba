"""Programs that run on the cluster's hosts: Python's standard library only, 3.9 and later.

They travel as files and import nothing of the project but each other.
"""
