"""The web page and the JSON API as an ASGI application."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from pydantic import BaseModel, ConfigDict, Field

from tutelage._version import __version__
from tutelage.errors import RecipeError
from tutelage.server.metrics import Metrics
from tutelage.server.middleware import LOCAL, RequestGuard
from tutelage.server.models import Served
from tutelage.server.uploads import KNOWN, BodyReader, Limits, Refused
from tutelage.server.worker_pool import WorkerPool

_HERE = Path(__file__).parent
_PAGE = {"": "text/html", "page.css": "text/css", "page.js": "text/javascript"}


class Class(BaseModel):
    """A class and its probability."""

    name: str
    probability: float


class ModelAnswer(BaseModel):
    """The prediction of one model."""

    name: str
    precision: str = Field(description="float32 or int8")
    file: str
    bytes: int
    milliseconds: float = Field(description="Time of the model, without decoding and waiting.")
    classes: list[Class] = Field(description="Most likely first.")


class Seen(BaseModel):
    """The image as resized for models of one input shape."""

    width: int
    height: int
    png: str = Field(description="A data: URL.")


class PictureAnswer(BaseModel):
    """The uploaded image, upright."""

    width: int
    height: int
    seen: list[Seen] | None = Field(None, description="With preview=true.")


class Prediction(BaseModel):
    """The predictions of all models."""

    models: list[ModelAnswer]
    picture: PictureAnswer


class ModelFacts(BaseModel):
    """A model, as described by its file."""

    title: str
    name: str
    precision: str
    file: str
    bytes: int
    shape: list[int] = Field(description="Height, width and channels of its images.")
    parameters: int | None
    macs: int | None = Field(description="Multiply-accumulate operations for one image.")
    data: str | None = Field(description="Name of its training data.")
    figures: dict[str, float] = Field(description="Metrics on the test set of its data.")


class Allowed(BaseModel):
    """Limits on an image."""

    bytes: int
    pixels: int


class Models(BaseModel):
    """All models, their classes and the limits."""

    models: list[ModelFacts]
    classes: list[str]
    limits: Allowed
    examples: int = Field(description="Number of example images, from examples/0.png on.")


class Health(BaseModel):
    """The server's status."""

    status: str
    version: str


class Problem(BaseModel):
    """Why a request was refused."""

    error: str


class Choice(BaseModel):
    """The query parameters of a request; others are refused."""

    model_config = ConfigDict(extra="forbid")
    top: int | None = Field(None, ge=1, description="Number of classes to return.  [default: 3]")
    preview: bool = Field(False, description="Include the image as the models see it.")


_REFUSALS = {
    400: "The image is missing or incomplete, or the Host is not this server's.",
    403: "The request comes from a page of another site.",
    408: "The upload takes too long.",
    413: "The image is too large, in bytes or pixels.",
    415: "It is not an image of a known format.",
    422: "The image is damaged, or the query is invalid.",
    503: "Too many images are waiting; see Retry-After.",
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "description": f"The bytes of an image file: {KNOWN}.",
        "required": True,
        "content": {"image/*": _BINARY, "application/octet-stream": _BINARY},
    }
}


def application(
    served: Served,
    threads: int = 2,
    limits: Limits = Limits(),  # noqa: B008 (it is frozen)
    hosts: frozenset[str] | None = LOCAL,
) -> RequestGuard:
    """Create the application.

    Args:
        served: the models, from `models.load`.
        threads: number of images classified at once, at least 1.
        limits: limits on image size and queue length.
        hosts: host names that requests may use, None for any.

    Returns:
        An ASGI application; close its `worker_pool` when it is no longer needed.

    Raises:
        RecipeError: if `threads` is below 1.
    """
    if threads < 1:
        raise RecipeError(f"threads: expected at least 1, found {threads}")
    metrics = Metrics()
    worker_pool = WorkerPool(served, threads, limits, metrics)
    body_reader = BodyReader(limits)
    app = FastAPI(
        title="tutelage",
        summary="Image classification by one or more exported models.",
        version=__version__,
        docs_url=None,  # these pages load external scripts
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    facts = _json(
        {
            "models": [model.describe() for model in served.models],
            "classes": served.classes,
            "limits": {"bytes": limits.bytes, "pixels": limits.pixels},
            "examples": len(served.examples),
        }
    )

    @app.post(
        "/predict",
        response_model=Prediction,
        responses={s: {"model": Problem, "description": d} for s, d in _REFUSALS.items()},
        openapi_extra=_BODY,
    )
    async def predict(request: Request, choice: Annotated[Choice, Query()]) -> Response:
        """Classify an image: the most likely classes of every model."""
        count = len(served.classes)
        top = min(3, count) if choice.top is None else choice.top
        if top > count:
            raise Refused(422, f"top: expected an integer from 1 to {count}, found {top}")
        data = await body_reader.body(request.headers, request.receive)
        answer = asyncio.ensure_future(worker_pool.classify(data, top, choice.preview))
        gone = asyncio.ensure_future(request.receive())
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not answer.done():
            answer.cancel()  # if it is waiting for a thread
            raise Refused(400, "the connection ended before the answer")
        return _reply(answer.result())

    @app.get("/models", response_model=Models)
    async def models() -> Response:
        """Describe the models."""
        return Response(facts, media_type="application/json")

    @app.get("/health", response_model=Health, responses={503: {"model": Problem}})
    async def health() -> Response:
        """Report whether the server accepts images; not while it is shutting down."""
        if worker_pool.closing:
            return _reply({"error": "the server is shutting down"}, 503)
        return _reply({"status": "ok", "version": __version__})

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}})
    async def numbers() -> Response:
        """Metrics in Prometheus format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/examples/{number}.png", include_in_schema=False)
    async def example(number: str) -> Response:
        if not number.isdecimal() or len(number) > 3 or int(number) >= len(served.examples):
            return _reply({"error": f"there are {len(served.examples)} examples, from 0 on"}, 404)
        return Response(served.examples[int(number)], media_type="image/png")

    for name, kind in _PAGE.items():
        answer = _file(_HERE / (name or "page.html"), kind)
        app.get(f"/{name}", include_in_schema=False)(answer)

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        metrics.refused.labels(str(error.status)).inc()
        # Don't wait for the rest of a slow body.
        extra = {408: {"connection": "close"}, 503: {"retry-after": "1"}}
        return _reply({"error": str(error)}, error.status, extra.get(error.status))

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        metrics.refused.labels("422").inc()
        return _reply({"error": "; ".join(map(_mistake, error.errors()))}, 422)

    async def unknown(request: Request, _: Exception) -> Response:
        path = request.url.path[:80]
        return _reply({"error": f"there is nothing at {path!r}: see /openapi.json"}, 404)

    async def wrong_method(request: Request, error: Exception) -> Response:
        text = f"{request.url.path} doesn't support {request.method[:20]}"
        return _reply({"error": text}, 405, getattr(error, "headers", None))

    async def fault(_: Request, __: Exception) -> Response:
        return _reply({"error": "internal error: see the server's log"}, 500)

    app.add_exception_handler(Exception, fault)
    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(404, unknown)
    app.add_exception_handler(405, wrong_method)
    if hosts is not None:
        # A page of another site can make a browser call a local server under its own host name (DNS
        # rebinding), but not as `localhost`.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=sorted(hosts), www_redirect=False)
    return RequestGuard(app, worker_pool, metrics)


def _file(path: Path, kind: str) -> Callable[[], Awaitable[Response]]:
    content = path.read_bytes()

    async def answer() -> Response:
        return Response(content, media_type=kind)

    return answer


def _json(content: Any) -> bytes:
    # ASCII, so that class names can be any string.
    return json.dumps(content, allow_nan=False).encode("ascii")


def _reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(_json(content), status, headers, media_type="application/json")


def _mistake(found: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in found["loc"][1:])[:80]
    if found["type"] == "extra_forbidden":
        return f"unknown {name!r} in the query: expected top or preview"
    return f"{name}: {found['msg']}, found {str(found['input'])[:80]!r}"
