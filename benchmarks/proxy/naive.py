"""The proxy that anybody writes in half an hour: aiohttp's server and client, parse, forward, stream. `naive.py PORT UPSTREAM`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

PORT, UPSTREAM = int(sys.argv[1]), sys.argv[2]
SESSION = web.AppKey("session", ClientSession)


async def chat(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    async with request.app[SESSION].post(UPSTREAM + request.path, json=body) as upstream:
        kind = {"Content-Type": upstream.headers.get("Content-Type", "application/json")}
        if not body.get("stream"):
            return web.Response(body=await upstream.read(), status=upstream.status, headers=kind)
        response = web.StreamResponse(status=upstream.status, headers=kind)
        await response.prepare(request)
        async for chunk in upstream.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


async def session(app: web.Application) -> AsyncIterator[None]:
    app[SESSION] = ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(total=600))
    yield
    await app[SESSION].close()


if __name__ == "__main__":
    app = web.Application(client_max_size=64 << 20)
    app.cleanup_ctx.append(session)
    app.router.add_post("/v1/chat/completions", chat)
    web.run_app(app, host="127.0.0.1", port=PORT, access_log=None, print=None)
