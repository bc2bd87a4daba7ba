#!/bin/sh
# Stands for modprobe(8) on a machine without modules: files below /sys/module.
case $1 in
  -r) rm -r "/sys/module/$2" ;;
  *)
    mkdir -p "/sys/module/$(echo "$1" | tr - _)"
    cp /var/lib/stand-in/built "/sys/module/$(echo "$1" | tr - _)/version" ;;
esac
