
# What makes it a host: a user with sudo, keys of its own at each start, an init that works in a container.
chroot "$root" useradd --create-home --shell /bin/bash --groups sudo "$HOST_USER"
printf '%s ALL=(ALL:ALL) NOPASSWD: ALL\n' "$HOST_USER" >"$root/etc/sudoers.d/90-testbed"
chmod 0440 "$root/etc/sudoers.d/90-testbed"
install -m 0700 -d "$root/home/$HOST_USER/.ssh"
chroot "$root" chown -R "$HOST_USER:$HOST_USER" "/home/$HOST_USER/.ssh"
rm -f "$root"/etc/ssh/ssh_host_*
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"
install -m 0755 "$FILES/init" "$root/sbin/groundwork-testbed-init"
# Consoles that a container does not have.
chroot "$root" systemctl mask --quiet getty.target console-getty.service >/dev/null 2>&1
