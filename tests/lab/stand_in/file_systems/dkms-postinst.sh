#!/bin/sh
# What dh_dkms writes for BeeGFS's package and others: a build that fails leaves the package half-configured.
set -e
[ "$1" = configure ] || exit 0
exec /usr/lib/dkms/common.postinst NAME VERSION /usr/share/NAME '' "$2"
