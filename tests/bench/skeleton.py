# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""What a run that changes nothing costs, and what the demo costs from nothing.

Peer of the no-op runs: a playbook with as many ansible.builtin.ping tasks as ours ran (skipped ones are not counted),
on the same host, interleaved.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.figures import Figure

HOST = "demo"
INVENTORY = "inventories/demo"
RUNS = 5


def measure(root: Path) -> list[Figure]:
    """Needs a converged demo host, and makes one in a fresh clone."""
    seconds = demo_from_nothing(root)
    subprocess.run(["make", "demo"], cwd=root, check=True, stdout=subprocess.DEVNULL)
    figures = []
    for name in ("site", "deploy"):
        tasks, ours, peer = beside_pings(root, name)
        figures += [
            Figure(f"tasks of a no-op {name}.yml", "tasks", float(tasks)),
            Figure(f"no-op {name}.yml", "s", ours, f"{tasks} ping tasks", peer),
        ]
    return [*figures, Figure("make demo, fresh clone, no caches", "s", seconds)]


def beside_pings(root: Path, name: str) -> tuple[int, float, float]:
    """Tasks that ran, median seconds of ours and of the same number of pings."""
    playbook = f"playbooks/{name}.yml"
    _seconds, output = timed(root, playbook)
    recap = re.search(rf"^{HOST}\s*: ok=(\d+)\s+changed=(\d+)", output, re.MULTILINE)
    if recap is None or recap.group(2) != "0":
        raise SystemExit(f"{playbook} is no no-op on the host {HOST}: {recap and recap.group(0)}")
    tasks = int(recap.group(1))
    with tempfile.TemporaryDirectory() as folder:
        pings = Path(folder) / "pings.yml"
        lines = ["- hosts: all", "  become: true", "  gather_facts: false", "  tasks:"]
        pings.write_text("\n".join(lines + ["    - ansible.builtin.ping:"] * tasks) + "\n")
        pairs = [(timed(root, playbook)[0], timed(root, str(pings))[0]) for _ in range(RUNS)]
    ours, peers = zip(*pairs, strict=True)
    return tasks, round(statistics.median(ours), 2), round(statistics.median(peers), 2)


def timed(root: Path, playbook: str) -> tuple[float, str]:
    """Seconds and output of one run."""
    begun = time.monotonic()
    done = subprocess.run(
        ["ansible-playbook", "-i", INVENTORY, playbook], cwd=root, check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"{playbook} ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return time.monotonic() - begun, done.stdout


def demo_from_nothing(root: Path) -> float:
    """Seconds of make demo in a fresh clone, with no image, host, environment or package cache left."""
    subprocess.run([sys.executable, "tests/testbed", "down", "--purge"], cwd=root, check=True)
    clone = Path(tempfile.mkdtemp(prefix="groundwork-bench-"))
    try:
        subprocess.run(["git", "clone", "--quiet", str(root), str(clone / "clone")], check=True)
        path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if str(root) not in part)
        environment = {**os.environ, "PATH": path, "PIP_NO_CACHE_DIR": "1"}
        for name in ("ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_CONFIG", "VIRTUAL_ENV"):
            environment.pop(name, None)
        begun = time.monotonic()
        subprocess.run(["make", "demo"], cwd=clone / "clone", env=environment, check=True)
        seconds = time.monotonic() - begun
        subprocess.run([sys.executable, "tests/testbed", "down", "--purge"], cwd=clone / "clone", check=True)
        return round(seconds, 1)
    finally:
        shutil.rmtree(clone, ignore_errors=True)
