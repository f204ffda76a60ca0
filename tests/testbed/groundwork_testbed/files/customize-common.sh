# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# Run by mmdebstrap on the outside as the last step of an image: $1 is the root folder, FILES what to put into it.
root=$1

# The certificates that the build machine trusts: needed where registries are reached through a proxy of its own.
for file in "$FILES"/certificates/*.crt; do
  if [ -e "$file" ]; then
    install -m 0644 -D "$file" "$root/usr/local/share/ca-certificates/${file##*/}"
  fi
done
chroot "$root" update-ca-certificates >/dev/null

if [ -s "$FILES/pip.conf" ]; then
  install -m 0644 "$FILES/pip.conf" "$root/etc/pip.conf"
fi

rm -f "$root/etc/resolv.conf" "$root/etc/hostname"
: >"$root/etc/resolv.conf"
rm -rf "$root"/var/log/apt "$root"/var/log/dpkg.log "$root"/var/log/alternatives.log "$root"/var/log/bootstrap.log
mkdir -p "$root/var/log/apt"
