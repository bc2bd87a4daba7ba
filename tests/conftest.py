"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# A check of a submission repeats; the search for new examples is for those who can look at them.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("default", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "default")
