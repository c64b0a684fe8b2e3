"""A loaded bundle as a web application: one image in, one file out, with limits, health and metrics.

    POST /predict?format=mask   the image as body; answers the mask, overlay, JSON …
    GET /healthz                200 while the process lives
    GET /readyz                 200 when the model answers
    GET /metrics                Prometheus' text format
    GET /                       what the bundle reads, and the formats

FastAPI documents it under /docs.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from anyio import fail_after
from fastapi import FastAPI, HTTPException, Request, Response
from starlette.requests import ClientDisconnect

from deploy.bundle.manifest import Manifest
from deploy.errors import UserError
from deploy.files.images import count_pixels
from deploy.files.received import written
from deploy.inference.image_files import predict_file
from deploy.serve.metrics import Metrics
from deploy.tasks.task import Model, Predicted, Task
from deploy.text import shown

MEDIA = {
    ".png": "image/png",
    ".json": "application/json",
    ".geojson": "application/geo+json",
    ".csv": "text/csv",
    ".npy": "application/octet-stream",
    ".npz": "application/octet-stream",
}

WRAPPED = ("multipart/", "application/json")
"""Media types of bodies that are no image but may hold one, such as the form that `curl -F` sends."""
CLIENT_GONE = 499
"""Status of a request whose client has gone before it was read; the usual number, though of no standard."""


@dataclass(frozen=True)
class Limits:
    """What a request may take."""

    megabytes: float = 20.0
    """Largest body."""
    seconds: float = 10.0
    """Longest time for a body to arrive."""
    workers: int = 1
    """Images predicted at once; others wait. The engine uses several cores anyway."""
    waiting: int = 32
    """Images that may wait; more are refused at once. Bodies that arrive may take the memory of as many."""
    pixels: int = 2**25
    """Most pixels of an image. A small file may hold very many, and memory is needed for all of them."""


def make_app(model: Model, task: Task, manifest: Manifest, limits: Limits) -> FastAPI:
    """The application; `model` must be safe to call from `limits.workers` threads, as those of `deploy.load` are."""
    service = Service(model, task, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.threads.shutdown()

    app = FastAPI(title=f"edgedistill: {manifest.name}", version="1", lifespan=lifespan)

    @app.get("/")
    def about() -> dict[str, Any]:
        spec = manifest.input
        return {
            "bundle": manifest.name,
            "digest": manifest.digest,
            "task": manifest.task,
            "engine": model.engine.name,
            "input": {"height": spec.height, "width": spec.width, "channels": list(spec.channels)},
            "classes": [info.name for info in manifest.classes],
            "formats": list(task.formats),
        }

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"status": "ready", "engine": model.engine.name}

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(*service.metrics.text())

    @app.post("/predict")
    async def predict(request: Request, format: str = task.usual[0]) -> Response:
        return await service.answer(request, format)

    return app


class Service:
    """Answers requests within limits."""

    def __init__(self, model: Model, task: Task, limits: Limits) -> None:
        self._model, self._task, self._limits = model, task, limits
        self.threads = ThreadPoolExecutor(limits.workers, "edgedistill-serve")
        self.metrics = Metrics()
        self._places = limits.workers + limits.waiting
        self._inside, self._arriving = 0, 0
        """Images that wait or are predicted, and bytes of bodies that arrive: slow clients take no places."""

    async def answer(self, request: Request, name: str) -> Response:
        """Predict the image in a request's body, and count it."""
        began = time.perf_counter()
        try:
            response = await self._answer(request, name)
        except HTTPException as error:
            self.metrics.count(error.status_code)
            raise
        except ClientDisconnect:
            self.metrics.count(CLIENT_GONE)
            return Response(status_code=CLIENT_GONE)  # nobody reads it
        except Exception:
            self.metrics.count(500)
            raise
        self.metrics.count(200, time.perf_counter() - began)
        return response

    async def _answer(self, request: Request, name: str) -> Response:
        if name not in self._task.formats:
            raise HTTPException(422, f"no format {shown(name)}; there are {', '.join(self._task.formats)}")
        self._require_place()
        body = await self._body(request)
        self._require_place()
        self._inside += 1
        try:
            loop = asyncio.get_running_loop()
            content, kind = await loop.run_in_executor(self.threads, self._predict, body, name)
        except MemoryError:
            raise HTTPException(413, "the memory is too small for this image; send a smaller one") from None
        except UserError as error:
            raise HTTPException(422, shown(str(error))) from None
        finally:
            self._inside -= 1
        return Response(content, media_type=kind)

    def _require_place(self) -> None:
        if self._inside >= self._places:
            raise _busy()

    async def _body(self, request: Request) -> bytes:
        """The body, as far as it arrives in time and is not too large."""
        most = int(self._limits.megabytes * 1e6)
        too_large = HTTPException(413, f"the image is larger than {self._limits.megabytes:g} MB")
        if request.headers.get("content-type", "").lower().startswith(WRAPPED):
            raise HTTPException(415, "send the file itself as the body: curl --data-binary @photo.png")
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > most:
            raise too_large
        body = bytearray()
        try:
            with fail_after(self._limits.seconds):
                async for part in request.stream():
                    if len(body) + len(part) > most:
                        raise too_large
                    if self._arriving + len(part) > self._places * most:
                        raise _busy()
                    body += part
                    self._arriving += len(part)
        except TimeoutError:
            raise HTTPException(408, f"the image did not arrive within {self._limits.seconds:g} s") from None
        finally:
            self._arriving -= len(body)
        if not body:
            raise HTTPException(422, "the body is empty; send an image file as the body of the request")
        return bytes(body)

    def _check_pixels(self, path: Path) -> None:
        """Refuse an image of too many pixels before any is decoded."""
        pixels = count_pixels(path)
        if pixels > self._limits.pixels:
            raise HTTPException(413, f"the image has {pixels:,} pixels, more than {self._limits.pixels:,}")

    def _predict(self, body: bytes, name: str) -> tuple[bytes, str]:
        """Read, predict and write one image in a folder of its own."""
        with TemporaryDirectory(prefix="edgedistill-") as scratch:
            folder = Path(scratch)
            path = written(body, folder, "image")
            try:
                self._check_pixels(path)
                image, result = predict_file(self._model, path)
            except UserError as error:  # the caller knows nothing of this machine's files
                _raise_own(error, MemoryError)
                raise UserError(str(error).replace(f"{path}: ", "")) from error
            source = None if name == "mask" else path  # over HTTP, masks are PNG whatever the image was
            predicted = Predicted(folder / "result", image, result, self._model.classes, source=source)
            try:
                made = self._task.formats[name](predicted)
            except UserError as error:
                _raise_own(error, OSError)
                raise UserError(str(error).replace(f"{path}: ", "")) from error
            return made.read_bytes(), MEDIA[made.suffix]


def _busy() -> HTTPException:
    return HTTPException(503, "too many requests are waiting", {"Retry-After": "1"})


def _raise_own(error: UserError, kind: type[Exception]) -> None:
    """Raise what led to an error, if that is the fault of this machine and not of the image."""
    if isinstance(error.__cause__, kind):
        raise error.__cause__ from None
