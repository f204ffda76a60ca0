# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Every module and fragment says of itself what its code does."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.loader import fragment_loader
from ansible.utils.plugin_docs import get_docstring

from ansible_collections.groundwork.backend.plugins.module_utils import _module

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "ansible_collections.groundwork.backend.plugins"
MODULES = sorted(path.stem for path in ROOT.glob("plugins/modules/*.py") if path.stem != "__init__")
NO_OPTIONS = {"__init__", "_attributes"}
FRAGMENTS = sorted(path.stem for path in ROOT.glob("plugins/doc_fragments/*.py") if path.stem not in NO_OPTIONS)
AUTHOR = "groundwork.backend contributors (@groundwork-backend)"
CONSTRAINTS = {"mutually_exclusive", "required_together", "required_one_of", "required_if", "required_by"}
SECRET = re.compile(r"pass(word|wd|phrase)?$|secret|token|bearer|credential|(private|api|access)_?key", re.IGNORECASE)
ALWAYS_RETURNED = {"changed", "diff", "failed", "msg"}
TASK_KEYWORDS = {"become", "delegate_to", "loop", "loop_control", "name", "register", "run_once", "vars", "when"}


class CapturedError(Exception):
    """Carries what main() gave to AnsibleModule."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.arguments = arguments


def raise_captured(**arguments: Any) -> None:
    raise CapturedError(**arguments)


def arguments_of(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What main() of a module really hands to AnsibleModule."""
    monkeypatch.setattr(_module, "AnsibleModule", raise_captured)
    with pytest.raises(CapturedError) as caught:
        importlib.import_module(f"{PACKAGE}.modules.{name}").main()
    return caught.value.arguments


def source_of(name: str) -> str:
    return (ROOT / "plugins" / "modules" / f"{name}.py").read_text()


def documentation(name: str) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """DOCUMENTATION with its fragments merged, EXAMPLES and RETURN."""
    path = str(ROOT / "plugins" / "modules" / f"{name}.py")
    doc, examples, returns, _metadata = get_docstring(
        path, fragment_loader, collection_name="groundwork.backend", plugin_type="module"
    )
    return doc, yaml.safe_load(examples), returns


def comparable(options: dict[str, Any], nested: str) -> dict[str, Any]:
    """What documentation and argument spec have in common, defaults filled in."""
    return {
        name: {
            "type": option.get("type", "str"),
            "elements": option.get("elements"),
            "required": option.get("required", False),
            "default": option.get("default"),
            "choices": list(option.get("choices") or []),
            "aliases": sorted(option.get("aliases") or []),
            "options": comparable(option.get(nested) or {}, nested),
        }
        for name, option in options.items()
    }


def specs(arguments: dict[str, Any], where: str = "") -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(place, options, constraints) of the argument spec and of each nested one."""
    options = arguments.get("argument_spec") or arguments.get("options") or {}
    yield where, options, {key: arguments[key] for key in CONSTRAINTS & arguments.keys() if arguments[key]}
    for name, option in options.items():
        if "options" in option:
            yield from specs(option, f"{where}{name}.")


def names_in(kind: str, constraint: Any, options: dict[str, Any]) -> set[str]:
    """The option names that a constraint of AnsibleModule talks about."""
    if kind == "required_by":
        return {
            name for key, value in constraint.items() for name in [key, *([value] if type(value) is str else value)]
        }
    if kind != "required_if":
        return {name for group in constraint for name in group}
    for key, value, *_ in constraint:
        choices = options.get(key, {}).get("choices")
        assert not choices or value in choices, f"{key} is never {value}"
    return {name for key, _value, needed, *_ in constraint for name in [key, *needed]}


def returned_keys(source: str) -> set[str]:
    """Keys of the result dictionaries in a module: literals that hold "changed", and result["key"] = …"""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
            found |= keys if "changed" in keys else set()
        elif (
            isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and isinstance(node.slice, ast.Constant)
        ):
            found |= {node.slice.value} if isinstance(node.value, ast.Name) and node.value.id == "result" else set()
    return found


def words(source: str) -> set[str]:
    """Every string that is a key or an argument name in a piece of Python; documentation is one string and no key."""
    tree = ast.walk(ast.parse(source))
    return {
        str(node.value if isinstance(node, ast.Constant) else node.arg)
        for node in tree
        if isinstance(node, ast.Constant | ast.keyword)
    }


def test_there_are_modules_and_fragments() -> None:
    assert MODULES
    assert FRAGMENTS


@pytest.mark.parametrize("name", MODULES)
def test_options_are_those_of_the_argument_spec(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = arguments_of(name, monkeypatch)["argument_spec"]
    assert comparable(documentation(name)[0]["options"], "suboptions") == comparable(spec, "options")


@pytest.mark.parametrize("name", MODULES)
def test_secrets_and_constraints(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for where, options, constraints in specs(arguments_of(name, monkeypatch)):
        for option, spec in options.items():
            assert spec.get("no_log") or not SECRET.search(option), f"{where}{option} is a secret and not no_log"
            assert (spec.get("type") == "list") == ("elements" in spec), f"{where}{option}"
        for kind, constraint in constraints.items():
            assert names_in(kind, constraint, options) <= options.keys(), f"{where}{kind}"


@pytest.mark.parametrize("name", MODULES)
def test_head_of_the_documentation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    doc, _examples, _returns = documentation(name)
    own = yaml.safe_load(importlib.import_module(f"{PACKAGE}.modules.{name}").DOCUMENTATION)
    assert own["module"] == name
    assert own["short_description"][-1] != "."
    assert own["author"] in (AUTHOR, [AUTHOR])
    assert re.fullmatch(r"\d+\.\d+\.\d+", str(own["version_added"]))
    for attribute in ("check_mode", "diff_mode", "idempotent"):
        declared = doc["attributes"][attribute]
        assert declared["support"] in ("full", "partial", "none"), attribute
        assert declared.get("description") or declared.get("details"), attribute
    checks = arguments_of(name, monkeypatch).get("supports_check_mode", False)
    assert checks == (doc["attributes"]["check_mode"]["support"] != "none")


@pytest.mark.parametrize("name", MODULES)
def test_examples_use_the_module_and_what_it_returns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _doc, examples, returns = documentation(name)
    spec = arguments_of(name, monkeypatch)["argument_spec"]
    required = {option for option, value in spec.items() if value.get("required")}
    text = str(examples)
    own = [task for task in examples if f"groundwork.backend.{name}" in task]
    assert own
    for task in examples:
        assert len([key for key in task.keys() - TASK_KEYWORDS if key.count(".") >= 2]) == 1, task["name"]
    for task in own:
        given = task[f"groundwork.backend.{name}"].keys()
        assert required <= given <= spec.keys(), task["name"]
    registered = [task["register"] for task in own if "register" in task]
    used = {
        key for variable in registered for key in returns if re.search(rf"\b{variable}(\.{key}\b|\['{key}'])", text)
    }
    assert used, "no example shows a returned value"


@pytest.mark.parametrize("name", MODULES)
def test_return_documents_what_is_there(name: str) -> None:
    returns = documentation(name)[2]
    for key, value in returns.items():
        assert {"description", "returned", "type"} <= value.keys(), key
        assert (value["type"] == "list") == ("elements" in value), key
    assert returned_keys(source_of(name)) - ALWAYS_RETURNED <= returns.keys()
    code: set[str] = set()
    sources, seen = [source_of(name)], set()
    while sources:
        source = sources.pop()
        code |= words(source)
        for one, two in re.findall(r"plugins\.module_utils\.(_\w+) import|module_utils import (_\w+)", source):
            if (library := one or two) not in seen:
                seen.add(library)
                sources.append((ROOT / "plugins/module_utils" / f"{library}.py").read_text())
    assert returns.keys() <= code, "documented, and nothing in the code has that name"


def test_every_module_is_in_the_action_group_once() -> None:
    groups = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())["action_groups"]
    assert groups["backend"] == MODULES


@pytest.mark.parametrize("name", MODULES)
def test_a_changelog_entry_mentions_the_module(name: str) -> None:
    files = [*ROOT.glob("changelogs/fragments/*.yml"), ROOT / "changelogs" / "changelog.yaml"]
    assert any(re.search(rf"\b{name}\b", path.read_text()) for path in files)


@pytest.mark.parametrize("name", FRAGMENTS)
def test_a_fragment_documents_the_function_that_it_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fragment = importlib.import_module(f"{PACKAGE}.doc_fragments.{name}")
    documented = yaml.safe_load(fragment.ModuleDocFragment.DOCUMENTATION)
    text = Path(str(fragment.__file__)).read_text()
    library, function = re.search(r"module_utils/(\w+)\.py", text), re.search(r"(\w+_options)\(\)", text)
    assert library, "the fragment's docstrings name no library"
    assert function, "the fragment's docstrings name no function"
    group = getattr(importlib.import_module(f"{PACKAGE}.module_utils.{library[1]}"), function[1])()
    assert comparable(documented["options"], "suboptions") == comparable(group["argument_spec"], "options")
    users = [one for one in MODULES if re.search(rf"groundwork\.backend\.{name}\b", source_of(one))]
    assert users, "no module uses the fragment"
    for user in users:
        arguments = arguments_of(user, monkeypatch)
        assert group["argument_spec"].items() <= arguments["argument_spec"].items(), user
        for kind in CONSTRAINTS & group.keys():
            assert all(rule in arguments.get(kind, []) for rule in group[kind]), f"{user} leaves out {kind} of {name}"
