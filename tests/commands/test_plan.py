"""`imageworks plan` without anything running, and its judgement about programs as a function of what was seen."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from imageworks import contract
from imageworks.commands.actions import Action, Wanted, actions, section
from imageworks.commands.here import PROXY
from imageworks.commands.inforce import Load, Seen, Started
from imageworks.commands.kept import Generation
from imageworks.commands.pipeline import artifacts, compile_stack
from imageworks.commands.running import ProgramInfo

from .conftest import SMALL, Verb

MODEL = "model-gemma-4b"


def wanted(folder: Path, text: str = SMALL) -> Wanted:
    """The profile `development` of a stack, compiled."""
    (folder / "stack.yaml").write_text(text, encoding="utf-8")
    compiled = compile_stack(folder / "stack.yaml")
    assert compiled.loaded is not None
    files = artifacts(compiled.plans, compiled.profiles)["development"]
    return Wanted(compiled.plan("development"), {file.path: file for file in files}, compiled.loaded)


def generation(made: Wanted) -> Generation:
    routes, plan = (json.loads(made.files[name].text) for name in ("routes.json", "plan.json"))
    return Generation(Path("kept/development"), routes, plan, made.files["supervisord.conf"].text)


def running(made: Wanted, *alive: str) -> Seen:
    """Everything runs exactly what `made` says; programs not in `alive` are stopped."""
    specs = {name: made.spec(name) for name in (PROXY, *made.models())}
    state = {name: "RUNNING" if name in alive or name == PROXY else "STOPPED" for name in specs}
    return Seen(
        up=True,
        programs={name: ProgramInfo(name, state[name], 7, 1, "") for name in specs},
        started={
            name: Started(Path(f"generated/development/exec/{name}.json"), spec)
            for name, spec in specs.items()
            if spec is not None and state[name] == "RUNNING"
        },
        profile="development",
        plan_hash=made.plan.hash,
        served=generation(made),
        load={"gemma-4b": Load(in_flight=2, waiting=1)},
    )


def by_program(found: tuple[Action, ...]) -> Mapping[str, Action]:
    return {action.program: action for action in found}


def test_what_runs_as_it_should_is_kept(folder: Path) -> None:
    made = wanted(folder)
    assert [action.verb for action in actions(made, running(made, MODEL))] == ["keep", "keep"]


def test_a_running_model_restarts_for_its_own_change_and_says_what_it_touches(folder: Path) -> None:
    before = running(wanted(folder), MODEL)
    after = wanted(folder, SMALL.replace("roles:", "context: 1024\n    roles:"))
    found = by_program(actions(after, before))
    assert (found[MODEL].verb, found[MODEL].load) == ("restart", Load(2, 1))
    assert [(one.field, one.old, one.new, one.at) for one in found[MODEL].reasons] == [
        ("models.gemma-4b.context", 8192, 1024, "stack.yaml:7")
    ]
    assert (found[PROXY].verb, found[PROXY].load) == ("reload", Load(2, 1))


def test_a_stopped_model_needs_nothing_for_it_reads_its_spec_at_its_start(folder: Path) -> None:
    before = running(wanted(folder))
    after = wanted(folder, SMALL.replace("roles:", "context: 1024\n    roles:"))
    assert by_program(actions(after, before))[MODEL].verb == "keep"


def test_a_change_of_the_table_alone_leaves_the_models(folder: Path) -> None:
    before = running(wanted(folder), MODEL)
    found = by_program(actions(wanted(folder, SMALL.replace("chat: 50", "chat: 60")), before))
    assert (found[PROXY].verb, found[MODEL].verb) == ("reload", "keep")
    assert [(one.field, one.at) for one in found[PROXY].reasons] == [("models.gemma-4b.roles.chat", "stack.yaml:7")]


def test_another_profiles_roles_are_reason_enough_to_reload(folder: Path) -> None:
    made = wanted(folder)
    seen = running(made, MODEL)
    assert seen.served is not None
    routes = {**seen.served.routes, "roles": {}}
    older = dataclasses.replace(seen, served=dataclasses.replace(seen.served, routes=routes))
    found = by_program(actions(made, older))
    assert (found[PROXY].verb, found[MODEL].verb) == ("reload", "keep")


def test_without_the_old_plan_the_difference_is_told_from_the_exec_specs(folder: Path) -> None:
    before = dataclasses.replace(running(wanted(folder), MODEL), served=None)
    after = wanted(folder, SMALL.replace("roles:", "context: 1024\n    roles:"))
    found = by_program(actions(after, before))
    (reason,) = found[MODEL].reasons
    assert (reason.field, reason.old, reason.new) == (f"exec/{MODEL}.json argv", "16384", "2048")
    (reason,) = found[PROXY].reasons
    assert (reason.old, reason.new) == ((before.plan_hash or "")[:12], after.plan.hash[:12])


def test_what_was_started_without_a_word_is_not_trusted(folder: Path) -> None:
    made = wanted(folder)
    seen = running(made, MODEL)
    silent = dataclasses.replace(seen, started={PROXY: seen.started[PROXY]})
    assert by_program(actions(made, silent))[MODEL].verb == "restart"


@pytest.mark.parametrize(("alive", "verb"), [((MODEL,), "stop"), ((), "remove")])
def test_a_model_that_left_the_stack_goes(folder: Path, alive: tuple[str, ...], verb: str) -> None:
    before = running(wanted(folder), *alive)
    found = by_program(actions(wanted(folder, SMALL.replace("gemma-4b", "gemma-5b")), before))
    assert (found[MODEL].verb, found["model-gemma-5b"].verb) == (verb, "add")
    assert [(one.field, one.new) for one in found[MODEL].reasons] == [("models.gemma-4b", "not in the stack")]


def test_a_model_that_is_left_out_says_why(folder: Path) -> None:
    before = running(wanted(folder), MODEL)
    found = by_program(actions(wanted(folder, SMALL + "profiles: {development: {host_memory: 1GiB}}\n"), before))
    assert found[MODEL].verb == "stop"
    (reason,) = found[MODEL].reasons
    assert (reason.field, reason.at) == ("models.gemma-4b", "stack.yaml:3")
    assert "GiB" in str(reason.new)


def test_a_changed_section_of_supervisord_restarts_its_program(folder: Path) -> None:
    made = wanted(folder)
    seen = running(made, MODEL)
    assert seen.served is not None
    conf = seen.served.conf.replace("stopwaitsecs=30", "stopwaitsecs=31")
    found = actions(made, dataclasses.replace(seen, served=dataclasses.replace(seen.served, conf=conf)))
    assert [action.verb for action in found] == ["restart", "restart"]
    assert [one.field for one in found[1].reasons] == ["supervisord.conf stopwaitsecs"]


def test_another_profile_ends_everything(folder: Path) -> None:
    made = wanted(folder)
    seen = dataclasses.replace(running(made, MODEL), profile="compact_8gb")
    assert [(one.program, one.verb) for one in actions(made, seen)] == [(PROXY, "restart"), (MODEL, "stop")]


def test_a_section_is_read_without_its_comments() -> None:
    conf = '[supervisord]\nx=1\n; stack.yaml:3 - a\n[program:a]\ncommand=/bin/x "a b"\nstopsignal=TERM\n'
    assert section(conf, "a") == {"command": '/bin/x "a b"', "stopsignal": "TERM"}
    assert section(conf, "b") == {}


# the verb


def test_nothing_runs_and_nothing_is_generated(small: Path, verb: Verb) -> None:
    assert small.exists()
    code, out, err = verb("plan", "--profile", "development")
    assert code == 2
    assert "missing  generated/development/routes.json" in out
    assert "start    imageworks-proxy" in out
    assert "imageworks apply" in err


def test_the_document_names_files_programs_and_reasons(small: Path, verb: Verb) -> None:
    verb("compile")
    (small / "stack.yaml").write_text(SMALL.replace("chat: 50", "chat: 60"), encoding="utf-8")
    code, out, _ = verb("plan", "--profile", "development", "--format", "json")
    found = json.loads(out)
    assert code == 2
    assert (found["schema"], found["profile"], found["running"]["up"], found["changes"]) == (
        1,
        "development",
        False,
        True,
    )
    assert "development/routes.json" in found["files"]["changed"]
    assert [(row["program"], row["verb"]) for row in found["programs"]] == [(PROXY, "start"), (MODEL, "keep")]


def test_a_wrong_stack_is_explained(folder: Path, verb: Verb) -> None:
    (folder / "stack.yaml").write_text(SMALL.replace("chat: 50", "chatt: 50"), encoding="utf-8")
    for name in ("plan", "apply"):
        code, _, err = verb(name)
        assert code == 1
        assert "did you mean `chat`" in err


def test_an_unknown_profile_is_named_with_those_there_are(small: Path, verb: Verb) -> None:
    assert small.exists()
    for name in ("plan", "apply"):
        code, _, err = verb(name, "--profile", "developmnt")
        assert code == 1
        assert "development" in err


def test_a_generated_folder_of_a_newer_version_is_not_judged(small: Path, verb: Verb) -> None:
    verb("compile")
    manifest = small / "generated" / "development" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema": 1', '"schema": 99'))
    code, _, err = verb("plan")
    assert code == 1
    assert "newer" in err


WATCHED = """
import os, sys
top = os.path.realpath(sys.argv[1])
def watch(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)):
        mode, flags = args[1] or "", args[2] or 0
        if not (set("wax+") & set(mode) or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)):
            return
    elif event not in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod",
                       "os.utime", "os.truncate", "shutil.copyfile", "shutil.rmtree", "tempfile.mkstemp", "tempfile.mkdtemp"):
        return
    for word in args[:2]:
        if isinstance(word, (str, bytes)) and os.path.realpath(os.fsdecode(word)).startswith(top):
            sys.stderr.write(f"WROTE {event} {word!r}\\n")
            os._exit(99)
sys.addaudithook(watch)
from imageworks.cli import run
sys.exit(run(sys.argv[2:]))
"""


def watched(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb in a process that ends with 99 at the first attempt to write below `folder`."""
    command = [sys.executable, "-B", "-c", WATCHED, str(folder), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def read_only(small: Path, verb: Verb) -> Iterator[Path]:
    """A compiled and then changed stack that cannot be written, not even by root (see `watched`)."""
    verb("compile")
    (small / "stack.yaml").write_text(SMALL.replace("chat: 50", "chat: 60"), encoding="utf-8")
    folders = [small, *(path for path in small.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        yield small
    finally:
        for path in folders:
            path.chmod(0o755)


def test_plan_writes_nothing(read_only: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in read_only.rglob("*")}
    done = watched(read_only, "plan", "--profile", "development")
    assert done.returncode == 2, done.stderr
    assert {path: path.stat().st_mtime_ns for path in read_only.rglob("*")} == before


def test_the_watch_over_writes_can_bark(read_only: Path) -> None:
    done = watched(read_only, "compile")
    assert done.returncode == 99, done.stderr


def test_an_exec_spec_survives_the_way_through_the_word(folder: Path) -> None:
    spec = wanted(folder).spec(MODEL)
    assert spec is not None
    assert contract.exec_spec(json.dumps(dataclasses.asdict(spec))) == spec
