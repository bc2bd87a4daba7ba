#!/bin/sh
# A module goes with its package (dh_dkms).
dkms remove -m NAME -v VERSION --all || true
