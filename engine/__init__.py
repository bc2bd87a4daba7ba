"""The embedded engine: a small stand-in for the `pulumi` command. See README.md beside it."""

VERSION = "3.260.0"
"""The Pulumi version whose command line, protocol and state format this engine follows; also that
of the pulumi SDK in the lock file."""
