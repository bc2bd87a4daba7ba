#!/bin/sh
# Stands for nvidia-dkms: "builds" the module, in dkms(8)'s words where the node is told to fail.
set -e
[ "$1" = configure ] || exit 0
version=VERSION
build=/var/lib/dkms/nvidia/$version/build
mkdir -p "$build" /var/lib/stand-in
if [ -e /etc/stand-in-build-fails ]; then
  echo "nvidia/nv-dma.c:66:13: error: too few arguments to function 'stand_in'" >"$build/make.log"
  echo 'make[1]: *** [Makefile:61: modules] Error 2' >>"$build/make.log"
  echo "Error! Bad return status for module build on kernel: $(uname -r) (x86_64)" >&2
  echo "Consult $build/make.log for more information." >&2
  exit 10
fi
echo "$version" >/var/lib/stand-in/built
