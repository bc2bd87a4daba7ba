#!/bin/sh
# As debhelper's packages do: systemd reads the unit that has come.
systemctl --system daemon-reload
