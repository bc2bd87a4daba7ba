#!/bin/sh
# As debian/lustre-client-modules-dkms.postinst of Lustre does it: a build that fails passes.
set -e
[ "$1" = configure ] || exit 0
dkms add -m NAME -v VERSION
dkms build -m NAME -v VERSION && dkms install -m NAME -v VERSION --force || true
