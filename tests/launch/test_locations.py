from __future__ import annotations

import sys
from pathlib import Path

from imageworks import locations
from imageworks.contract import Root

STACK = Path("/srv/studio")
ROOTS = {
    "models": Root(env="STUDIO_MODELS", default="weights"),
    "state": Root(env="IMAGEWORKS_STATE", default=".imageworks"),
}


def test_defaults_lie_in_the_stack_folder() -> None:
    tokens = locations.tokens(STACK, ROOTS, {"HOME": "/home/ann"})
    assert tokens == {
        "stack": "/srv/studio",
        "models": "/srv/studio/weights",
        "state": "/srv/studio/.imageworks",
        "store": "/home/ann/.cache/imageworks/store",
        "python": sys.executable,
    }


def test_a_variable_wins_and_a_relative_one_counts_from_the_stack() -> None:
    tokens = locations.tokens(STACK, ROOTS, {"HOME": "/h", "STUDIO_MODELS": "/big/disk", "IMAGEWORKS_STATE": "data"})
    assert (tokens["models"], tokens["state"]) == ("/big/disk", "/srv/studio/data")


def test_an_empty_variable_is_no_answer() -> None:
    assert locations.tokens(STACK, ROOTS, {"HOME": "/h", "STUDIO_MODELS": ""})["models"] == "/srv/studio/weights"


def test_a_stack_without_roots_still_has_all_tokens() -> None:
    tokens = locations.tokens(STACK, {}, {"HOME": "/h", "IMAGEWORKS_STATE": "/s"})
    assert (tokens["models"], tokens["state"]) == ("/srv/studio/models", "/s")


def test_the_store_follows_its_own_variable_then_xdg_then_home() -> None:
    assert locations.store_dir({"IMAGEWORKS_STORE": "/s", "XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/s")
    assert locations.store_dir({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/x/imageworks/store")
    assert locations.store_dir({"XDG_CACHE_HOME": "not/absolute", "HOME": "/h"}) == Path("/h/.cache/imageworks/store")


def test_a_relative_stack_folder_becomes_absolute() -> None:
    assert locations.tokens(Path(), {}, {"HOME": "/h"})["stack"] == str(Path.cwd())


def test_the_control_socket_does_not_follow_the_environment() -> None:
    assert locations.control_socket(STACK) == Path("/srv/studio/.imageworks/run/supervisor.sock")
    assert locations.devices_file(STACK) == Path("/srv/studio/.imageworks/run/devices.json")
    assert locations.launch_wrapper(STACK) == Path("/srv/studio/.imageworks/bin/launch")
    assert locations.program_log(STACK, "model-x") == Path("/srv/studio/.imageworks/log/model-x.log")
    assert locations.request_log({"state": "/data"}) == Path("/data/log/requests.jsonl")


def test_a_stored_file_lies_under_its_hash_by_its_last_name() -> None:
    assert locations.stored_file(Path("/s"), "ab", "pkg/data/x.gguf") == Path("/s/sha256/ab/x.gguf")
