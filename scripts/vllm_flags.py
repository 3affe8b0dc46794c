"""The flag table of one vLLM version, read out of its own argument parser and model registry.

    scripts/vllm-flags [--names]  (finds an environment that has vLLM and runs this file in it)

Owns the extraction and the form of imageworks/model/vllm/<version>.json; what the compiler does with the table is in
imageworks/model/vllm_table.py and imageworks/plan/vllm_rules.py. A parser type that is not known here stops the run:
a table with a guess in it would be worse than none. Same vLLM in, same bytes out. Imports nothing of ours.

Also owns scripts/vllm_flag_names.json, the names that the parser of each version has, from which follow since when a
flag exists and when one was removed. With --names only that file is written: enough for a version that nobody pins.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SCHEMA = 1
FOLDER = Path(__file__).parents[1] / "imageworks/model/vllm"
NAMES = Path(__file__).with_name("vllm_flag_names.json")
SUCCESSORS = {
    "cuda-graph-sizes": "cudagraph-capture-sizes",
    "disable-log-requests": "enable-log-requests, which is off unless it is typed",
    "disable-mm-preprocessor-cache": "mm-processor-cache-gb: 0",
    "enable-multimodal-encoder-data-parallel": "mm-encoder-tp-mode: data",
    "enable-reasoning": "reasoning-parser",
    "eplb-log-balancedness": "eplb-config: {log_balancedness: …}",
    "eplb-step-interval": "eplb-config: {step_interval: …}",
    "eplb-window-size": "eplb-config: {window_size: …}",
    "guided-decoding-backend": "structured-outputs-config: {backend: …}",
    "guided-decoding-disable-additional-properties": "structured-outputs-config: {disable_additional_properties: …}",
    "guided-decoding-disable-any-whitespace": "structured-outputs-config: {disable_any_whitespace: …}",
    "num-redundant-experts": "eplb-config: {num_redundant_experts: …}",
    "override-pooler-config": "pooler-config",
}
"""What stands in for a removed flag, read by hand in the last versions that had both: the old flag's help text, its
deprecation warning, or the line that copies its value (vllm/engine/arg_utils.py 0.9.2, 0.11.2, 0.12.0, 0.16.0)."""
TYPES = {
    "str": "text",
    "int": "int",
    "float": "float",
    "loads": "json",
    "parse_dataclass": "map",
    "union_dict_and_str": "json_or_text",
    "human_readable_int": "amount",
    "human_readable_int_or_auto": "amount_or_auto",
}
"""Names of the parser's conversion functions, and what they take. `amount` is a whole number, or such as 4k or 2M."""
WRAPPERS = ("_optional_type", "_parse_type")


def flag(action: Any) -> tuple[str, dict[str, Any]]:
    """Name and entry of one action of the parser. Raises LookupError for a type that is not known here."""
    names = [name for name in action.option_strings if not name.startswith("--no-")]
    name, *others = sorted(names, key=lambda option: not option.startswith("--"))
    entry: dict[str, Any] = {"type": "switch" if action.nargs == 0 else "text"}
    if action.nargs != 0:
        entry |= _value(action)
    if f"--no-{name[2:]}" in action.option_strings:
        entry["negatable"] = True
    if others:
        entry["aliases"] = sorted(option.lstrip("-") for option in others)
    text = " ".join((action.help or "").split())
    if re.match(rf"{re.escape(name)} is deprecated\b", text) or type(action).__name__.startswith("Deprecated"):
        entry["deprecated"] = text
    return name[2:], entry


def _value(action: Any) -> dict[str, Any]:
    kind, optional, folds = _type(action.type, action.choices)
    if action.nargs not in {None, "+", "?"}:
        raise LookupError(f"{action.option_strings}: nargs {action.nargs!r}")
    entry: dict[str, Any] = {"type": "lora" if type(action).__name__ == "LoRAParserAction" else kind}
    marks = {
        "none": optional,
        "folds": folds,
        "many": action.nargs == "+",
        "bare": action.nargs == "?",
        "repeats": type(action).__name__ == "_AppendAction",
    }
    entry |= {name: True for name, holds in marks.items() if holds}
    if kind == "map":
        entry["keys"] = sorted(field.name for field in dataclasses.fields(_shape(action.type)) if field.init)
    if action.choices is not None:
        entry["choices"] = [str(choice) for choice in action.choices if choice is not None]
    elif isinstance(action.metavar, (list, tuple)):
        entry["known"] = [str(word) for word in action.metavar]
    return entry


def _type(convert: Any, choices: Any) -> tuple[str, bool, bool]:
    """The kind of a value, whether `None` and "" are taken, and whether case and dashes are folded first."""
    if convert is None:
        return "text", False, False
    name = convert.__name__
    if name in WRAPPERS:
        kind, _, folds = _type(_closed_over(convert, "return_type"), choices)
        return kind, name == "_optional_type", folds
    if name == "<lambda>":  # the backends' names, and a list of devices: text either way
        return "text", False, choices is not None and convert("A-b") == "a_b"
    if name not in TYPES:
        raise LookupError(f"unknown type {name} in vLLM's parser; add it to TYPES")
    return TYPES[name], False, False


def _closed_over(function: Any, name: str) -> Any:
    return dict(zip(function.__code__.co_freevars, function.__closure__, strict=True))[name].cell_contents


def _shape(convert: Any) -> Any:
    """The dataclass that a map must fit."""
    while convert.__name__ in WRAPPERS:
        convert = _closed_over(convert, "return_type")
    return convert.__defaults__[0]


def actions() -> list[Any]:
    """The flags of `vllm serve` as its parser holds them."""
    sys.argv = ["vllm", "--help"]  # else vLLM leaves the help texts out (and with `serve`, a flag); nothing parses this
    flexible = _first("vllm.utils.argparse_utils", "vllm.utils").FlexibleArgumentParser
    place = _first("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")  # the second until 0.28
    parser = place.make_arg_parser(flexible(prog="vllm serve"))
    shown = [action for action in parser._actions if action.option_strings]  # noqa: SLF001 - argparse offers no other list
    return [action for action in shown if not isinstance(action, argparse._HelpAction)]  # noqa: SLF001 - as above


def flags(parsed: Sequence[Any]) -> dict[str, Any]:
    """Every flag of `vllm serve`, with the words that plugins may extend."""
    table = dict(flag(action) for action in parsed)
    table["tool-call-parser"]["known"] = _module("vllm.tool_parsers").ToolParserManager.list_registered()
    table["reasoning-parser"]["known"] = _module("vllm.reasoning").ReasoningParserManager.list_registered()
    table["quantization"]["known"] = list(_module("vllm.model_executor.layers.quantization").QUANTIZATION_METHODS)
    for entry in table.values():
        for words in ("choices", "known"):
            if words in entry and entry["type"] != "int":
                entry[words] = sorted(set(entry[words]))
    return table


def architectures() -> dict[str, Any]:
    """Class names that vLLM serves with code of its own, and those that it says it no longer serves.

    A class that is gone, but that vLLM would still run through Transformers, is in neither list. vLLM's rule for
    that (registry, `_try_resolve_transformers`) asks the class; networks with an encoder and a decoder pass it, but
    the wrapper has no decoder for them.
    """
    registry = _module("vllm.model_executor.models.registry")
    gone = {
        name: f"served until vLLM {version}"
        for name, version in registry._PREVIOUSLY_SUPPORTED_MODELS.items()  # noqa: SLF001 - nowhere public
    } | dict.fromkeys(registry._OOT_SUPPORTED_MODELS, "served by a plugin only")  # noqa: SLF001 - nowhere public
    families = _families()
    entries = {}
    for name, why in sorted(gone.items()):
        if not _through_transformers(name):
            entry = {"why": why}
            entry |= {"family": families[name]} if name in families else {}
            entries[name] = entry
    return {"gone": entries, "served": sorted(registry.ModelRegistry.get_supported_archs())}


def _families() -> Mapping[str, str]:
    """Class name -> the `model_type` of its config."""
    auto = _module("transformers.models.auto.modeling_auto")
    found: dict[str, str] = {}
    for listing in sorted(name for name in dir(auto) if name.endswith("_MAPPING_NAMES")):
        for family, names in getattr(auto, listing).items():
            for name in [names] if isinstance(names, str) else names:
                found.setdefault(name, family.replace("-", "_"))
    return found


def _through_transformers(name: str) -> bool:
    model = getattr(_module("transformers"), name, None)
    if model is None:
        return False
    wrapped = model.is_backend_compatible() or model._can_set_attn_implementation()  # noqa: SLF001 - vLLM asks just this
    return bool(wrapped) and not model.config_class().is_encoder_decoder


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _first(*names: str) -> Any:
    """The first of the modules that this vLLM has; it moved them."""
    for name in names[:-1]:
        try:
            return _module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
    return _module(names[-1])


def option_names(parsed: Sequence[Any]) -> list[str]:
    """The long names of all flags without `--`, and without negatives, sorted."""
    spelt = {option for action in parsed for option in action.option_strings if option.startswith("--")}
    return sorted(option[2:] for option in spelt if f"--{option.removeprefix('--no-')}" not in spelt - {option})


def minor(version: str) -> str:
    """`0.32` of `0.32.0`: of each minor version one is read, so finer is not known."""
    return ".".join(version.split(".")[:2])


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def since(known: Mapping[str, Sequence[str]], version: str) -> dict[str, str]:
    """Flag of `version` -> the minor version since which it is there; absent where the oldest one read has it."""
    older = sorted((one for one in known if _order(one) <= _order(version)), key=_order)
    found = {}
    for name in known[version]:
        without = [at for at, one in enumerate(older) if name not in known[one]]
        if without:
            found[name] = minor(older[without[-1] + 1])
    return found


def removed(known: Mapping[str, Sequence[str]], version: str) -> dict[str, dict[str, str]]:
    """Flag that an older version had and `version` has not -> the minor version that dropped it, and what stands in."""
    older = sorted((one for one in known if _order(one) <= _order(version)), key=_order)
    found = {}
    for name in sorted({name for one in older for name in known[one]} - set(known[version])):
        last = max(at for at, one in enumerate(older) if name in known[one])
        found[name] = {"version": minor(older[last + 1])}
        if name in SUCCESSORS:
            found[name]["use"] = SUCCESSORS[name]
    return found


def encode_names(known: Mapping[str, Sequence[str]]) -> str:
    """The file of names: for each version, oldest first, what it has more and less than the one before."""
    lines, before = [], set[str]()
    for version in sorted(known, key=_order):
        names = set(known[version])
        change = {"more": sorted(names - before), "less": sorted(before - names)}
        lines.append(f"{json.dumps(version)}: {json.dumps(change)}")
        before = names
    return "\n".join(["{", *_listed_raw(lines), "}"]) + "\n"


def decode_names(text: str) -> dict[str, list[str]]:
    """Version -> its names, sorted."""
    known, names = {}, set[str]()
    for version, change in json.loads(text).items():
        names = (names | set(change["more"])) - set(change["less"])
        known[version] = sorted(names)
    return known


def render(version: str, table: Mapping[str, Any], dropped: Mapping[str, Any], networks: Mapping[str, Any]) -> str:
    """The file's text: a line for each flag and for each architecture, sorted, so that versions can be compared."""
    lines = ["{", f'"schema": {SCHEMA},', f'"vllm": "{version}",', '"flags": {', *_lines(table), "},"]
    lines += ['"removed": {', *_lines(dropped), "},", '"gone": {']
    lines += [*_lines(networks["gone"]), "},", '"served": [', *_listed(networks["served"]), "]", "}"]
    return "\n".join(lines) + "\n"


def _lines(entries: Mapping[str, Any]) -> list[str]:
    return _listed_raw([f"{json.dumps(name)}: {json.dumps(entries[name], sort_keys=True)}" for name in sorted(entries)])


def _listed(words: Sequence[str]) -> list[str]:
    return _listed_raw([json.dumps(word) for word in words])


def _listed_raw(items: Sequence[str]) -> list[str]:
    return [f"{item}{',' if at < len(items) - 1 else ''}" for at, item in enumerate(items)]


def main(arguments: Sequence[str]) -> int:
    """Write the names, and unless they are all that was asked for the table; prints the line that pins it."""
    version = _module("vllm").__version__.partition("+")[0]
    parsed = actions()
    known = decode_names(NAMES.read_text("utf-8")) if NAMES.exists() else {}
    known[version] = option_names(parsed)
    NAMES.write_text(encode_names(known), "utf-8")
    if arguments == ["--names"]:
        return 0
    table, first = flags(parsed), since(known, version)
    for name in table.keys() & first.keys():
        table[name]["since"] = first[name]
    text = render(version, table, removed(known, version), architectures())
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{version}.json").write_text(text, "utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    print(f'imageworks/model/vllm_table.py, PINNED: "{version}": "{digest}",')
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
