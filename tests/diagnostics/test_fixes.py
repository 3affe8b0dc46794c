from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imageworks.diagnostics.fixes import edited, repair
from imageworks.diagnostics.model import Applicability, Diagnostic, Edit, Fix, Label
from imageworks.source.text import SourceFile

TEXT = "aa bb cc\n"
SOURCE = SourceFile("a.yaml", TEXT)


def finding(*edits: tuple[int, int, str], safe: bool = True, source: SourceFile = SOURCE) -> Diagnostic:
    made = tuple(Edit(source.span(start, end), text) for start, end, text in edits)
    weight = Applicability.SAFE if safe else Applicability.CHOOSE
    return Diagnostic("IW201", "x", Label(made[0].span), fixes=(Fix("f", weight, made),))


def test_edits_are_made_from_the_back() -> None:
    found = [finding((0, 2, "longer")), finding((3, 5, "")), finding((6, 8, "c"))]
    assert repair(found, {"a.yaml": TEXT})["a.yaml"].text == "longer  c\n"


def test_only_safe_fixes_with_edits_count() -> None:
    wordy = Diagnostic("IW201", "x", None, fixes=(Fix("do it", Applicability.SAFE),))
    assert repair([finding((0, 2, "z"), safe=False), wordy], {"a.yaml": TEXT}) == {}


def test_what_stands_in_no_file_of_the_user_is_left_alone() -> None:
    built_in = finding((0, 2, "z"), source=SourceFile("<built-in>", TEXT))
    other = finding((0, 2, "z"), source=SourceFile("b.yaml", TEXT))
    assert repair([built_in, other], {"a.yaml": TEXT, "<built-in>": TEXT}) == {}


def test_edits_that_touch_each_other_wait_for_another_round() -> None:
    first, second = finding((0, 5, "z")), finding((3, 8, "y"))
    change = repair([first, second], {"a.yaml": TEXT})["a.yaml"]
    assert change.text == "z cc\n"
    assert change.fixed == (first,)


@given(st.text(max_size=40), st.lists(st.tuples(st.integers(0, 4), st.text(max_size=3)), max_size=5))
def test_everything_between_the_edits_stays(text: str, changes: list[tuple[int, str]]) -> None:
    step = max(1, len(text) // 5)
    spots = {index * step: new for index, new in changes if (index + 1) * step <= len(text)}
    source = SourceFile("a.yaml", text)
    made = edited(text, [Edit(source.span(at, at + 1), new) for at, new in spots.items()])
    assert made == "".join(spots.get(at, char) for at, char in enumerate(text))
