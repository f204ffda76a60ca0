# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Write the reference (docs/reference, README.md of roles) from what the collection says of itself; see make docs."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

ROOT = Path(__file__).resolve().parent.parent
COLLECTIONS = ROOT / "build" / "collections"
NAME = "groundwork.backend"
NOTICE = "<!-- Written by make docs from {source}: edit that. -->"
MARKUP = re.compile(r"\b(C|O|V|RV|E|I|B|M|P|U|L|R)\(((?:\\.|[^\\)])*)\)")


def text(value: str | Sequence[str], modules: str) -> str:
    """Ansible's markup as markdown. modules: where modules.md is, seen from the page."""

    def one(match: re.Match[str]) -> str:
        kind, inside = match[1], re.sub(r"\\(.)", r"\1", match[2])
        if kind == "M" and inside.startswith(f"{NAME}."):
            short = inside.removeprefix(f"{NAME}.")
            return f"[{short}]({modules}#{short})"
        if kind in ("L", "R"):
            label, _, address = inside.partition(",")
            return f"[{label}]({address.strip()})" if kind == "L" else label
        if kind == "U":
            return f"<{inside}>"
        return {"B": "**{}**", "I": "*{}*"}.get(kind, "`{}`").format(inside)

    return MARKUP.sub(one, " ".join([value] if isinstance(value, str) else value))


def code(value: Any) -> str:
    """A value as inline code, as one writes it in YAML."""
    return f"`{value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)}`"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in line) + " |" for line in lines]


def flat(options: Mapping[str, Any], nested: str, prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each option and, behind it, its nested ones: "checks", "checks[].name"."""
    for name, option in options.items():
        yield f"{prefix}{name}", option
        mark = "[]." if option.get("type") == "list" else "."
        yield from flat(option.get(nested) or {}, nested, f"{prefix}{name}{mark}")


def type_of(option: Mapping[str, Any]) -> str:
    """ "list of str" and the like."""
    kind = str(option.get("type", "str"))
    return f"{kind} of {option['elements']}" if "elements" in option else kind


def option_table(options: Mapping[str, Any], nested: str, modules: str, head: str) -> list[str]:
    """The table of a role's variables or a module's options."""
    rows = []
    for name, option in flat(options, nested):
        default = "*required*" if option.get("required") else code(option["default"]) if "default" in option else ""
        description = text(option["description"], modules)
        if "choices" in option:
            description += f" One of {', '.join(code(choice) for choice in option['choices'])}."
        rows.append([f"`{name}`", type_of(option), default, description])
    return table([head, "type", "default", "description"], rows)


def role_body(role: Path, modules: str) -> list[str]:
    """Descriptions and variables of a role's entry points."""
    entries = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    lines: list[str] = []
    for name, entry in entries.items():
        if name != "main":
            lines += [f"**Entry point `{name}`**: {entry['short_description']}.", ""]
        if "description" in entry:
            lines += [text(entry["description"], modules), ""]
        if name != "main" and entry["options"] == entries["main"]["options"]:
            lines += ["It takes the same variables.", ""]
        else:
            lines += [*option_table(entry["options"], "options", modules, "variable"), ""]
    return lines


def role_readme(role: Path) -> list[str]:
    """The README.md of one role."""
    entries = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    example = ["- hosts: all", "  become: true", "  roles:", f"    - role: {NAME}.{role.name}"]
    if others := [name for name in entries if name != "main"]:
        example.append("  tasks:")
    for name in others:
        example += [
            f"    - name: {entries[name]['short_description']}",
            "      ansible.builtin.include_role:",
            f"        name: {NAME}.{role.name}",
            f"        tasks_from: {name}",
        ]
    return [
        *(NOTICE.format(source="meta/argument_specs.yml"), f"# {role.name}", ""),
        *(f"{entries['main']['short_description']}.", ""),
        *role_body(role, "../../docs/reference/modules.md"),
        *("```yaml", *example, "```"),
    ]


def roles_page(roles: Sequence[Path]) -> list[str]:
    """docs/reference/roles.md"""
    lines = [NOTICE.format(source="roles/*/meta/argument_specs.yml"), "# Roles", ""]
    lines += [*(f"- [{role.name}](#{role.name})" for role in roles), ""]
    for role in roles:
        lines += [f"## {role.name}", "", *role_body(role, "modules.md")]
    return lines


def module_docs() -> dict[str, Any]:
    """What ansible-doc knows of each module, by its short name."""
    names = sorted(path.stem for path in ROOT.glob("plugins/modules/*.py") if path.stem != "__init__")
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-doc"), "--json", *(f"{NAME}.{name}" for name in names)],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)},
        stdout=subprocess.PIPE,
        check=True,
    )
    found = json.loads(done.stdout)
    return {name: found[f"{NAME}.{name}"] for name in names}


def module_body(name: str, plugin: Mapping[str, Any]) -> list[str]:
    """The section of one module."""
    here = ""
    doc = plugin["doc"]
    lines = [f"## {name}", "", f"**{doc['short_description']}.** Since version {doc['version_added']}.", ""]
    lines += [f"- {text(one, here)}" for one in as_list(doc["description"])]
    lines += ["", *option_table(doc["options"], "suboptions", here, "option"), ""]
    attributes = [
        [f"`{attribute}`", value["support"], text([*as_list(value.get("details") or value["description"])], here)]
        for attribute, value in doc["attributes"].items()
    ]
    lines += [*table(["attribute", "support", ""], attributes), ""]
    for note in as_list(doc.get("notes", [])):
        lines += [f"Note: {text(note, here)}", ""]
    rows = []
    for key, value in flat(plugin["return"] or {}, "contains"):
        sample = f" Example: {code(value['sample'])}." if "sample" in value else ""
        rows.append(
            [
                f"`{key}`",
                type_of(value),
                text(value.get("returned", ""), here),
                text(value["description"], here) + sample,
            ]
        )
    lines += [*table(["returned", "type", "when", "description"], rows), ""]
    return [*lines, "```yaml", *plugin["examples"].strip().splitlines(), "```", ""]


def as_list(value: str | Sequence[str]) -> list[str]:
    """One string or several, as several."""
    return [value] if isinstance(value, str) else list(value)


def modules_page() -> list[str]:
    """docs/reference/modules.md"""
    docs = module_docs()
    lines = [NOTICE.format(source="plugins/modules"), "# Modules", ""]
    lines += [*(f"- [{name}](#{name}): {plugin['doc']['short_description']}" for name, plugin in docs.items()), ""]
    for name, plugin in docs.items():
        lines += module_body(name, plugin)
    return lines


def filters_page() -> list[str]:
    """docs/reference/filters.md, from the docstrings of the functions behind the filters."""
    _AnsibleCollectionFinder(paths=[str(COLLECTIONS)])._install()
    from ansible_collections.groundwork.backend.plugins.filter.backend import FilterModule  # noqa: PLC0415 - needs it

    lines = [NOTICE.format(source="plugins/filter/backend.py"), "# Filters", ""]
    for name, function in sorted(FilterModule().filters().items()):
        value, *others = [
            str(one.replace(annotation=one.empty)) for one in inspect.signature(function).parameters.values()
        ]
        call = f"{value} | {NAME}.{name}" + (f"({', '.join(others)})" if others else "")
        lines += [
            f"## {name}",
            "",
            "```yaml",
            f"{{{{ {call} }}}}",
            "```",
            "",
            *(inspect.getdoc(function) or "").splitlines(),
            "",
        ]
    return lines


def pages() -> dict[Path, str]:
    """Every generated file with its text."""
    roles = sorted(path.parent.parent for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
    reference = ROOT / "docs" / "reference"
    found = {
        reference / "roles.md": roles_page(roles),
        reference / "modules.md": modules_page(),
        reference / "filters.md": filters_page(),
        **{role / "README.md": role_readme(role) for role in roles},
    }
    return {path: "\n".join(lines).rstrip("\n") + "\n" for path, lines in found.items()}


def main() -> None:
    """Write what differs, and say what was written."""
    for path, content in pages().items():
        if not path.exists() or path.read_text() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
