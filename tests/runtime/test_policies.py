"""History, images and keys of clients, through the whole proxy on both of its ways."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from PIL import Image

from imageworks import contract
from imageworks.runtime.pictures import Picture, sniff

Make = Callable[..., Any]
Play = Callable[..., None]
EYE = {"capabilities": ("chat", "vision"), "images_max": 2, "image_tokens": 1000, "context": 2048}


def picture(edge: int) -> str:
    out = io.BytesIO()
    Image.effect_noise((edge, edge // 2), 90).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


SMALL, LARGE = picture(20), picture(400)


def user(text: str, *urls: str) -> dict[str, Any]:
    return {
        "role": "user",
        "content": [
            {"type": "text", "text": text},
            *({"type": "image_url", "image_url": {"url": url}} for url in urls),
        ],
    }


def talk(*messages: Any, model: str = "eye", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": list(messages), **more}


BOT = {"role": "assistant", "content": "fine"}


def test_ten_turns_with_images_never_exceed_the_context_and_tell_what_was_dropped(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"eye": EYE}, history=contract.History(contract.HistoryRule(9))) as w:
            messages: list[Any] = []
            for turn in range(10):
                messages.append(user(f"turn {turn}", SMALL))
                status, _, headers = await w.post(talk(*messages, max_tokens=40))
                assert status == 200
                sent = w.engines["eye"].seen[-1]["messages"]
                images = sum(isinstance(one["content"], list) for one in sent)
                assert images * 1000 + 40 <= 2048
                assert sent[-1] == messages[-1]
                dropped = len(messages) - len(sent)
                assert headers.get("x-imageworks-history") == (
                    f"messages={dropped}, images={dropped // 2}" if dropped else None
                )
                messages.append(BOT)
        line = w.lines()[-1]
        assert line["dropped"] == {"messages": 18 - 2 * (images - 1), "images": 9 - (images - 1)}

    play(story())


@pytest.mark.parametrize(
    ("environ", "header", "rules"),
    [
        ({"CHAT_PROXY_VISION_TRUNCATE_HISTORY": "false"}, None, contract.History()),
        ({}, "history=off", contract.History()),
        ({}, None, contract.History(None, None)),
    ],
)
def test_each_switch_of_history_sends_everything_and_changes_nothing_else(
    world: Make, play: Play, environ: dict[str, str], header: str | None, rules: contract.History
) -> None:
    async def story() -> None:
        async with world({"eye": EYE}, environ=environ, history=rules) as w:
            asked = talk(user("one", SMALL), BOT, user("two", SMALL), temperature=0.5)
            options = {"headers": {"x-imageworks-policies": header}} if header else {}
            status, _, headers = await w.post(asked, **options)
            assert (status, headers.get("x-imageworks-history")) == (200, None)
            assert w.engines["eye"].seen[-1] == asked | {"model": "served-eye"}

    play(story())


def test_reasoning_history_is_off_until_the_environment_says_otherwise(world: Make, play: Play) -> None:
    plain = [{"role": "user", "content": f"{turn}"} if turn % 2 == 0 else BOT for turn in range(7)]

    async def story(environ: dict[str, str], sent: int) -> None:
        async with world({"r": {"capabilities": ("chat", "reasoning")}}, environ=environ) as w:
            assert (await w.post(talk(*plain, model="r")))[0] == 200
            assert len(w.engines["r"].seen[-1]["messages"]) == sent

    play(story({}, 7))
    play(story({"CHAT_PROXY_REASONING_TRUNCATE_HISTORY": "true"}, 3))


def test_a_large_image_is_made_smaller_as_its_role_says(world: Make, role: Make, play: Play) -> None:
    async def story() -> None:
        rule = contract.ImageRule(max_edge_px=100)
        async with world({"eye": EYE}, roles={"caption": role("eye", requires=("vision",), images=rule)}) as w:
            for stream in (False, True):
                asked = talk(user("what?", LARGE, SMALL), model="role:caption", stream=stream)
                async with w.http.post("/v1/chat/completions", json=asked) as answer:
                    assert (answer.status, answer.headers["x-imageworks-images"]) == (200, "shrunk=1")
                    await answer.read()
                first, second = w.engines["eye"].seen[-1]["messages"][0]["content"][1:]
                data = base64.b64decode(first["image_url"]["url"].partition(",")[2])
                assert sniff(data) == Picture("jpeg", 100, 50)
                assert second["image_url"]["url"] == SMALL
            off = {"headers": {"x-imageworks-policies": "images=off"}}
            status, _, headers = await w.post(talk(user("what?", LARGE), model="role:caption"), **off)
            assert (status, headers.get("x-imageworks-images")) == (200, None)
            assert w.engines["eye"].seen[-1]["messages"] == [user("what?", LARGE)]
        assert [line["images"]["shrunk"] for line in w.lines()] == [1, 1, None]

    play(story())


@pytest.mark.parametrize(
    "url", ["data:image/png;base64,AAAA", "data:image/tiff;base64,SUkqAAAA", "data:image/png,plain"]
)
def test_what_is_no_picture_is_refused_before_an_engine_sees_it(world: Make, play: Play, url: str) -> None:
    async def story() -> None:
        async with world({"eye": EYE}) as w:
            status, answer, _ = await w.post(talk(user("what?", url)))
            assert (status, answer["error"]["code"]) == (400, "invalid_image")
            assert w.engines["eye"].hits == 0

    play(story())


def test_a_policy_header_that_nobody_knows_is_told(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"eye": EYE}) as w:
            status, answer, _ = await w.post(talk(user("x")), headers={"x-imageworks-policies": "histroy=off"})
            assert (status, answer["error"]["code"]) == (400, "invalid_header")

    play(story())


# keys


def key(name: str, **more: Any) -> contract.ClientKey:
    return contract.ClientKey(name, contract.Secret(name.upper(), f"KEY_{name.upper()}"), **more)


VALUES = {"KEY_BOSS": "boss-key", "KEY_PHONE": "phone-key"}
BOSS = key("boss", admin=True)
HELLO = {"role": "user", "content": "hello"}


def bearer(value: str) -> dict[str, dict[str, str]]:
    return {"headers": {"Authorization": f"Bearer {value}"}}


def test_with_keys_nobody_asks_without_one(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, keys=(BOSS,), environ=VALUES) as w:
            for options in ({}, bearer("wrong"), bearer("boss-ke")):
                status, answer, _ = await w.post(talk(HELLO, model="small"), **options)
                assert (status, answer["error"]["code"]) in {(401, "key_missing"), (401, "key_unknown")}
            assert (await w.get("/v1/models"))[0] == 401
            assert (await w.get("/running"))[0] == 401
            assert (await w.get("/healthz"))[0] == 200
            assert (await w.get("/readyz"))[0] == 200
            assert w.engines["small"].hits == 0
            assert (await w.post(talk(HELLO, model="small"), **bearer("boss-key")))[0] == 200
            assert (await w.get("/v1/models", **bearer("boss-key")))[0] == 200
        assert w.lines()[-1]["client"] == "boss"

    play(story())


def test_a_large_body_without_a_key_is_refused_before_it_is_taken(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, keys=(BOSS,), environ=VALUES) as w:
            for shown, status in (
                (b"", b"401"),
                (b"X-Api-Key: wrong\r\n", b"401"),
                (b"X-Api-Key: boss-key\r\n", b"200"),
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", w.client.base_url.port)
                body = json.dumps(talk(HELLO, model="small") | {"user": "x" * 100_000}).encode()
                head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                writer.write(head + shown + b"Content-Length: %d\r\n\r\n" % len(body) + body[:1])
                if status == b"200":
                    writer.write(body[1:])
                assert (await reader.readline()).split()[1] == status
                writer.close()

    play(story())


def test_a_bug_of_ours_gives_the_keys_place_back_and_is_recorded(
    world: Make, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        boss = key("boss", admin=True, concurrency=1)
        async with world({"small": {}}, keys=(boss,), environ=VALUES) as w:

            async def broken(_job: object) -> None:
                raise ZeroDivisionError

            with monkeypatch.context() as patch:
                patch.setattr(w.proxy, "_fetched", broken)
                patch.setattr(w.proxy, "plain", lambda *_: False)
                for _ in range(3):
                    status, answer, _ = await w.post(talk(HELLO, model="small"), **bearer("boss-key"))
                    assert (status, answer["error"]["code"]) == (500, "internal_error")
            assert (await w.post(talk(HELLO, model="small"), **bearer("boss-key")))[0] == 200
        assert [(line.get("error") or {}).get("type") for line in w.lines()] == ["internal_error"] * 3 + [None]

    play(story())


def test_a_clients_key_never_reaches_an_engine(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, keys=(BOSS,), environ=VALUES) as w:
            assert (await w.post(talk(HELLO, model="small"), **bearer("boss-key")))[0] == 200
            assert not any("boss-key" in value for value in w.engines["small"].headers[-1].values())

    play(story())


def test_a_key_is_for_its_roles_and_models(world: Make, role: Make, play: Play) -> None:
    async def story() -> None:
        phone = key("phone", roles=("chat",), models=())
        async with world(
            {"small": {}}, roles={"chat": role("small"), "judge": role("small")}, keys=(phone,), environ=VALUES
        ) as w:
            assert (await w.post(talk(HELLO, model="role:chat"), **bearer("phone-key")))[0] == 200
            for name in ("role:judge", "small"):
                status, answer, _ = await w.post(talk(HELLO, model=name), **bearer("phone-key"))
                assert (status, answer["error"]["code"]) == (403, "out_of_scope")

    play(story())


def test_only_an_admin_changes_what_runs(world: Make, play: Play, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def story() -> None:
        async with world({"small": {}}, keys=(BOSS, key("phone")), environ=VALUES) as w:
            for path in ("/unload", "/v1/gpu/release", "/v1/reload"):
                status, answer, _ = await w.post({}, path=path, **bearer("phone-key"))
                assert (status, answer["error"]["code"]) == (403, "not_admin")
            assert (await w.post({}, path="/unload", **bearer("boss-key")))[0] == 200

    play(story())
    assert "audit: POST /unload by boss" in caplog.text


def test_quotas_are_refused_with_their_number_and_given_back(world: Make, play: Play) -> None:
    async def story() -> None:
        phone = key("phone", concurrency=1, rate_per_minute=2.0)
        async with world({"small": {}}, keys=(phone,), environ=VALUES) as w:
            for _ in range(2):
                assert (await w.post(talk(HELLO, model="small"), **bearer("phone-key")))[0] == 200
            status, answer, headers = await w.post(talk(HELLO, model="small"), **bearer("phone-key"))
            assert (status, answer["error"]["code"]) == (429, "quota")
            assert "2 requests a minute allowed" in answer["error"]["message"]
            assert 0 < int(headers["Retry-After"]) <= 30

    play(story())


def test_tokens_of_answers_count(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, keys=(key("phone", tokens_per_day=5),), environ=VALUES) as w:
            assert (await w.post(talk(HELLO, model="small"), **bearer("phone-key")))[0] == 200
            status, answer, _ = await w.post(talk(HELLO, model="small"), **bearer("phone-key"))
            assert (status, answer["error"]["code"]) == (429, "quota")
            assert "5 allowed" in answer["error"]["message"]

    play(story())


def test_a_key_that_expired_and_one_that_is_missing_shut_the_door(world: Make, play: Play) -> None:
    async def story() -> None:
        yesterday = (datetime.now(UTC) - timedelta(1)).date().isoformat()
        async with world({"small": {}}, keys=(key("boss", expires=yesterday), key("gone")), environ=VALUES) as w:
            status, answer, _ = await w.post(talk(HELLO, model="small"), **bearer("boss-key"))
            assert (status, answer["error"]["code"]) == (401, "key_expired")
            assert (await w.post(talk(HELLO, model="small"), **bearer("")))[0] == 401

    play(story())


def test_a_page_of_somebody_else_is_refused_also_with_a_key(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}, keys=(BOSS,), environ=VALUES) as w:
            evil = {
                "headers": {
                    "Content-Type": "application/json",
                    "Authorization": "Bearer boss-key",
                    "Origin": "https://evil.example",
                }
            }
            status, answer, _ = await w.post(talk(HELLO, model="small"), **evil)
            assert (status, answer["error"]["code"]) == (403, "origin_refused")
            named = {
                "headers": {
                    "Content-Type": "application/json",
                    "Authorization": "Bearer boss-key",
                    "Host": "studio.lan:8100",
                    "Origin": "http://studio.lan:8100",
                }
            }
            assert (await w.post(talk(HELLO, model="small"), **named))[0] == 200

    play(story())


@pytest.mark.parametrize("kind", ["text/plain; charset=utf-8", "multipart/form-data; boundary=x"])
def test_a_body_that_says_it_is_a_form_is_not_json(world: Make, play: Play, kind: str) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            for path in ("/v1/chat/completions", "/unload", "/v1/gpu/lease"):
                status, answer, _ = await w.post(talk(HELLO, model="small"), path=path, headers={"Content-Type": kind})
                assert (status, answer["error"]["code"]) == (415, "content_type_refused")
            assert w.engines["small"].hits == 0

    play(story())


def test_a_page_has_to_say_that_it_sends_json(world: Make, play: Play) -> None:
    async def story() -> None:
        async with world({"small": {}}) as w:
            for kind in ("application/octet-stream", "application/x-www-form-urlencoded"):
                page = {"Origin": "http://127.0.0.1:3000", "Content-Type": kind}
                assert (await w.post(talk(HELLO, model="small"), headers=page))[0] == 415
            curl = {"Content-Type": "application/x-www-form-urlencoded"}
            assert (await w.post(talk(HELLO, model="small"), headers=curl))[0] == 200
            page["Content-Type"] = "application/json"
            assert (await w.post(talk(HELLO, model="small"), headers=page))[0] == 200

    play(story())
