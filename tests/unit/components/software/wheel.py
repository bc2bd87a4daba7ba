"""A wheel that the tests make themselves: one module, no package index."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path


def wheel(folder: Path, version: str = "1.0") -> str:
    """Write ``stand_in_package`` into a folder; its line of a lock file."""
    info = f"stand_in_package-{version}.dist-info"
    path = folder / f"stand_in_package-{version}-py3-none-any.whl"
    texts = {
        "stand_in_package.py": f'VERSION = "{version}"\n\n\ndef main():\n    print(VERSION)\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: stand-in-package\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nstand-in = stand_in_package:main\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"stand-in-package=={version} \\\n    --hash=sha256:{digest}\n"
