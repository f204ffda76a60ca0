# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Images of a whole Debian, made with mmdebstrap: the hosts, and the slim base below the stand-ins."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .constants import HOST_USER, LABEL, NAMESPACE, OS_LABEL, RECIPE_LABEL, REGISTRY, SUITES
from .engine import docker, own_images
from .machine import apt_settings, extra_certificates, need, pip_conf, run, step
from .recipe import content_hash
from .state import State

FILES = Path(__file__).resolve().parent / "files"

BASE_PACKAGES = ("ca-certificates", "netbase", "tzdata")

# What an installed Debian without any task has, and OpenSSH. No Docker, no rsync, no iptables.
HOST_PACKAGES = (
    "apt-utils",
    "ca-certificates",
    "cron",
    "dbus",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "libpam-systemd",
    "logrotate",
    "nano",
    "netbase",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
    "tzdata",
    "udev",
)

# Hosts on which the roles find all that they would install, for tests of what comes after the installation.
READY_PACKAGES = {
    "debian13-docker": (
        "apparmor",
        "curl",
        "docker-buildx",
        "docker-cli",
        "docker-compose",
        "docker.io",
        "iptables",
        "nginx",
        "python3-debian",
        "python3-docker",
        "python3-jmespath",
        "python3-psycopg",
        "python3-requests",
        "rsync",
        "systemd-timesyncd",
        "unattended-upgrades",
        "wrk",
    )
}

# The same that Debian's own slim images leave out.
SLIM_DPKG_OPTIONS = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/groff/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/linda/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/man/*",
)


class Settings:
    """What images take over from this machine; read once a command."""

    @cached_property
    def certificates(self) -> dict[str, bytes]:
        """Return the certificates that the machine trusts beyond Debian's."""
        return extra_certificates()

    @cached_property
    def apt(self) -> list[str]:
        """Return lines of apt.conf."""
        return apt_settings()

    @cached_property
    def pip_conf(self) -> str:
        """Return the portable part of the machine's pip settings."""
        return pip_conf()

    def parts(self) -> dict[str, str | bytes]:
        """Return what of it belongs to a content hash."""
        return {
            **{f"certificate {name}": data for name, data in self.certificates.items()},
            "apt": "\n".join(self.apt),
            "pip": self.pip_conf,
        }


@dataclass(frozen=True)
class RootFs:
    """One image of a whole Debian. kind is "host" or "base", os_name a key of SUITES."""

    kind: str
    os_name: str
    packages: tuple[str, ...]
    dpkg_options: tuple[str, ...]
    customize: str
    init: str
    apt_lists: bool = False

    def recipe(self, settings: Settings) -> str:
        """Return the content hash."""
        return content_hash(
            {
                "kind": self.kind,
                "suite": SUITES[self.os_name],
                "packages": "\n".join(self.packages),
                "dpkg": "\n".join(self.dpkg_options),
                "customize": self.customize,
                "init": self.init,
                **({"apt lists": "kept"} if self.apt_lists else {}),
                **settings.parts(),
            }
        )

    def tag(self, settings: Settings) -> str:
        """Return the full name of the image."""
        return f"{NAMESPACE}/{self.kind}-{self.os_name}:{self.recipe(settings)}"


def host_rootfs(os_name: str) -> RootFs:
    """Return the image of hosts with this Debian, bare or with the packages of READY_PACKAGES."""
    ready = READY_PACKAGES.get(os_name, ())
    scripts = ["customize-common.sh", "customize-host.sh", *(["customize-ready.sh"] if ready else [])]
    return RootFs(
        "host",
        os_name,
        (*HOST_PACKAGES, *ready),
        (),
        "".join((FILES / script).read_text(encoding="utf-8") for script in scripts),
        (FILES / "host-init.sh").read_text(encoding="utf-8"),
        apt_lists=bool(ready),
    )


def base_rootfs(os_name: str) -> RootFs:
    """Return the slim base of stand-in images."""
    return RootFs(
        "base",
        os_name,
        BASE_PACKAGES,
        SLIM_DPKG_OPTIONS,
        (FILES / "customize-common.sh").read_text(encoding="utf-8")
        + (FILES / "customize-base.sh").read_text(encoding="utf-8"),
        "",
    )


def ensure_rootfs(image: RootFs, state: State, settings: Settings) -> str:
    """Build the image if it is missing and return its name."""
    tag = image.tag(settings)
    if tag in own_images():
        return tag
    need({"mmdebstrap": "mmdebstrap"})
    with (
        step(f"image {tag}"),
        tempfile.TemporaryDirectory(prefix="rootfs-", dir=state.cache, ignore_cleanup_errors=True) as name,
    ):
        folder = Path(name)
        _build(image, folder, settings)
        changes = [
            f'LABEL {LABEL}="1" {RECIPE_LABEL}="{image.recipe(settings)}" {OS_LABEL}="{image.os_name}"',
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            'CMD ["/sbin/groundwork-testbed-init"]' if image.kind == "host" else 'CMD ["bash"]',
        ]
        docker(
            "import",
            *(word for change in changes for word in ("--change", change)),
            str(folder / "root.tar"),
            tag,
            what=f"The image {tag} could not be imported",
        )
    return tag


def ensure_all(images: Sequence[RootFs], state: State, settings: Settings) -> None:
    """Build what is missing, two at a time: building is mostly waiting for one core."""
    present = own_images()
    missing = [image for image in images if image.tag(settings) not in present]
    if not missing:
        return
    need({"mmdebstrap": "mmdebstrap"})
    with ThreadPoolExecutor(max_workers=2) as pool:
        for future in [pool.submit(ensure_rootfs, image, state, settings) for image in missing]:
            future.result()


def _build(image: RootFs, folder: Path, settings: Settings) -> None:
    certificates = folder / "certificates"
    certificates.mkdir()
    for name, data in settings.certificates.items():
        (certificates / name).write_bytes(data)
    (folder / "pip.conf").write_text(settings.pip_conf, encoding="utf-8")
    (folder / "init").write_text(image.init, encoding="utf-8")
    script = folder / "customize.sh"
    script.write_text(image.customize, encoding="utf-8")
    script.chmod(0o755)
    variables = f"FILES={shlex.quote(str(folder))} HOST_USER={HOST_USER} REGISTRY={REGISTRY}"
    hook = f'{variables} sh -eu {shlex.quote(str(script))} "$1"'
    target = folder / "root.tar"
    run(
        [
            "mmdebstrap",
            "--quiet",
            "--mode=root",
            "--variant=minbase",
            f"--include={','.join(image.packages)}",
            *(f"--aptopt={line.rstrip(';')}" for line in settings.apt),
            *(f"--dpkgopt={line}" for line in image.dpkg_options),
            *(["--skip=cleanup/apt/lists"] if image.apt_lists else []),
            f"--customize-hook={hook}",
            SUITES[image.os_name],
            str(target),
        ],
        what=f"Debian {SUITES[image.os_name]} could not be built with mmdebstrap",
        root=True,
    )
    if os.geteuid() != 0:
        run(["chmod", "a+r", str(target)], what="The new image cannot be read", root=True)
