"""1xx: the file cannot be read, or is not the part of YAML that this language uses."""

from __future__ import annotations

from collections.abc import Mapping

from imageworks.diagnostics.codes.code import Code

CODES: Mapping[str, Code] = {
    "IW100": Code(
        "not valid YAML",
        (
            "The reader cannot make sense of the text at this place. The finding says what it expected in plain words and points at the place, or at the opening sign where something is never closed.",
            "The rest of the file is still checked: only the top-level section with the mistake is left out, so one run can name several mistakes.",
        ),
        "models:\n  gemma: {backend: llamacpp, source: {path: gemma.gguf}",
        "models:\n  gemma: {backend: llamacpp, source: {path: gemma.gguf}}",
    ),
    "IW101": Code(
        "a range needs quotes",
        ("In YAML a `>` at the start of a value begins a folded text, so a range must stand in quotes.",),
        "match: {gpus: 1, vram: >=15GiB}",
        'match: {gpus: 1, vram: ">=15GiB"}',
    ),
    "IW102": Code(
        "a tab where YAML allows only blanks",
        (
            "YAML forbids tabs in indentation, because editors disagree about their width. The fix writes as many blanks as the lines around have.",
        ),
        "models:\n\tgemma: {backend: llamacpp}",
        "models:\n  gemma: {backend: llamacpp}",
    ),
    "IW103": Code(
        "a key is declared twice",
        (
            "One map cannot hold a key twice. Many YAML readers keep the last one without a word; a model that silently disappears is hard to find, so it is an error here. Both places are shown.",
        ),
        "models:\n  gemma: {backend: llamacpp}\n  gemma: {backend: vllm}",
        "models:\n  gemma: {backend: llamacpp}\n  gemma-vllm: {backend: vllm}",
    ),
    "IW104": Code(
        "anchors, merge keys and tags are not part of this language",
        (
            "Every value must be able to say where it comes from. A merged value has no line of its own, and a tag changes a value's type behind the field's back. Shared values belong under `defaults:` or `backends:`; two names for the same weights are `source: {same_as: …}`.",
        ),
        "models:\n  a: &common {backend: vllm, source: {path: A}}\n  b: *common",
        "models:\n  a: {backend: vllm, source: {path: A}}\n  b: {backend: vllm, source: {same_as: a}}",
    ),
    "IW105": Code(
        "the file is not UTF-8 text",
        (
            "The file holds a byte that is not UTF-8, or a control character. It may have been saved in another encoding, or it is not a text at all.",
        ),
    ),
    "IW106": Code(
        "several documents in one file",
        (
            "A line `---` after the first value begins a second document. A stack is one document; only the first is checked.",
        ),
        "version: 1\n---\nmodels: {}",
        "version: 1\nmodels: {}",
    ),
    "IW107": Code(
        "the file is empty",
        (
            "There is nothing in the file but comments. `imageworks init` writes a small stack that answers on any machine.",
        ),
    ),
    "IW108": Code(
        "the top level is not a map",
        ("A stack, and every prompt file, is a map of keys to values at its top level.",),
        "- version: 1",
        "version: 1",
    ),
    "IW109": Code(
        "a shape that this language never needs",
        ("A key is a single word, never a list or a map, and nothing is nested more than 50 deep.",),
        "? [a, b]\n: value",
        "a: value",
    ),
    "IW110": Code(
        "the file is missing",
        (
            "There is no file of this name. `imageworks init` writes a small stack.yaml into the current folder; `-f FILE` names another one.",
        ),
    ),
    "IW111": Code(
        "the file cannot be read",
        ("The name leads to a folder, to something that is no regular file, or to a file that you may not read.",),
    ),
    "IW112": Code(
        "the file is too large",
        (
            "Source files are limited to 4 MiB. A file that large was not written by hand; most likely the name is wrong.",
        ),
    ),
    "IW113": Code(
        "models.lock cannot be used",
        (
            "models.lock holds the facts of the weights as JSON, with a schema number. It is written by the program, never by hand. A newer ImageWorks may have written it; else restore it from version control, or delete it: `imageworks up` writes it again.",
        ),
    ),
}
