"""The subprotocol: both sides name the version of frames they speak before the first of them is sent."""

from __future__ import annotations

from typing import Final

from gradwatch.frames import SUBPROTOCOL
from starlette.websockets import WebSocket

_LONGEST_REASON: Final = 120  # bytes; a close frame holds 123


async def accept(websocket: WebSocket) -> bool:
    """Accept the socket; False after closing it with both versions named, where the client speaks another."""
    offered: list[str] = websocket.scope["subprotocols"]
    if SUBPROTOCOL in offered:
        await websocket.accept(SUBPROTOCOL)
        return True
    await websocket.accept()
    reason = f"this server speaks {SUBPROTOCOL}, the client offered {', '.join(offered) or 'none'}"
    await websocket.close(1002, reason.encode()[:_LONGEST_REASON].decode(errors="ignore"))
    return False
