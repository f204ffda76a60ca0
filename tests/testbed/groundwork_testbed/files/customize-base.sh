
# What makes it slim, as in Debian's own images: apt keeps no archives and no caches.
cat >"$root/etc/apt/apt.conf.d/docker-clean" <<'CONF'
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Keep-Downloaded-Packages "false";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
APT::AutoRemove::SuggestsImportant "false";
CONF
rm -rf "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old
mkdir -p "$root/var/cache/apt/archives/partial"
