
# What makes it ready: the engine knows the registry of the test bed, and nothing listens that nobody asked for.
install -m 0755 -d "$root/etc/docker"
cat >"$root/etc/docker/daemon.json" <<JSON
{"registry-mirrors": ["http://$REGISTRY"], "insecure-registries": ["$REGISTRY"]}
JSON
chroot "$root" systemctl disable --quiet nginx.service

# Each module that Ansible runs is an archive of sources, which Python compiles anew every time: half of what a module costs.
# Here root's Python keeps what it compiled, by the hash of the source as Python itself does, and begins with that.
install -m 0700 -d "$root/var/cache/groundwork-testbed-python"
echo "import groundwork_testbed_python" >"$root/usr/lib/python3/dist-packages/groundwork_testbed_python.pth"
cat >"$root/usr/lib/python3/dist-packages/groundwork_testbed_python.py" <<'PYTHON'
import _imp
import marshal
import os
import zipimport

_compile = zipimport._compile_source


def _kept(name, source):
    path = f"/var/cache/groundwork-testbed-python/{len(source)}-{_imp.source_hash(0, source).hex()}"
    try:
        with open(path, "rb") as file:
            code = marshal.loads(file.read())
    except OSError:
        code = _compile(name, source)
        try:
            with open(f"{path}.{os.getpid()}", "wb") as file:
                file.write(marshal.dumps(code))
            os.rename(file.name, path)
        except OSError:
            pass  # an ordinary user, or a full disk
    else:
        _imp._fix_co_filename(code, name)
    return code


zipimport._compile_source = _kept
PYTHON
