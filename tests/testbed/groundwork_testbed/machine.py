# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The machine that the test bed runs on: commands, packages and the settings that its images take over."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import TestbedError

CA_FOLDER = Path("/usr/local/share/ca-certificates")
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
TAIL_LINES = 25

APT_SETTINGS = ("Acquire::Check-Valid-Until", "Acquire::Check-Date")
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "timeout", "default-timeout", "retries")


def root_prefix() -> list[str]:
    """Return what goes before a command that needs root."""
    return [] if os.geteuid() == 0 else ["sudo", "-n"]


def environment() -> dict[str, str]:
    """Return the environment of commands: the administrator's PATH, the classic builder, the local engine."""
    env = {key: value for key, value in os.environ.items() if key not in ("DOCKER_HOST", "DOCKER_CONTEXT")}
    parts = env.get("PATH", "").split(":")
    parts += [path for path in ("/usr/local/sbin", "/usr/sbin", "/sbin") if path not in parts]
    env.update(PATH=":".join(parts), DOCKER_BUILDKIT="0", DOCKER_CLI_HINTS="false", LC_ALL="C.UTF-8")
    return env


def which(program: str) -> str | None:
    """Return the path of a program, looking in the administrator's folders too."""
    return shutil.which(program, path=environment()["PATH"])


def run(argv: Sequence[str], *, what: str, stdin: str | None = None, root: bool = False, timeout: float = 1800) -> str:
    """Run a command and return its standard output. Raises TestbedError that starts with what."""
    done = attempt(argv, stdin=stdin, root=root, timeout=timeout)
    if done.returncode != 0:
        raise TestbedError(f"{what}: {failure_text(argv, done)}")
    return done.stdout


def attempt(
    argv: Sequence[str], *, stdin: str | None = None, root: bool = False, timeout: float = 1800
) -> subprocess.CompletedProcess[str]:
    """Run a command and return how it ended; a missing program or a time-out ends like a failed one."""
    full = [*(root_prefix() if root else []), *argv]
    try:
        return subprocess.run(
            full,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment(),
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(full, 127, "", f"{full[0]}: not found")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(full, 124, "", f"no end after {timeout:.0f} seconds")


def failure_text(argv: Sequence[str], done: subprocess.CompletedProcess[str]) -> str:
    """Return one text about a failed command: name, exit status, last lines of what it said."""
    said = "\n".join((done.stdout + "\n" + done.stderr).strip().splitlines()[-TAIL_LINES:])
    return f"`{' '.join(argv[:3])} ...` ended with {done.returncode}.\n{said}"


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print one line with the seconds that a step took, also when it failed."""
    start = time.monotonic()
    ok = False
    try:
        yield
        ok = True
    finally:
        print(f"{'ok    ' if ok else 'FAILED'} {time.monotonic() - start:7.1f} s  {name}", flush=True)


def install(packages: Sequence[str]) -> None:
    """Install Debian packages that are missing. Raises TestbedError."""
    if os.geteuid() != 0 and attempt(["sudo", "-n", "true"]).returncode != 0:
        raise TestbedError(
            f"The packages {' '.join(packages)} are needed, and to install them root or sudo without a password. "
            "Install them by hand, or run as root."
        )
    if which("apt-get") is None:
        raise TestbedError(f"The packages {' '.join(packages)} are needed, and there is no apt-get. Install them.")
    with step(f"install {' '.join(packages)}"):
        run(["apt-get", "-q", "update"], what="The package lists could not be read", root=True)
        run(
            [
                *["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qy", "install", "--no-install-recommends"],
                *packages,
            ],
            what=f"The packages {' '.join(packages)} could not be installed",
            root=True,
        )


def need(programs: Mapping[str, str]) -> None:
    """Install what is missing; programs maps a program to the Debian package that has it."""
    missing = sorted({package for program, package in programs.items() if which(program) is None})
    if missing:
        install(missing)


def has_package(name: str) -> bool:
    """Whether Debian's lists know an installable package of this name."""
    return "Candidate: (none)" not in (text := attempt(["apt-cache", "policy", name]).stdout) and "Candidate:" in text


def has_systemd() -> bool:
    """Whether systemd runs this machine."""
    return Path("/run/systemd/system").is_dir()


def processes(program: str, argument: str) -> list[int]:
    """Return the ids of processes of this program that have exactly this argument."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            argv = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if Path(argv[0]).name == program and argument in argv:
            found.append(int(folder.name))
    return sorted(found)


def stop_processes(pids: Sequence[int], seconds: float = 30) -> None:
    """End processes with SIGTERM, after the given time with SIGKILL."""
    if not pids:
        return
    for signal in ("-TERM", "-KILL"):
        attempt(["kill", signal, *map(str, pids)], root=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not any(alive(pid) for pid in pids):
                return
            time.sleep(0.1)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[:1] != ["Z"]


def start_daemon(argv: Sequence[str], log: Path, pid_file: Path, *, root: bool = False) -> subprocess.Popen[bytes]:
    """Start a process that outlives this one: its own session, output to a log, its id in a file."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*(root_prefix() if root else []), *argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd="/",
            env=environment(),
            start_new_session=True,
        )
    pid_file.write_text(f"{process.pid}\n", encoding="utf-8")
    return process


def extra_certificates(folder: Path = CA_FOLDER) -> dict[str, bytes]:
    """Return the certificates that this machine trusts beyond Debian's: file name to content."""
    if not folder.is_dir():
        return {}
    found = sorted(path for path in folder.rglob("*.crt") if path.is_file())
    return {re.sub(r"[^A-Za-z0-9._-]", "_", str(path.relative_to(folder))): path.read_bytes() for path in found}


def apt_settings() -> list[str]:
    """Return the settings of apt that decide whether a mirror's dates are taken, as lines of apt.conf."""
    text = attempt(["apt-config", "dump", *APT_SETTINGS]).stdout
    return sorted(line for line in text.splitlines() if line.startswith(APT_SETTINGS) and '""' not in line)


def portable_pip_settings(listing: str, *, with_certificates: bool) -> str:
    """Turn the output of ``pip config list`` into a pip.conf that is right in another machine too.

    Settings that name local files or folders are left out; certificates come from the image's own bundle.
    Later lines of the listing win, as they do in pip. Returns "" when there is nothing to say.
    """
    values: dict[str, str] = {}
    for line in listing.splitlines():
        match = re.fullmatch(r"(?:global|install|user|:env:)\.([a-z-]+)=(['\"])(.*)\2", line.strip())
        if match and match[1] in PIP_SETTINGS and not match[3].startswith(("/", "file:", ".")):
            values["timeout" if match[1] == "default-timeout" else match[1]] = match[3].replace("\\n", "\n    ")
    if with_certificates:
        values["cert"] = CA_BUNDLE
    if not values:
        return ""
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in sorted(values.items()))


def pip_command() -> list[str]:
    """Return the command of a pip on this machine, installed if there is none."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if attempt(["/usr/bin/python3", "-m", "pip", "--version"]).returncode != 0:
        install(["python3-pip"])
    return ["/usr/bin/python3", "-m", "pip"]


def pip_conf() -> str:
    """Return the pip.conf for images built on this machine."""
    listing = attempt([*pip_command(), "config", "list"]).stdout
    return portable_pip_settings(listing, with_certificates=bool(extra_certificates()))


def nameservers() -> list[str]:
    """Return the name servers of this machine that others can reach too (no loopback address)."""
    for path in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found = [line.split()[1] for line in text.splitlines() if re.match(r"nameserver\s+\S", line)]
        found = [address for address in found if not address.startswith(("127.", "::1"))]
        if found:
            return found
    return []


def uplink_mtu() -> int:
    """Return the MTU (bytes) of the default route's device, at most 1500."""
    words = attempt(["ip", "-4", "route", "show", "default"]).stdout.split()
    if "dev" in words:
        try:
            text = Path(f"/sys/class/net/{words[words.index('dev') + 1]}/mtu").read_text(encoding="ascii")
            return min(1500, int(text))
        except (OSError, ValueError, IndexError):
            pass
    return 1500
