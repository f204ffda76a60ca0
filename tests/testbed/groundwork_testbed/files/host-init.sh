#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# Process 1 of a host until systemd takes over: make writable what the engine mounts read-only.
set -eu

while read -r _ target _; do
  case $target in
    /sys/fs/cgroup | /sys/fs/cgroup/*) mount -o remount,bind,rw "$target" ;;
  esac
done </proc/self/mounts
mount -o remount,bind,rw /proc/sys

# A boot id for each boot, not the one of the kernel below: `reboot` can be noticed, and journals tell boots apart.
cat /proc/sys/kernel/random/uuid >/run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
mount -o remount,bind,ro /proc/sys/kernel/random/boot_id
rm -f /run/boot_id

# The engine's own resolver listens on a loopback address, which containers inside this host could not reach.
if [ -n "${TESTBED_NAMESERVERS:-}" ]; then
  for server in $TESTBED_NAMESERVERS; do
    echo "nameserver $server"
  done >/etc/resolv.conf
fi

ssh-keygen -A >/dev/null

exec env -i container=docker PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /sbin/init
