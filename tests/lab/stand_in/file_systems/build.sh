#!/bin/sh
# Makes an object file that says of itself, as modules do, for which kernel it was built. No kernel takes it.
exec cc -c -Werror -DKERNEL="\"$2\"" -o "$1.ko" module.c
