"""Making an image smaller, in a process of its own.

Owns the only place where a client's image is decoded: a worker with bounds on memory and processor time, so that a
picture made to break a decoder takes down the worker and its own request, nothing else. The file's orientation is
applied, so that the picture stands as it was taken. Pillow is imported in the worker only.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import multiprocessing
import resource
from concurrent.futures.process import BrokenProcessPool

from imageworks.runtime.errors import ApiError

MEMORY_BYTES = 2 << 30
PROCESSOR_S = 20
WAIT_S, QUEUE_S = 30.0, 60.0
"""For one image, and for those before it."""
JOBS_A_LIFE = 200
"""Then the worker is replaced, and its processor time begins anew."""


class Shrinker:
    """One worker, started by the first image that needs it. Close it in the end."""

    def __init__(self) -> None:
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None
        self._turn = asyncio.Lock()

    async def shrink(self, data: bytes, max_edge: int, quality: int) -> bytes:
        """`data` as a JPEG with a long edge of `max_edge`.

        Raises ApiError: 400 for what no decoder reads in time, 503 where too many images are before it.
        """
        try:
            async with asyncio.timeout(QUEUE_S):
                await self._turn.acquire()
        except TimeoutError:
            raise _overloaded(f"its turn did not come in {QUEUE_S:g} s") from None
        try:  # one at a time: what breaks the worker is then the picture that it had
            return await self._alone(data, max_edge, quality)
        finally:
            self._turn.release()

    async def _alone(self, data: bytes, max_edge: int, quality: int) -> bytes:
        pool = self._pool = self._pool or _worker()
        try:
            job = pool.submit(_attempt, data, max_edge, quality)
            return await asyncio.wait_for(asyncio.wrap_future(job), WAIT_S)
        except asyncio.CancelledError:
            self.close()  # the worker would go on with it, and the next picture would wait for that
            raise
        except (BrokenProcessPool, TimeoutError):
            self.close()
            raise _unreadable("it breaks or blocks the decoder") from None
        except BlockingIOError:  # of ours: what the worker raises is a plain OSError
            raise _overloaded("no process can be started for it now") from None
        except OSError as error:
            raise _unreadable(str(error)) from None

    def close(self) -> None:
        """End the worker."""
        if self._pool is not None:
            for process in (self._pool._processes or {}).values():  # noqa: SLF001 - a blocked worker does not end by itself
                process.kill()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def _overloaded(reason: str) -> ApiError:
    message = f"an image must be made smaller, and {reason}"
    return ApiError(503, "overloaded", message, retry=True, retry_after_s=1.0)


def _unreadable(reason: str) -> ApiError:
    return ApiError(400, "invalid_image", f"an image cannot be decoded: {reason}", param="messages")


def _worker() -> concurrent.futures.ProcessPoolExecutor:
    # spawned: a fork would carry the proxy's sockets
    return concurrent.futures.ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), initializer=_bound, max_tasks_per_child=JOBS_A_LIFE
    )


def _bound() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_S * JOBS_A_LIFE, PROCESSOR_S * JOBS_A_LIFE))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _attempt(data: bytes, max_edge: int, quality: int) -> bytes:
    try:
        return shrink(data, max_edge, quality)
    except Exception as error:
        raise OSError(str(error) or type(error).__name__) from None


def shrink(data: bytes, max_edge: int, quality: int) -> bytes:
    """`data` as a JPEG with a long edge of at most `max_edge`, standing upright. Raises what Pillow raises for no image."""
    from PIL import Image, ImageOps  # noqa: PLC0415 - only the worker needs it

    Image.MAX_IMAGE_PIXELS = 100_000_000
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP", "GIF", "BMP")) as image:
        image.draft("RGB", (max_edge, max_edge))  # a JPEG is decoded at a fraction of its size
        upright = ImageOps.exif_transpose(image)
        upright.thumbnail((max_edge, max_edge), Image.Resampling.LANCZOS)
        if upright.mode in ("RGBA", "LA", "P", "PA"):
            clear = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
        out = io.BytesIO()
        upright.convert("RGB").save(out, "JPEG", quality=quality)
    return out.getvalue()
