#!/bin/sh
# Stands for nvidia-smi(1): its library works with the driver of its own version alone.
driver=$(cat /srv/stand-in/sys/module/nvidia/version) || exit 9
[ "$driver" = VERSION ] || {
  echo 'Failed to initialize NVML: Driver/library version mismatch'
  exit 18
}
# Two GPUs with MIG, whose mode and instances live as long as /run: a boot ends both, as on Hopper. In the
# words of NVIDIA's MIG User Guide; files in /etc make it fail.
run=/run/stand-in-mig gpu=0,1
mkdir -p "$run"
[ "$1" != -i ] || {
  gpu=$2
  shift 2
}
[ "$1 $2" != 'mig -i' ] || {
  gpu=$3
  shift 3
  set -- mig "$@"
}
gpus() { echo "$gpu" | tr , '\n'; }
mode() { cat "$run/mode.$1" 2>/dev/null || echo Disabled; }
case $1.$2 in
  -q.*)
    echo '    Fabric'
    echo '        State                             : Completed'
    echo '        Status                            : Success' ;;
  --query-gpu=mig.mode.current.*) for one in $(gpus); do mode "$one"; done ;;
  --query-gpu=index,mig.mode.current.*) for one in $(gpus); do echo "$one, $(mode "$one")"; done ;;
  -L.*)
    for one in $(gpus); do
      echo "GPU $one: NVIDIA H100 80GB HBM3 (UUID: GPU-0000000$one)"
      [ ! -e "$run/instances.$one" ] ||
        awk -v of="0000000$one" '{ print "  MIG " $1 "     Device  " NR - 1 ": (UUID: MIG-" of "-" NR - 1 ")" }' \
          "$run/instances.$one"
    done ;;
  -mig.1)
    echo Enabled >"$run/mode.$gpu"
    echo "Enabled MIG Mode for GPU 0000000$gpu:1B:00.0" ;;
  -mig.0)
    rm -f "$run/mode.$gpu" "$run/instances.$gpu"
    echo "Disabled MIG Mode for GPU 0000000$gpu:1B:00.0" ;;
  mig.-dci | mig.-dgi)
    [ -s "$run/instances.$gpu" ] || {
      echo 'No GPU instances found: Not Found'
      exit 6
    }
    [ "$2" = -dci ] || rm "$run/instances.$gpu" ;;
  mig.-lgi) cat "$run/instances.$gpu" ;;
  mig.-cgi)
    [ "$(mode "$gpu")" = Enabled ] || {
      echo 'No MIG-enabled devices found.'
      exit 6
    }
    [ ! -e /etc/stand-in-no-instances ] || {
      echo "Unable to create a GPU instance on GPU  $gpu using profile 9: Insufficient Resources"
      echo 'Failed to create GPU instances: Insufficient Resources'
      exit 19
    }
    echo "$3" | tr , '\n' >"$run/instances.$gpu" ;;
  *) echo "$driver, Enabled" ;;
esac
