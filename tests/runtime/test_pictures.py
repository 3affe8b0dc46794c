"""Images judged by their first bytes, and made smaller in a process of their own."""

from __future__ import annotations

import asyncio
import base64
import errno
import io
import multiprocessing
import os
import signal
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imageworks.contract import ImageRule
from imageworks.runtime import shrink as shrinking
from imageworks.runtime.errors import ApiError
from imageworks.runtime.pictures import Picture, look, sniff
from imageworks.runtime.shrink import Shrinker, shrink

FORMATS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP"}


def picture(name: str, width: int, height: int, **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(out, FORMATS[name], **options)
    return out.getvalue()


def url(data: bytes, kind: str = "image/png") -> bytes:
    return b"data:" + kind.encode() + b";base64," + base64.b64encode(data)


@given(st.sampled_from(sorted(FORMATS)), st.integers(1, 300), st.integers(1, 300))
def test_every_format_tells_its_size_as_a_decoder_reads_it(name: str, width: int, height: int) -> None:
    assert sniff(picture(name, width, height)) == Picture(name, width, height)


@pytest.mark.parametrize("options", [{"lossless": True}, {"lossless": False}, {"exif": b"Exif\x00\x00" + b"x" * 90}])
def test_the_three_kinds_of_webp(options: dict[str, object]) -> None:
    assert sniff(picture("webp", 33, 7, **options)) == Picture("webp", 33, 7)


def test_a_jpeg_with_much_before_its_size() -> None:
    plain = picture("jpeg", 40, 30)
    padded = plain[:2] + b"".join(b"\xff\xe2" + struct.pack(">H", 60_002) + bytes(60_000) for _ in range(3)) + plain[2:]
    assert look(url(padded), ImageRule()).picture == Picture("jpeg", 40, 30)


@given(st.binary(max_size=200))
def test_any_bytes_are_judged_or_refused(data: bytes) -> None:
    for text in (data, url(data), url(b"\xff\xd8" + data), url(b"RIFF\0\0\0\0WEBP" + data)):
        refused = None
        try:  # anything but ApiError is a crash
            look(text, ImageRule())
        except ApiError as error:
            refused = error.status
        assert refused in (None, 400, 413)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header says so many pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(
    ("data", "code", "status"),
    [
        (url(b""), "invalid_image", 400),
        (url(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"), "invalid_image", 400),
        (url(b"II*\0" + bytes(40), "image/tiff"), "invalid_image", 400),
        (b"data:image/png,plain", "invalid_image", 400),
        (b"data:image/png;base64,%%%", "invalid_image", 400),
        (url(picture("gif", 2, 2)), "image_format", 400),
        (url(bomb(60_000, 60_000)), "image_too_large", 400),
        (url(bomb(0, 5)), "image_too_large", 400),
        (url(bytes(2 << 20)), "image_too_large", 413),
    ],
)
def test_what_is_no_picture_for_a_model_is_refused_before_it_is_decoded(data: bytes, code: str, status: int) -> None:
    with pytest.raises(ApiError) as caught:
        look(data, ImageRule(max_bytes=1 << 20))
    assert (caught.value.code, caught.value.status) == (code, status)


@pytest.mark.parametrize(("edge", "wanted"), [(None, False), (100, False), (99, True)])
def test_only_a_longer_edge_needs_work(edge: int | None, *, wanted: bool) -> None:
    rule = ImageRule(max_edge_px=edge)
    assert look(url(picture("png", 100, 20)), rule).needs_shrinking(rule) is wanted


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_shrunk_picture_keeps_its_proportions(name: str) -> None:
    small = shrink(picture(name, 400, 200), 100, 85)
    assert sniff(small) == Picture("jpeg", 100, 50)


def test_the_orientation_of_the_file_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert sniff(shrink(picture("jpeg", 400, 200, exif=exif), 100, 85)) == Picture("jpeg", 50, 100)


def test_what_is_clear_becomes_white() -> None:
    out = io.BytesIO()
    Image.new("RGBA", (50, 50), (0, 0, 0, 0)).save(out, "PNG")
    with Image.open(io.BytesIO(shrink(out.getvalue(), 10, 90))) as image:
        assert image.getpixel((5, 5)) == (255, 255, 255)


def test_quality_is_a_trade_of_bytes() -> None:
    out = io.BytesIO()
    Image.effect_noise((200, 200), 90).save(out, "PNG")
    assert len(shrink(out.getvalue(), 100, 30)) < len(shrink(out.getvalue(), 100, 95))


def test_the_worker_shrinks_refuses_and_outlives_what_breaks_it() -> None:
    async def scene() -> None:
        one = Shrinker()
        try:
            assert sniff(await one.shrink(picture("png", 400, 200), 100, 85)) == Picture("jpeg", 100, 50)
            out = io.BytesIO()
            Image.effect_noise((200, 200), 90).save(out, "PNG")
            broken = out.getvalue()[:9000] + bytes(200)
            with pytest.raises(ApiError, match="cannot be decoded"):
                await one.shrink(broken, 100, 85)
            assert one._pool is not None
            for process in list(one._pool._processes.values()):
                process.kill()
            with pytest.raises(ApiError, match="breaks or blocks"):
                await one.shrink(picture("png", 9, 9), 5, 85)
            assert sniff(await one.shrink(picture("png", 400, 200), 50, 85)) == Picture("jpeg", 50, 25)
        finally:
            one.close()

    asyncio.run(scene())


def test_a_worker_that_died_between_two_pictures_costs_one_refusal() -> None:
    async def scene() -> None:
        one = Shrinker()
        try:
            await one.shrink(picture("png", 9, 9), 5, 85)
            assert one._pool is not None
            for process in list(one._pool._processes.values()):
                process.kill()
            while not one._pool._broken:  # noqa: ASYNC110 - a thread notices it
                await asyncio.sleep(0.01)
            with pytest.raises(ApiError, match="breaks or blocks"):
                await one.shrink(picture("png", 9, 9), 5, 85)
            assert sniff(await one.shrink(picture("png", 400, 200), 50, 85)) == Picture("jpeg", 50, 25)
        finally:
            one.close()

    asyncio.run(scene())


def test_where_no_worker_can_be_started_a_later_try_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        one = Shrinker()
        try:
            with monkeypatch.context() as patch:
                patch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
                with pytest.raises(ApiError, match="no process can be started") as caught:
                    await one.shrink(picture("png", 9, 9), 5, 85)
            assert (caught.value.status, caught.value.retry) == (503, True)
            assert sniff(await one.shrink(picture("png", 400, 200), 50, 85)) == Picture("jpeg", 50, 25)
        finally:
            one.close()

    def refuse(_process: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    asyncio.run(scene())


def test_more_memory_than_the_worker_may_have_is_a_refusal() -> None:
    async def scene() -> None:
        one = Shrinker()
        try:
            with pytest.raises(ApiError, match="cannot be decoded"):
                await one.shrink(_flat_png(20_000, 20_000), 100, 85)
        finally:
            one.close()

    asyncio.run(scene())


def _flat_png(width: int, height: int) -> bytes:
    """Few bytes that decode to many pixels."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(b"\0" + bytes(width * 3)) for _ in range(height)) + packer.flush()
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_pictures_wait_for_their_turn_and_one_that_breaks_the_worker_takes_no_other_with_it() -> None:
    async def scene() -> None:
        one = Shrinker()
        try:
            await one.shrink(picture("png", 9, 9), 5, 85)
            assert one._pool is not None
            (process,) = one._pool._processes.values()
            os.kill(process.pid or 0, signal.SIGSTOP)
            first = asyncio.create_task(one.shrink(picture("png", 9, 9), 5, 85))
            others = [asyncio.create_task(one.shrink(picture("png", 400, 200), 100, 85)) for _ in range(3)]
            left = asyncio.create_task(one.shrink(picture("png", 9, 9), 5, 85))
            while not one._turn.locked() or not one._pool._pending_work_items:  # noqa: ASYNC110
                await asyncio.sleep(0)
            left.cancel()
            process.kill()
            with pytest.raises(ApiError, match="breaks or blocks"):
                await first
            assert [sniff(each) for each in await asyncio.gather(*others)] == [Picture("jpeg", 100, 50)] * 3
            assert left.cancelled()
        finally:
            one.close()

    asyncio.run(scene())


def test_who_leaves_while_his_picture_is_decoded_blocks_nobody() -> None:
    async def scene() -> None:
        one = Shrinker()
        try:
            await one.shrink(picture("png", 9, 9), 5, 85)
            assert one._pool is not None
            (process,) = one._pool._processes.values()
            os.kill(process.pid or 0, signal.SIGSTOP)
            gone = asyncio.create_task(one.shrink(picture("png", 9, 9), 5, 85))
            while not one._pool._pending_work_items:  # noqa: ASYNC110
                await asyncio.sleep(0)
            gone.cancel()
            assert sniff(await one.shrink(picture("png", 400, 200), 50, 85)) == Picture("jpeg", 50, 25)
        finally:
            one.close()

    asyncio.run(scene())


def test_a_picture_whose_turn_does_not_come_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        one = Shrinker()
        async with one._turn:
            with pytest.raises(ApiError, match="its turn did not come") as caught:
                await one.shrink(b"", 5, 85)
        assert (caught.value.status, caught.value.retry) == (503, True)

    monkeypatch.setattr(shrinking, "QUEUE_S", 0.01)
    asyncio.run(scene())
