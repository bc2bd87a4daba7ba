#!/bin/sh
# Stands for modinfo(8) of network drivers: their modules are of this release.
echo VERSION
