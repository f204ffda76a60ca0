# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Run measurements and write their figures.

usage: run.py [NAME]

Each measurement is a file of this folder with a function measure() that returns Figures; files whose names begin with
"_" are parts of them. It prints a table and writes build/bench/<name>.json.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
sys.path.insert(0, str(FOLDER.parent))

from bench.figures import Figure, table

NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py") if path.stem not in ("run", "figures"))


def main() -> int:
    """Run one measurement, or all."""
    names = sys.argv[1:] or [name for name in NAMES if not name.startswith("_")]  # those are parts of others
    if unknown := set(names) - set(NAMES):
        print(f"There is no measurement {', '.join(sorted(unknown))}. There are: {', '.join(NAMES)}.")
        return 2
    os.environ["PATH"] = f"{ROOT / 'build' / 'venv' / 'bin'}:{os.environ['PATH']}"
    os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(ROOT / "build" / "collections")
    os.environ["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")
    out = ROOT / "build" / "bench"
    out.mkdir(parents=True, exist_ok=True)
    missed = False
    for name in names:
        figures: list[Figure] = importlib.import_module(f"bench.{name}").measure(ROOT)
        (out / f"{name}.json").write_text(json.dumps([figure.to_dict() for figure in figures], indent=2) + "\n")
        print(f"\n{name}\n{table(figures)}", flush=True)
        missed = missed or any(figure.met is False for figure in figures)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
