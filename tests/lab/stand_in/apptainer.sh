#!/bin/sh
# A stand-in for Apptainer in the lab's tests.
echo "a stand-in for apptainer"
