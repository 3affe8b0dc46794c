"""Keys of clients: who asks, for what, and how much."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageworks.contract import ClientKey, Secret
from imageworks.runtime.clients import Client, Clients, client
from imageworks.runtime.errors import ApiError

TODAY = date(2027, 6, 30)


def one(name: str = "phone", value: str = "correct", **more: Any) -> Client:
    return client(ClientKey(name, Secret(name.upper(), f"IMAGEWORKS_{name}"), **more), value)


def refusal(call: Any, *arguments: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        call(*arguments)
    return caught.value


def test_without_keys_nobody_is_asked_for_one() -> None:
    clients = Clients(())
    assert not clients.required
    assert clients.identify(None, TODAY) is None
    clients.begin(None, 0.0, TODAY)
    clients.end(None, 5)


def test_a_key_whose_value_is_missing_still_locks_the_door() -> None:
    clients = Clients((), {"phone": "not set"})
    assert refusal(clients.identify, None, TODAY).status == 401


@pytest.mark.parametrize(
    ("shown", "code"),
    [(None, "key_missing"), ("", "key_missing"), ("Basic correct", "key_missing"), ("Bearer", "key_missing"),
     ("Bearer wrong", "key_unknown"), ("Bearer correc", "key_unknown"), ("Bearer correctt", "key_unknown"), ("Bearer ", "key_unknown")],
)  # fmt: skip
def test_only_the_whole_key_opens(shown: str | None, code: str) -> None:
    error = refusal(Clients((one(),)).identify, shown, TODAY)
    assert (error.status, error.code) == (401, code)


@pytest.mark.parametrize("shown", ["Bearer correct", "bearer correct", "Bearer  correct "])
def test_the_right_key_is_recognised_among_others(shown: str) -> None:
    found = Clients((one("a", "x"), one(), one("b", "y"))).identify(shown, TODAY)
    assert found is not None
    assert found.name == "phone"


@given(st.text(max_size=40))
def test_no_other_text_opens(value: str) -> None:
    if value.strip() != "correct":
        assert refusal(Clients((one(),)).identify, f"Bearer {value}", TODAY).status == 401


def test_values_are_not_kept() -> None:
    found = one(value="very-secret-value")
    assert "very-secret-value" not in repr(found)
    assert b"very-secret-value" not in found.digest


def test_a_key_works_through_its_last_day() -> None:
    clients = Clients((one(expires="2027-06-30"),))
    assert clients.identify("Bearer correct", TODAY) is not None
    assert refusal(clients.identify, "Bearer correct", TODAY + timedelta(1)).code == "key_expired"


def test_roles_and_models_are_in_scope_or_not() -> None:
    narrow = one(roles=("caption",), models=("qwen",))
    narrow.check("caption", ["anything"])
    narrow.check(None, ["qwen"])
    error = refusal(narrow.check, "judge", ["qwen"])
    assert (error.status, error.code, error.hint) == (403, "out_of_scope", "it may ask for `caption`")
    assert refusal(narrow.check, None, ["llama"]).message == "key `phone` may not ask for model `llama`"
    one().check("judge", ["llama"])
    one().check(None, ["llama"])


def test_only_an_admin_changes_what_runs() -> None:
    one(admin=True).check_admin()
    assert refusal(one().check_admin).status == 403


def test_so_many_requests_at_once() -> None:
    clients, phone = Clients((one(concurrency=2),)), one(concurrency=2)
    clients.begin(phone, 0.0, TODAY)
    clients.begin(phone, 0.0, TODAY)
    error = refusal(clients.begin, phone, 0.0, TODAY)
    assert (error.status, error.message) == (429, "key `phone`: 2 requests at once, 2 allowed")
    clients.end(phone, None)
    clients.begin(phone, 0.0, TODAY)


def test_so_many_requests_a_minute_and_when_to_come_back() -> None:
    phone = one(rate_per_minute=30.0)
    clients = Clients((phone,))
    for _ in range(30):
        clients.begin(phone, 100.0, TODAY)
    error = refusal(clients.begin, phone, 100.0, TODAY)
    assert error.retry_after_s == pytest.approx(2.0)
    clients.begin(phone, 102.1, TODAY)
    assert refusal(clients.begin, phone, 102.2, TODAY).status == 429


def test_so_many_tokens_a_day() -> None:
    phone = one(tokens_per_day=100)
    clients = Clients((phone,))
    clients.begin(phone, 0.0, TODAY)
    clients.end(phone, 100)
    assert refusal(clients.begin, phone, 1.0, TODAY).message == "key `phone`: 100 tokens today, 100 allowed"
    clients.begin(phone, 2.0, TODAY + timedelta(1))


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=60), st.integers(1, 5), st.integers(1, 60))
def test_never_more_at_once_or_faster_than_allowed(steps: list[tuple[float, bool]], most: int, rate: int) -> None:
    phone = one(concurrency=most, rate_per_minute=float(rate))
    clients = Clients((phone,))
    now, running, begun = 0.0, 0, []
    for wait_s, ends in steps:
        now += wait_s
        if ends and running:
            clients.end(phone, 1)
            running -= 1
        else:
            try:
                clients.begin(phone, now, TODAY)
            except ApiError:
                continue
            running += 1
            begun.append(now)
        assert running <= most
    assert len(begun) <= rate + now * rate / 60 + 1e-6
