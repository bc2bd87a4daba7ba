#!/bin/sh
# Stands for modprobe(8) on a machine without modules: files.
case $1 in
  -r)
    rm -r "/srv/stand-in/sys/module/$2" || exit
    # MIG's mode and instances go with the module.
    [ "$2" != nvidia ] || rm -rf /run/stand-in-mig ;;
  *)
    mkdir -p "/srv/stand-in/sys/module/$(echo "$1" | tr - _)"
    cp /var/lib/stand-in/built "/srv/stand-in/sys/module/$(echo "$1" | tr - _)/version" ;;
esac
