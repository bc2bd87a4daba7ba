"""Where things are on hosts that build or keep images."""

from __future__ import annotations

from pathlib import Path

#: What the settings say of this host.
CONFIGURATION = Path("/etc/slurmstack/images.json")
#: Where images are put together and tried: on a local disk, root's alone.
WORK = Path("/var/lib/slurmstack-images")
#: Who tries images, and serves them: nobody else's, without rights.
USER = "slurmstack-images"
#: In the registry: what is built and not published yet, and archives that images begin with.
CANDIDATES = ".candidates"
BASES = "base-images"
#: In an image: what it is. Nothing in it tells when or where it was built.
INSIDE = "etc/slurmstack-image.json"
