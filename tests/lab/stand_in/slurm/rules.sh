#!/bin/sh
# A stand-in for the packaging in Slurm's source: SchedMD's packages, with their names, conflicts
# and dependencies among each other, but out of the distribution's binaries instead of a compiler.
set -eu
case $1 in binary | binary-arch) ;; *) exit 0 ;; esac

pack() { # package, the distribution's…
  package=$1
  root=debian/$package
  shift
  mkdir -p "$root/DEBIAN" "downloads/$package"
  (cd "downloads/$package" && apt-get -q download "$@")
  for file in "downloads/$package"/*.deb; do
    dpkg-deb --extract "$file" "$root"
    dpkg-deb --field "$file" Depends | tr ',' '\n'
  done | sed 's/^ *//' | grep -Ev '^(adduser|libslurm|slurm|systemd|ucf)' | sort -u | paste -sd, |
    sed 's/^/binaries:Depends=/' >"debian/$package.substvars"
  rm -rf "${root:?}/etc" "${root:?}/usr/share"
  # The distribution reaches these through its alternatives.
  find "$root" -path '*/sbin/*-wlm' -exec sh -c 'mv "$1" "${1%-wlm}"' rename {} \;
  # As dh_installsystemd does it: systemd has seen the distribution's unit go.
  printf '#!/bin/sh\nsystemctl daemon-reload\n' >"$root/DEBIAN/postinst"
  chmod 0755 "$root/DEBIAN/postinst"
  dpkg-gencontrol "-p$package" "-P$root" "-Tdebian/$package.substvars"
  dpkg-deb --root-owner-group --build "$root" ..
}

pack slurm-smd slurm-wlm-basic-plugins slurm-wlm-jwt-plugin slurm-wlm-mysql-plugin
pack slurm-smd-client slurm-client
pack slurm-smd-dev libslurm-dev
for daemon in sackd slurmctld slurmd slurmdbd slurmrestd; do
  pack "slurm-smd-$daemon" "$daemon"
done
