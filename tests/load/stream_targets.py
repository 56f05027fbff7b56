"""The common tutorial's broadcast, for `stream_bench`: a list of sockets and a loop over it.

`python stream_targets.py` binds a free port, prints it on standard error and serves until SIGTERM.
"""

import json
import logging
import socket
import sys

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()


class ConnectionManager:
    """As the tutorial has it."""

    def __init__(self) -> None:
        self.active_connections: list[WebSocket] = []

    async def connect(self, websocket: WebSocket) -> None:
        """Take a client in."""
        await websocket.accept()
        self.active_connections.append(websocket)

    def disconnect(self, websocket: WebSocket) -> None:
        """Let a client go."""
        self.active_connections.remove(websocket)

    async def broadcast(self, message: str) -> None:
        """Send a message to all, one after the other."""
        for connection in self.active_connections:
            await connection.send_text(message)


manager = ConnectionManager()


@app.websocket("/v1/stream")
async def stream(websocket: WebSocket) -> None:
    """Hold a client."""
    await manager.connect(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        manager.disconnect(websocket)


@app.post("/v1/sensors/{sensor}/readings", status_code=202)
async def publish(sensor: str, body: dict) -> dict:
    """Broadcast readings."""
    for number, reading in enumerate(body["readings"]):
        data = {"sensor_id": sensor, **reading}
        message = {"type": "event", "id": f"1767225600000-{number}", "topic": f"sensors/{sensor}"}
        told = {**message, "event": "sensor.reading", "time": reading["at"], "data": data}
        await manager.broadcast(json.dumps(told))
    return {"accepted": len(body["readings"])}


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], file=sys.stderr, flush=True)
    logging.disable(logging.CRITICAL)
    config = uvicorn.Config(app, log_config=None, access_log=False)
    uvicorn.Server(config).run([listener])
