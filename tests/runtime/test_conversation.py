"""What happens to a conversation before a model sees it, and how it is switched off."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

from imageworks.contract import ContractError, History, HistoryRule, ImageRule
from imageworks.runtime.conversation import Switches, Wish, cut, has_large_images, shrunk, switches, wish
from imageworks.runtime.errors import ApiError
from imageworks.runtime.history import Room
from imageworks.runtime.pictures import Picture, sniff
from imageworks.runtime.request import Request, parse, shape
from imageworks.runtime.shrink import shrink

RULES = History()
ROOM = Room()


def noise(edge: int) -> str:
    out = io.BytesIO()
    Image.effect_noise((edge, edge // 2), 90).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


LARGE, SMALL = noise(400), noise(20)


def user(text: str, *urls: str) -> dict[str, Any]:
    parts: list[Any] = [{"type": "text", "text": text}]
    return {
        "role": "user",
        "content": parts + [{"type": "image_url", "image_url": {"url": url, "detail": "low"}} for url in urls],
    }


def ask(*messages: dict[str, Any], **more: Any) -> Request:
    return parse("chat/completions", json.dumps({"model": "a", "messages": messages, **more}).encode())


def route() -> Any:
    from imageworks.contract import Route  # noqa: PLC0415 - only here

    return Route(
        "a", "x", None, "u", "a", (), (), None, 1, 1, 0, {}, 0, 1.0, 1.0, 1.0, pinned=False, sampling={}, needs=()
    )


def sent(request: Request) -> list[Any]:
    found: list[Any] = json.loads(shape(request, route(), None).body)["messages"]
    return found


BOT = {"role": "assistant", "content": "fine"}


def test_older_images_go_and_what_stays_is_the_clients_own_bytes() -> None:
    asked = ask(user("one", LARGE), BOT, user("two", LARGE, SMALL))
    left, found = cut(asked, RULES, ROOM, reasons=False)
    assert found is not None
    assert (found.told, left.images) == ("messages=2, images=1", 2)
    assert sent(left) == [user("two", LARGE, SMALL)]


def test_bytes_that_were_left_out_of_the_skeleton_count() -> None:
    asked = ask(user("one", LARGE), BOT, user("two", LARGE))
    assert asked.elided is not None
    roomy, tight = (History(HistoryRule(9, max_bytes=size), None) for size in (len(LARGE) * 3, len(LARGE)))
    assert cut(asked, roomy, ROOM, reasons=False)[1].told is None  # type: ignore[union-attr]
    assert cut(asked, tight, ROOM, reasons=False)[1].told == "messages=2, images=1"  # type: ignore[union-attr]


@pytest.mark.parametrize("rules", [History(None, None), History(None, HistoryRule(0))])
def test_switched_off_everything_is_sent(rules: History) -> None:
    asked = ask(user("one", LARGE), BOT, user("two", SMALL))
    assert cut(asked, rules, ROOM, reasons=False) == (asked, None)


def test_reasoning_history_is_for_models_that_reason() -> None:
    talk = [{"role": "user", "content": "one"}, BOT, {"role": "user", "content": "two"}]
    rules = History(None, HistoryRule(0))
    assert sent(cut(ask(*talk), rules, ROOM, reasons=True)[0]) == talk[2:]
    assert cut(ask(*talk), rules, ROOM, reasons=False)[1] is None


@pytest.mark.parametrize(("said", "vision"), [("false", None), ("0", None), ("", RULES.vision), ("true", RULES.vision)])
def test_the_environment_switches_vision_history(said: str, vision: HistoryRule | None) -> None:
    assert switches({"CHAT_PROXY_VISION_TRUNCATE_HISTORY": said}).apply(RULES).vision == vision


def test_the_environment_switches_reasoning_history_and_vision_back_on() -> None:
    found = switches({"CHAT_PROXY_REASONING_TRUNCATE_HISTORY": "true", "CHAT_PROXY_VISION_TRUNCATE_HISTORY": "on"})
    assert found == Switches(True, True)  # noqa: FBT003 - two switches
    assert found.apply(History(None, None)) == History(RULES.vision, HistoryRule(1))
    off = switches({"CHAT_PROXY_REASONING_TRUNCATE_HISTORY": "no"})
    assert off.apply(History(None, HistoryRule(5))).reasoning is None
    assert switches({}).apply(History(None, HistoryRule(5))) == History(None, HistoryRule(5))


def test_an_environment_that_is_neither_yes_nor_no_is_told() -> None:
    with pytest.raises(ContractError, match="neither true nor false"):
        switches({"CHAT_PROXY_VISION_TRUNCATE_HISTORY": "flase"})


def test_one_request_may_do_without() -> None:
    assert wish(None) == Wish()
    assert wish("history=off") == Wish(history=False)
    assert wish("history=on, images=off") == Wish(images=False)
    with pytest.raises(ApiError) as caught:
        wish("history=maybe")
    assert caught.value.status == 400


def test_an_image_without_its_padding_is_an_image_and_half_a_letter_is_none() -> None:
    class Keeping:
        async def shrink(self, data: bytes, max_edge: int, quality: int) -> bytes:
            del max_edge, quality
            return data

    head, _, data = LARGE.rstrip("=").partition(",")
    for cut_at in range(1, 4):
        bare = f"{head},{data[: len(data) // 4 * 4 - cut_at]}"
        asked = ask(user("one", bare))
        if cut_at == 3:
            with pytest.raises(ApiError) as caught:
                asyncio.run(shrunk(asked, ImageRule(max_edge_px=100), Keeping()))
            assert (caught.value.status, caught.value.code) == (400, "invalid_image")
        else:
            assert asyncio.run(shrunk(asked, ImageRule(max_edge_px=100), Keeping()))[1] == 1


def test_only_images_with_a_longer_edge_are_made_smaller() -> None:
    class Counting:
        def __init__(self) -> None:
            self.seen: list[tuple[int, int, int]] = []

        async def shrink(self, data: bytes, max_edge: int, quality: int) -> bytes:
            self.seen.append((len(data), max_edge, quality))
            return shrink(data, max_edge, quality)

    asked = ask(user("two", LARGE, SMALL), {"role": "user", "content": "plain"}, temperature=0.5)
    rule, worker = ImageRule(max_edge_px=100, jpeg_quality=70), Counting()
    assert has_large_images(asked, rule)
    made, count = asyncio.run(shrunk(asked, rule, worker))
    assert (count, [(edge, quality) for _, edge, quality in worker.seen]) == (1, [(100, 70)])
    first, second = sent(made)[0]["content"][1:]
    assert second["image_url"] == {"url": SMALL, "detail": "low"}
    assert first["image_url"]["detail"] == "low"
    assert sniff(base64.b64decode(first["image_url"]["url"].partition(",")[2])) == Picture("jpeg", 100, 50)
    assert sent(made)[1:] == [{"role": "user", "content": "plain"}]


def test_images_that_fit_cause_no_work() -> None:
    asked = ask(user("two", LARGE, SMALL))
    assert not has_large_images(asked, ImageRule(max_edge_px=400))
    assert not has_large_images(ask({"role": "user", "content": "x"}), ImageRule(max_edge_px=1))


def test_an_image_that_is_none_is_refused_also_where_it_is_large() -> None:
    url = "data:image/png;base64," + base64.b64encode(bytes(40_000)).decode()
    with pytest.raises(ApiError, match="cannot be read"):
        has_large_images(ask(user("x", url)), ImageRule())
