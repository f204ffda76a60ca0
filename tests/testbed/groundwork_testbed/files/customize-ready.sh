
# What makes it ready: the engine knows the registry of the test bed, and nothing listens that nobody asked for.
install -m 0755 -d "$root/etc/docker"
cat >"$root/etc/docker/daemon.json" <<JSON
{"registry-mirrors": ["http://$REGISTRY"], "insecure-registries": ["$REGISTRY"]}
JSON
chroot "$root" systemctl disable --quiet nginx.service
