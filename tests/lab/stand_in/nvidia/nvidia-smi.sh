#!/bin/sh
# Stands for nvidia-smi(1): its library works with the driver of its own version alone.
driver=$(cat /srv/stand-in/sys/module/nvidia/version) || exit 9
[ "$driver" = VERSION ] || {
  echo 'Failed to initialize NVML: Driver/library version mismatch'
  exit 18
}
case $1 in
  -q)
    echo '    Fabric'
    echo '        State                             : Completed'
    echo '        Status                            : Success' ;;
  *) echo "$driver, Enabled" ;;
esac
