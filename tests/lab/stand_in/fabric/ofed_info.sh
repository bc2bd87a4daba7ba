#!/bin/sh
# Stands for ofed_info(1), as DOCA-OFED has it.
echo OFED-internal-VERSION:
