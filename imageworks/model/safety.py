"""What must not stand in a file that is committed, and what must not be opened to a network.

Owns IW306 (a secret in the file) and IW330 (a bind beyond this machine). A secret's text is never put into a finding.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from imageworks.diagnostics.model import Diagnostic, Fix, Label
from imageworks.model.loaded import BUILT_IN
from imageworks.model.secret_places import in_the_file
from imageworks.source.tree import MapNode, ScalarNode, at, walk

_PREFIXES = ("sk-", "sk_", "hf_", "ghp_", "gho_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "AKIA", "AIza", "nvapi-")
_TOKEN = re.compile(r"[A-Za-z0-9_+/=-]{20,}")
_BETWEEN = re.compile(r"[\s=]+")
SHORTEST_RANDOM = 32
RANDOM_BITS = 4.0


def secrets(root: MapNode) -> Iterator[Diagnostic]:
    """A finding for every text of the user's file that looks like a key."""
    for path, _, node in walk(root):
        if isinstance(node, ScalarNode) and node.span.file != BUILT_IN and looks_secret(node.text):
            yield in_the_file(node, path, "looks like a key; it would be committed")


def looks_secret(text: str) -> bool:
    """True for a text or a word of it with a well-known key prefix, or of 32 or more characters that look random.

    >>> looks_secret("--key=hf_abcdefghijklmnopqrstuvwx"), looks_secret("Qwen/Qwen3-VL-8B-Instruct-FP8")
    (True, False)
    """
    return any(map(_is_key, (text, *_BETWEEN.split(text))))


def _is_key(text: str) -> bool:
    if not _TOKEN.fullmatch(text):
        return False
    if text.startswith(_PREFIXES):
        return True
    kinds = (re.search("[a-z]", text), re.search("[A-Z]", text), re.search("[0-9]", text))
    return (
        len(text) >= SHORTEST_RANDOM and all(kinds) and "/" not in text and _bits(text) > RANDOM_BITS and _mixed(text)
    )


def _bits(text: str) -> float:
    """Shannon entropy in bits for each character."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


def _mixed(text: str) -> bool:
    """True when letters and digits alternate as in random text; names keep them in words."""
    changes = sum(a.isdigit() != b.isdigit() or (a.isupper() != b.isupper()) for a, b in pairwise(text))
    return changes > len(text) / 3


def exposed(root: MapNode) -> Iterator[Diagnostic]:
    """IW330 when the proxy would answer to other machines, and asks nobody for a key."""
    node, keys = at(root, "proxy", "bind"), at(root, "proxy", "auth", "keys")
    if not isinstance(node, ScalarNode) or (isinstance(keys, MapNode) and keys.entries):
        return
    host = node.text.rpartition(":")[0].strip("[]")
    if (
        host
        and re.fullmatch(r"[A-Za-z0-9.:-]+", host)
        and not re.fullmatch(r"127(\.[0-9]{1,3}){3}|localhost|::1", host)
    ):
        label = Label(node.span, "everybody on the network could use your GPU")
        port = node.text.rpartition(":")[2]
        notes = ("175,108 such servers were found in the open",)
        yield Diagnostic(
            "IW330",
            "open to the network without keys",
            label,
            notes=notes,
            fixes=(
                Fix(f"bind: 127.0.0.1:{port}"),
                Fix(
                    "proxy: {auth: {keys: {me: {key: {secret: MY_KEY}}}}}, and secrets: {MY_KEY: {env: IMAGEWORKS_MY_KEY}}"
                ),
            ),
        )
