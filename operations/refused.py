"""What an operator can mend is said on one line, without a traceback."""

from __future__ import annotations


class Refused(Exception):
    """The verb did not do it, and why: what was found, and the remedy. Exit code 1.

    The base of the errors of operations: the command line prints each of them alike.
    """
