"""Stands for a share whose server is gone: a file system of FUSE that nobody serves.

Whoever asks it waits until he is killed, as on NFS mounted hard. It is there as long as this runs.
Needs root and nothing but Python: `python3 silent_file_system.py FOLDER`.
"""

import ctypes
import os
import signal
import stat
import sys
from pathlib import Path

DEVICE = Path("/dev/fuse")


def main(folder: str) -> None:
    if not DEVICE.exists():
        os.mknod(DEVICE, stat.S_IFCHR | 0o600, os.makedev(10, 229))
    handle = os.open(DEVICE, os.O_RDWR)
    options = f"fd={handle},rootmode=40000,user_id=0,group_id=0,allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"silent", folder.encode(), b"fuse", 0, options.encode()):
        sys.exit(f"{folder}: {os.strerror(ctypes.get_errno())}")
    print("mounted", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
