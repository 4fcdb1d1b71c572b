"""A service that is farther away than it is: a TCP relay that delivers everything later."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIECE_BYTES = 1 << 16


@contextmanager
def relay(address: str, one_way_s: float) -> Iterator[str]:
    """Relays connections to a service; yields the address to use in its place.

    Args:
        address: `host:port` of the service.
        one_way_s: How much later bytes arrive, in either direction. Order and speed stay as they are.
    """
    host, _, port = address.rpartition(":")
    loop = asyncio.new_event_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def deliver(pieces: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not piece:
                writer.close()
                return
            writer.write(piece)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivering = loop.create_task(deliver(pieces, writer))
        tasks.add(delivering)
        with suppress(ConnectionError):
            while piece := await reader.read(_PIECE_BYTES):
                pieces.put_nowait((loop.time() + one_way_s, piece))
        pieces.put_nowait((loop.time() + one_way_s, b""))
        with suppress(ConnectionError):
            await delivering

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        for task in (loop.create_task(pump(reader, back)), loop.create_task(pump(there, writer))):
            tasks.add(task)

    server = loop.run_until_complete(asyncio.start_server(connected, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, name="relay", daemon=True)
    thread.start()
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname()[:2])
    finally:
        asyncio.run_coroutine_threadsafe(_end(server, tasks), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(server: asyncio.Server, tasks: set[asyncio.Task[None]]) -> None:
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
