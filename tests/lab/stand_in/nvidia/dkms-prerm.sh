#!/bin/sh
# Stands for nvidia-dkms: a module goes with its package.
rm -f /var/lib/stand-in/built
rm -rf /var/lib/dkms/nvidia/VERSION
