"""Images of a request, judged by their first bytes: format, size in pixels, and whether a role takes them as they are.

Owns reading of `data:` URLs without decoding the picture (a header of some hundred bytes tells format and edges), and
the decision pass, shrink or refuse. Pure; the shrinking itself is done by `shrink` in a process of its own.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

from imageworks.contract import ImageRule
from imageworks.runtime.errors import ApiError

HEAD = 1 << 16
"""Characters of base64 that are looked at first: EXIF data and colour profiles may stand before a JPEG's size."""
MOST_PIXELS = 100_000_000
"""More is refused before anything decodes it: 100 megapixels are 300 MB of memory."""
_DATA_URL = re.compile(rb"data:([a-z0-9.+/-]*)((?:;[a-z0-9=.+-]*)*),", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Picture:
    """What the header says."""

    format: str
    width: int
    height: int

    @property
    def edge(self) -> int:
        """The long edge in pixels."""
        return max(self.width, self.height)


@dataclass(frozen=True, slots=True)
class Seen:
    """An image of a request. `bytes` is its size before base64."""

    picture: Picture
    bytes: int

    def needs_shrinking(self, rule: ImageRule) -> bool:
        """Is its edge longer than the role takes?"""
        return rule.max_edge_px is not None and self.picture.edge > rule.max_edge_px


def look(url: bytes, rule: ImageRule, rest: bytes | memoryview = b"") -> Seen:
    """Judge one `data:` URL, of which `rest` is the end. Raises ApiError 400 or 413 with what is wrong and what would do."""
    match = _DATA_URL.match(url[:256])
    if match is None or not match[2].lower().endswith(b";base64"):
        raise _refused("invalid_image", "an image is sent as data:image/jpeg;base64,…", None)
    body = url[match.end() :]
    size = (len(body) + len(rest)) * 3 // 4
    if size > rule.max_bytes:
        hint = f"send a smaller file: at most {rule.max_bytes >> 20} MiB"
        raise _refused("image_too_large", f"an image has {size / (1 << 20):.1f} MiB", hint, 413)
    head = body + bytes(rest[:HEAD])
    picture = sniff(_decoded(head)) or (sniff(_decoded(body + bytes(rest))) if len(rest) > HEAD else None)
    if picture is None:
        raise _refused("invalid_image", "an image cannot be read: no JPEG, PNG, WebP, GIF or BMP header", None)
    if picture.format not in rule.formats:
        raise _refused("image_format", f"{picture.format} is not taken", f"send {', '.join(rule.formats)}")
    if not 0 < picture.width * picture.height <= MOST_PIXELS:
        raise _refused(
            "image_too_large", f"an image is {picture.width} x {picture.height} pixels", "send a smaller one"
        )
    return Seen(picture, size)


def _refused(code: str, message: str, hint: str | None, status: int = 400) -> ApiError:
    return ApiError(status, code, message, param="messages", hint=hint)


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text[: len(text) // 4 * 4], validate=False)
    except (binascii.Error, ValueError):
        return b""


def sniff(data: bytes) -> Picture | None:
    """Format and size from a file's first bytes; None where they do not tell.

    After the PNG specification 5.2, the JPEG standard's SOF markers (T.81 B.2.2), RFC 9649 for WebP, and the headers of
    GIF89a and BMP.
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and len(data) >= 24:  # noqa: PLR2004 - a fixed header
        return Picture("png", _big(data[16:20]), _big(data[20:24]))
    if data[:2] == b"\xff\xd8":
        return _jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:  # noqa: PLR2004 - a fixed header
        return Picture("gif", _little(data[6:8]), _little(data[8:10]))
    if data[:2] == b"BM" and len(data) >= 26:  # noqa: PLR2004 - a fixed header
        height = int.from_bytes(data[22:26], "little", signed=True)  # negative: stored top down
        return Picture("bmp", _little(data[18:22]), abs(height))
    return None


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _jpeg(data: bytes) -> Picture | None:
    for marker, segment in _segments(data):
        # every SOF names the size; C4, C8 and CC are tables between them
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(segment) >= 5:  # noqa: PLR2004 - T.81 B.2.2
            return Picture("jpeg", _big(segment[3:5]), _big(segment[1:3]))
    return None


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:  # noqa: PLR2004 - the marker's first byte
        marker = data[place + 1]
        if marker == 0xFF:  # noqa: PLR2004 - a fill byte
            place += 1
            continue
        length = _big(data[place + 2 : place + 4])
        yield marker, data[place + 4 : place + 2 + length]
        place += 2 + max(length, 2)


def _webp(data: bytes) -> Picture | None:
    kind, body = data[12:16], data[20:]
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        return Picture("webp", _little(body[6:8]) & 0x3FFF, _little(body[8:10]) & 0x3FFF)
    if kind == b"VP8L" and body[:1] == b"\x2f" and len(body) >= 5:  # noqa: PLR2004 - a fixed header
        bits = _little(body[1:5])
        return Picture("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X" and len(body) >= 10:  # noqa: PLR2004 - a fixed header
        return Picture("webp", _little(body[4:7]) + 1, _little(body[7:10]) + 1)
    return None
