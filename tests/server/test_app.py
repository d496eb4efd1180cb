"""A real server process: what it answers and refuses, how it ends, its page in a browser."""

from __future__ import annotations

import asyncio
import base64
import http.client
import importlib
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from PIL import Image
from playwright.sync_api import Browser, FileChooser, Page

from tests.conftest import watched
from tutelage.errors import ModelError, RecipeError, RunError
from tutelage.runs import example_images
from tutelage.server import load, models
from tutelage.server.app import application
from tutelage.server.http_server import bind
from tutelage.server.middleware import RequestGuard

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))
serving = importlib.import_module("serving")

CLASSES = ("red", "green", "<b>blue</b>")
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8)
Weights = dict[str, tuple[np.ndarray, np.ndarray]]


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PICTURE = png(PIXELS)
# Quick to send and slow to decode: a second or so.
HEAVY = io.BytesIO()
Image.new("RGB", (4900, 4900)).save(HEAVY, "PNG")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.body)


class Running:
    """A server process, and what a client of it does."""

    def __init__(self, process: subprocess.Popen[str], line: str):
        self.process, self.line = process, line
        self.port = int(re.search(r":(\d+) ", line)[1])
        self.url = f"http://127.0.0.1:{self.port}/"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, body: bytes, query: str = "", **headers: str) -> Answer:
        return self.ask("POST", f"/predict{query}", body, **headers)

    def number(self, name: str) -> float:
        """What /metrics says, 0 if nothing was counted yet."""
        text = self.get("/metrics").body.decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, flags=re.MULTILINE)
        return float(found[1]) if found else 0.0


@contextmanager
def started(*arguments: object, code: str | None = None) -> Iterator[Running]:
    """A server that ends with the block; `code` instead of the command sets its own limits."""
    line = [sys.executable, "-m", "tutelage", "serve", *arguments, "--port", "0"]
    if code is not None:
        line = [sys.executable, "-c", code, *arguments]
    process = subprocess.Popen([str(word) for word in line], stderr=subprocess.PIPE, text=True)
    try:
        said = process.stderr.readline()
        assert "http://" in said, said + process.stderr.read()
        yield Running(process, said)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()


def limited(limits: str, threads: int = 1) -> str:
    """A script that serves with limits of its own."""
    return (
        "import sys, pathlib\nfrom tutelage.server import Limits, serve\n"
        f"paths = [pathlib.Path(word) for word in sys.argv[1:]]\n"
        f"serve(paths, port=0, threads={threads}, limits=Limits({limits}))"
    )


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, write_exported: Callable[..., Any]
) -> tuple[Path, Weights]:
    """A folder with three models and examples, and the models' weights."""
    folder = tmp_path_factory.mktemp("run")
    figures = {"accuracy": 0.875, "ece": float("nan")}
    told = {"parameters": 579, "macs": 576, "figures": figures, "data": {"name": "Colours"}}
    weights = {}
    for seed, (stem, about) in enumerate(
        {
            "student-int8": {"precision": "int8"},
            "student": {},
            "teacher": {"name": "teacher"} | told,
        }.items()
    ):
        weights[stem] = write_exported(folder / f"{stem}.onnx", CLASSES, seed=seed, **about)
    images = RANDOM.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    chosen = example_images.Examples(np.array([0, 1]), np.array([1, 4]), 4.0)
    example_images.save(folder / "pictures.npz", chosen, images)
    np.save(folder / "images.npy", images)
    return folder, weights


@pytest.fixture(scope="module")
def server(run: tuple[Path, Weights]) -> Iterator[Running]:
    with started(run[0]) as running:
        yield running


def expected(weights: tuple[np.ndarray, np.ndarray], pixels: np.ndarray) -> dict[str, float]:
    logits = pixels.reshape(-1).astype(np.float64) @ weights[0] + weights[1]
    chances = np.exp(logits - logits.max())
    return dict(zip(CLASSES, (chances / chances.sum()).tolist(), strict=True))


# --- answers


def test_it_says_where_it_listens_and_what_it_serves(server: Running) -> None:
    said = f"tutelage: http://127.0.0.1:{server.port} (teacher, student, student int8); "
    assert server.line == said + "press Ctrl-C to stop\n"


def test_every_model_answers_with_its_softmax(server: Running, run: tuple[Path, Weights]) -> None:
    answer = server.post(PICTURE, Content_Type="image/png")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    told = answer.told
    assert told["picture"] == {"width": 8, "height": 8}
    assert [m["file"] for m in told["models"]] == [
        "teacher.onnx",
        "student.onnx",
        "student-int8.onnx",
    ]
    assert [m["precision"] for m in told["models"]] == ["float32", "float32", "int8"]
    for model in told["models"]:
        path = run[0] / model["file"]
        assert model["bytes"] == path.stat().st_size
        assert 0 < model["milliseconds"] < 10_000
        chances = [one["probability"] for one in model["classes"]]
        assert chances == sorted(chances, reverse=True)
        found = {one["name"]: one["probability"] for one in model["classes"]}
        assert found == pytest.approx(expected(run[1][path.stem], PIXELS), rel=1e-4)


def test_top_says_how_many_classes(server: Running) -> None:
    for top in (1, 2, 3):
        models = server.post(PICTURE, f"?top={top}").told["models"]
        assert {len(model["classes"]) for model in models} == {top}


def test_a_preview_is_what_the_models_see(server: Running) -> None:
    large = np.repeat(np.repeat(PIXELS, 3, axis=0), 2, axis=1)
    told = server.post(png(large), "?preview=true").told["picture"]
    (seen,) = told["seen"]
    assert (told["width"], told["height"], seen["width"], seen["height"]) == (16, 24, 8, 8)
    kind, _, data = seen["png"].partition(";base64,")
    assert kind == "data:image/png"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    whole = Image.fromarray(large).resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(shown, np.asarray(whole))


@pytest.mark.parametrize("kind", [None, "image/jpeg", "image/x-odd", "application/octet-stream"])
def test_the_bytes_say_what_a_picture_is(server: Running, kind: str | None) -> None:
    headers = {} if kind is None else {"Content_Type": kind}
    assert server.post(PICTURE, **headers).status == 200


def test_models_are_described(server: Running) -> None:
    told = server.get("/models").told
    assert told["classes"] == list(CLASSES)
    assert told["limits"] == {"bytes": 10_000_000, "pixels": 25_000_000}
    assert told["examples"] == 3
    assert [m["title"] for m in told["models"]] == ["teacher", "student", "student int8"]
    teacher, student, _ = told["models"]
    assert teacher["figures"] == {"accuracy": 0.875}  # what is no number is no JSON either
    assert (teacher["parameters"], teacher["macs"], teacher["data"]) == (579, 576, "Colours")
    assert (student["parameters"], student["figures"], student["shape"]) == (None, {}, [8, 8, 3])


def test_examples_are_those_of_the_run_the_telling_first(
    server: Running, run: tuple[Path, Weights]
) -> None:
    images = np.load(run[0] / "images.npy")
    for number, image in enumerate((1, 4, 0)):
        answer = server.get(f"/examples/{number}.png")
        assert answer.headers["content-type"] == "image/png"
        shown = np.asarray(Image.open(io.BytesIO(answer.body)))
        np.testing.assert_array_equal(shown, images[image])
    for number in ("3", "-1", "x", "99999999"):
        assert server.get(f"/examples/{number}.png").status == 404


def test_health_and_head(server: Running) -> None:
    assert server.get("/health").told["status"] == "ok"
    for path in ("/", "/page.js", "/models", "/examples/0.png"):
        whole, head = server.get(path), server.ask("HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.body))


def test_openapi_describes_the_interface(server: Running) -> None:
    told = server.get("/openapi.json").told
    assert told["openapi"].startswith("3.")
    assert set(told["paths"]) == {"/predict", "/models", "/health", "/metrics"}
    predict = told["paths"]["/predict"]["post"]
    assert set(predict["requestBody"]["content"]) == {"image/*", "application/octet-stream"}
    for content in predict["requestBody"]["content"].values():
        assert content["schema"]["format"] == "binary"
    assert {p["name"] for p in predict["parameters"]} == {"top", "preview"}
    statuses = {"200", "400", "403", "408", "413", "415", "422", "503"}
    assert set(predict["responses"]) == statuses
    schemas = told["components"]["schemas"]
    for status, response in predict["responses"].items():
        named = response["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert named == ("Prediction" if status == "200" else "Problem")
    # Every reference leads somewhere, and an answer has what its schema asks for.
    for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(told)):
        assert reference in schemas
    answer = server.post(PICTURE, "?preview=true").told
    for content, name in (
        (answer, "Prediction"),
        (answer["models"][0], "ModelAnswer"),
        (answer["picture"], "PictureAnswer"),
        (server.get("/models").told, "Models"),
        (server.get("/models").told["models"][0], "ModelFacts"),
    ):
        assert set(content) == set(schemas[name]["properties"])
    for path in ("/docs", "/redoc"):
        assert server.get(path).status == 404


def test_metrics_count_what_is_asked(server: Running) -> None:
    names = (
        'tutelage_requests_total{path="/predict",status="200"}',
        'tutelage_requests_total{path="/predict",status="415"}',
        'tutelage_requests_total{path="other",status="404"}',
        'tutelage_refused_total{status="415"}',
        'tutelage_model_seconds_count{model="student int8"}',
        'tutelage_request_seconds_count{path="/predict"}',
    )
    before = [server.number(name) for name in names]
    server.post(PICTURE)
    server.post(PICTURE)
    server.post(b"text")
    server.get("/a-path-that-a-stranger-makes-up")
    after = [server.number(name) for name in names]
    assert np.subtract(after, before).tolist() == [2, 1, 1, 1, 2, 3]
    assert server.number("tutelage_in_hand_pictures") == 0
    assert "stranger" not in server.get("/metrics").body.decode()


# --- refusals


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"just text", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (PICTURE[:100], 422),
        (bytes(10_000_001), 413),
    ],
    ids=["empty", "text", "svg", "cut off", "large"],
)
def test_what_is_no_picture_is_refused_in_words(server: Running, body: bytes, status: int) -> None:
    answer = server.post(body)
    assert answer.status == status
    assert set(answer.told) == {"error"}
    assert answer.told["error"].startswith("expected")


def test_a_large_body_in_pieces_is_refused_on_its_way(server: Running) -> None:
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(11):
            sent += 1_000_000
            yield bytes(1_000_000)

    answer = server.post(pieces())  # type: ignore[arg-type]
    assert (answer.status, sent) == (413, 11_000_000)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?top=0", "top"),
        ("?top=4", "from 1 to 3, found 4"),
        ("?top=x", "'x'"),
        ("?top=", "top"),
        ("?tops=2", "unknown 'tops'"),
        ("?preview=7", "preview"),
        ("?%ff=%00", "unknown"),
    ],
)
def test_a_query_that_cannot_be_honoured_is_refused(
    server: Running, query: str, words: str
) -> None:
    answer = server.post(PICTURE, query)
    assert answer.status == 422
    assert words in answer.told["error"]


def test_unknown_paths_and_wrong_methods(server: Running) -> None:
    for path in ("/nothing", "/predict/", "/page.html", "/..%2f..%2fetc/passwd", "/%00"):
        answer = server.get(path)
        assert answer.status == 404
        assert "openapi.json" in answer.told["error"]
    for method, path, allowed in (
        ("GET", "/predict", "POST"),
        ("POST", "/", "GET"),
        ("DELETE", "/models", "GET"),
        ("BREW", "/health", "GET"),
    ):
        answer = server.ask(method, path)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)
        assert method in answer.told["error"]


SAFE = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def test_every_answer_has_the_headers_that_keep_a_browser_safe(server: Running) -> None:
    answers = [
        server.get("/"),
        server.get("/nothing"),
        server.get("/health", Host="elsewhere.example"),
        server.post(PICTURE),
        server.post(b"text"),
        server.get("/examples/0.png"),
    ]
    for answer in answers:
        assert SAFE.items() <= answer.headers.items()
        assert "camera=()" in answer.headers["permissions-policy"]
        assert not {"server", "access-control-allow-origin"} & answer.headers.keys()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("elsewhere.example", 400),
        ("localhost.elsewhere.example:80", 400),
        ("", 400),
    ],
)
def test_a_local_server_goes_by_local_names(server: Running, host: str, status: int) -> None:
    assert server.get("/health", Host=host).status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:5"}, 403),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[bad"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin", "Origin": "https://proxied.example"}, 200),
        ({"Sec_Fetch_Site": "none"}, 200),
    ],
)
def test_pages_of_other_sites_may_not_ask(
    server: Running, headers: dict[str, str], status: int
) -> None:
    assert server.post(PICTURE, **headers).status == status


def test_its_own_page_may_ask(server: Running) -> None:
    assert server.post(PICTURE, Origin=server.url.rstrip("/")).status == 200


def test_what_is_no_http_is_refused_in_words(server: Running) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
        line.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-security-policy: default-src 'none'" in head
    assert "HTTP/1.1" in json.loads(body)["error"]


def test_wrong_requests_never_make_it_fail(server: Running) -> None:
    there = serving.Server(server.process, server.line)
    statuses = serving.fuzz(there, 300)
    assert statuses["200"] > 20
    assert statuses["415"] > 20
    assert statuses["422"] > 20
    assert server.post(PICTURE).status == 200


def test_a_steady_rate_is_answered(server: Running) -> None:
    there = serving.Server(server.process, server.line)
    figures = asyncio.run(serving.load(there, seconds=1, rate=30))
    assert figures["statuses"] == {"200": 30}
    assert figures["requests"] == 30
    spread = figures["milliseconds"]["all"]
    assert 0 < spread["p50"] <= spread["p95"] <= spread["p99"] <= spread["max"]
    assert figures["processor"]["server"] > 0


def test_the_benchmark_writes_what_it_prints(run: tuple[Path, Weights], tmp_path: Path) -> None:
    line = [sys.executable, REPOSITORY / "benchmarks" / "serving.py", run[0]]
    short = [*line, "--seconds", 0.5, "--rate", 20, "--out", tmp_path]
    done = subprocess.run([str(word) for word in short], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.iterdir()
    written = json.loads(file.read_text())
    assert written["statuses"] == {"200": 10}
    assert f'"p99": {written["milliseconds"]["all"]["p99"]}' in done.stdout
    assert written["environment"]["versions"]["keras"]
    none = [*line, "--seconds", 0]
    done = subprocess.run([str(word) for word in none], capture_output=True, text=True)
    assert done.returncode == 2
    assert "expected more than 0" in done.stderr


# --- limits and the end


def test_when_the_queue_is_full_more_is_refused_and_the_rest_answered(
    run: tuple[Path, Weights],
) -> None:
    with started(run[0], code=limited("waiting=1")) as server, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.post(HEAVY.getvalue()), range(8)))
        statuses = sorted(answer.status for answer in answers)
        assert set(statuses) == {200, 503}
        assert statuses[:2] == [200, 200]
        busy = next(answer for answer in answers if answer.status == 503)
        assert busy.headers["retry-after"] == "1"
        assert "try again" in busy.told["error"]
        assert server.number('tutelage_refused_total{status="503"}') == statuses.count(503)
        assert server.post(PICTURE).status == 200


def test_who_has_gone_takes_no_place_in_the_queue(run: tuple[Path, Weights]) -> None:
    with started(run[0], code=limited("waiting=4")) as server:
        heavy = HEAVY.getvalue()
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(heavy)}\r\n\r\n"
        lines = []
        for _ in range(5):
            lines.append(socket.create_connection(("127.0.0.1", server.port)))
            lines[-1].sendall(head.encode() + heavy)
        wait_until(lambda: server.number("tutelage_in_hand_pictures") == 5)
        for line in lines:
            line.close()
        wait_until(lambda: server.number("tutelage_in_hand_pictures") <= 1)
        assert server.number('tutelage_model_seconds_count{model="teacher"}') <= 1
        assert server.post(PICTURE).status == 200


def wait_until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not true():
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(0.005)


def test_a_slow_body_and_a_silent_connection_are_not_waited_for(
    run: tuple[Path, Weights],
) -> None:
    code = "from tutelage.server import http_server\nhttp_server._IDLE = 0.5\n" + limited(
        "seconds=0.3"
    )
    with started(run[0], code=code) as server:
        at = ("127.0.0.1", server.port)
        with socket.create_connection(at, timeout=20) as line:
            line.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
            answer = b"".join(iter(lambda: line.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"within 0.3 s, received 1 bytes" in answer
        for nothing in (b"", b"GET / HTTP/1.1\r\nHost: loc"):
            with socket.create_connection(at, timeout=20) as line:
                line.sendall(nothing)
                assert line.recv(1) == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_hand_is_answered_before_it_ends(
    run: tuple[Path, Weights], number: signal.Signals
) -> None:
    with started(run[0]) as server:
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.append(server.post(HEAVY.getvalue())))
        asking.start()
        wait_until(lambda: server.number("tutelage_in_hand_pictures") == 1)
        server.process.send_signal(number)
        asking.join(30)
        assert server.process.wait(20) == 0
        assert [answer.status for answer in answers] == [200]
        assert server.process.stderr.read() == "tutelage: stopped; images classified: 1\n"
        with pytest.raises(ConnectionRefusedError):
            server.get("/health")


def ask(app: RequestGuard, method: str, path: str) -> tuple[int, Any]:
    """What an application answers without a server around it."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "scheme": "http",
        "server": ("localhost", 80),
        "client": ("localhost", 1),
        "root_path": "",
        "http_version": "1.1",
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_health_says_when_the_server_is_about_to_end(run: tuple[Path, Weights]) -> None:
    app = application(load([run[0]]))
    assert ask(app, "GET", "/health")[0] == 200
    app.worker_pool.end()
    assert ask(app, "GET", "/health") == (503, {"error": "the server is shutting down"})
    app.worker_pool.close()


def test_a_fault_of_its_own_is_a_plain_500(
    run: tuple[Path, Weights], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(load([run[0]]))
    monkeypatch.setattr(app.worker_pool, "classify", None)
    status, told = ask(app, "POST", "/predict")
    assert status == 500
    assert told == {"error": "internal error: see the server's log"}
    assert "a request failed" in caplog.text
    app.worker_pool.close()


# --- what is served


def test_files_keep_their_order_and_a_folder_has_its_own(tmp_path: Path) -> None:
    for name in ("b", "student-int8", "a", "student", "teacher"):
        (tmp_path / f"{name}.onnx").touch()
    extra = tmp_path / "other.model"
    found = models.find([extra, tmp_path])
    names = [path.stem for path in found]
    assert names == ["other", "teacher", "student", "student-int8", "a", "b"]


def test_models_of_one_name_are_told_apart(
    tmp_path: Path, write_exported: Callable[..., Any]
) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_exported(tmp_path / folder / "student.onnx")
    write_exported(tmp_path / "grey.onnx", shape=(5, 6, 1), name="tiny")
    served = load([tmp_path / "x", tmp_path / "y", tmp_path / "grey.onnx"])
    titles = [model.title for model in served.models]
    assert titles == ["student (x/student.onnx)", "student (y/student.onnx)", "tiny"]
    assert [model.exported.shape for model in served.models] == [(8, 8, 3), (8, 8, 3), (5, 6, 1)]
    assert served.examples == ()


def test_what_cannot_be_served_is_refused(
    tmp_path: Path, write_exported: Callable[..., Any]
) -> None:
    good = tmp_path / "good.onnx"
    write_exported(good)
    with pytest.raises(RecipeError, match="given twice"):
        load([good, tmp_path / "." / "good.onnx"])
    with pytest.raises(RecipeError, match="found none"):
        load([])
    write_exported(tmp_path / "other.onnx", classes=("a", "b", "c"))
    with pytest.raises(ModelError, match="other classes"):
        load([good, tmp_path / "other.onnx"])
    write_exported(tmp_path / "deep.onnx", shape=(8, 8, 4))
    with pytest.raises(ModelError, match="4 channels"):
        load([tmp_path / "deep.onnx"])
    write_exported(tmp_path / "lies.onnx", shape=(8, 8, 3))
    model = onnx.load(tmp_path / "lies.onnx")
    onnx.helper.set_model_props(
        model,
        {
            "classes": '["a", "b"]',
            "tutelage": '{"name": "x", "precision": "float32", "shape": [8, 8, 3]}',
        },
    )
    onnx.save(model, tmp_path / "lies.onnx")
    with pytest.raises(ModelError, match="names 2 classes"):
        load([tmp_path / "lies.onnx"])
    (tmp_path / "run").mkdir()
    shutil.copy(good, tmp_path / "run")
    (tmp_path / "run" / "pictures.npz").write_bytes(b"PK torn")
    with pytest.raises(RunError, match="damaged"):
        load([tmp_path / "run"])
    with pytest.raises(RecipeError, match="threads"):
        application(load([good]), threads=0)


@pytest.mark.parametrize("kind", ["missing", "no model", "empty folder", "port in use", "no host"])
def test_mistakes_are_told_in_one_line(
    server: Running, run: tuple[Path, Weights], tmp_path: Path, kind: str
) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty").mkdir()
    arguments, words = {
        "missing": ([tmp_path / "gone.onnx"], "no file"),
        "no model": ([tmp_path / "text.onnx"], "can't be read as an ONNX model"),
        "empty folder": (
            [tmp_path / "empty"],
            f"export one first: tutelage export {tmp_path / 'empty'}",
        ),
        "port in use": ([run[0], "--port", server.port], f"at port {server.port} ("),
        "no host": ([run[0], "--host", "no.such.host.invalid"], "--host"),
    }[kind]
    line = [sys.executable, "-m", "tutelage", "serve", *arguments]
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("tutelage: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_a_server_for_the_network_says_so_and_goes_by_any_name(
    run: tuple[Path, Weights],
) -> None:
    with started(run[0], "--host", "0.0.0.0") as server:
        warning = server.process.stderr.readline()
        assert warning == (
            "tutelage: anyone who can reach this machine over the network can use it\n"
        )
        assert server.get("/health", Host="any.name.example").status == 200
        assert server.post(PICTURE, Origin="http://elsewhere.example").status == 403


def test_small_answers_do_not_wait_for_each_other() -> None:
    # asyncio turns Nagle's algorithm off only where the socket says that it is TCP: 40 ms.
    with bind("127.0.0.1", 0) as at:
        assert at.proto == socket.IPPROTO_TCP


def test_it_listens_on_ipv6_too(run: tuple[Path, Weights]) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with started(run[0], "--host", "::1") as server:
        assert "http://[::1]:" in server.line
        connection = http.client.HTTPConnection("::1", server.port, timeout=20)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        connection.close()


# --- the page


def opened(tab: Page, act: Callable[[], None]) -> FileChooser:
    """The file chooser that an action opens: Chromium is asked to tell, which takes a moment."""
    found: list[FileChooser] = []
    tab.on("filechooser", lambda one: found.append(one))
    tab.wait_for_timeout(300)
    act()
    for _ in range(100):
        if found:
            break
        tab.wait_for_timeout(100)
    return found[0]


@contextmanager
def shown(browser: Browser, server: Running, silent: bool = True, **options: Any) -> Iterator[Page]:
    """The page in a tab that says nothing on its console and asks nobody but its server."""
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
    tab, said, asked = watched(context)
    tab.goto(server.url)
    tab.wait_for_selector("article")
    yield tab
    assert said == [] or not silent
    own = (server.url, "data:", f"blob:{server.url}")
    assert [url for url in asked if not url.startswith(own)] == []
    context.close()


# Bytes, or how many zeros.
DROP = """([bytes, name, type]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
  const on = document.getElementById('choose');
  // Unless it is prevented, the browser leaves the page and opens the file itself.
  return ['dragenter', 'dragover', 'drop'].map(kind => {
    const event = new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
    on.dispatchEvent(event);
    return event.defaultPrevented;
  });
}"""
PASTE = """([bytes]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], 'x.png', { type: 'image/png' }));
  document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: transfer }));
}"""


def check_answers(tab: Page, run: tuple[Path, Weights], pixels: np.ndarray) -> None:
    tab.wait_for_selector("article ol")
    assert tab.locator("article h3 span").all_inner_texts() == [
        "teacher",
        "student",
        "student int8",
    ]
    for i, stem in enumerate(("teacher", "student", "student-int8")):
        lines = tab.locator("article").nth(i).locator("li").all_inner_texts()
        chances = sorted(expected(run[1][stem], pixels).items(), key=lambda one: -one[1])
        told = [f"{name}\n{100 * chance:.1f}\u00a0%" for name, chance in chances]
        assert lines == told


def test_a_dropped_picture_is_answered_in_three_columns(
    browser: Browser, server: Running, run: tuple[Path, Weights]
) -> None:
    with shown(browser, server) as tab:
        prevented = tab.evaluate(DROP, [list(PICTURE), "a.png", "image/png"])
        assert prevented[1:] == [True, True]
        check_answers(tab, run, PIXELS)
        boxes = [article.bounding_box() for article in tab.locator("article").all()]
        assert len({box["y"] for box in boxes}) == 1
        assert len({box["x"] for box in boxes}) == 3
        teacher = tab.locator("article").first
        facts = teacher.locator("dt, dd").all_inner_texts()
        size = (run[0] / "teacher.onnx").stat().st_size / 1e6
        assert facts == [
            *["accuracy", "87.5\u00a0%", "parameters", "579", "precision", "float32"],
            *["file", f"{size:.2f}\u00a0MB"],
        ]
        assert re.fullmatch(r"\d+\.\d\u00a0ms", teacher.locator("small").inner_text())
        likeliest = max(expected(run[1]["teacher"], PIXELS).items(), key=lambda one: one[1])
        share = teacher.locator("rect").first.get_attribute("width")
        assert float(share.rstrip("%")) == pytest.approx(100 * likeliest[1], rel=1e-3)
        assert likeliest[0] in tab.locator("[role=status]").inner_text()
        assert tab.locator("#shown img").count() == 2
        natural = "[...document.querySelectorAll('#shown img')].map(e => e.naturalWidth)"
        assert tab.evaluate(natural) == [8, 8]
        assert tab.locator("[role=alert]").inner_text() == ""


def test_a_pasted_and_an_example_picture_are_answered(
    browser: Browser, server: Running, run: tuple[Path, Weights]
) -> None:
    with shown(browser, server) as tab:
        tab.evaluate(PASTE, [list(PICTURE)])
        check_answers(tab, run, PIXELS)
        assert tab.locator("#examples button").count() == 3
        with tab.expect_response("**/predict*"):
            tab.get_by_role("button", name="Example 2").click()
        tab.wait_for_selector("[aria-busy]", state="detached")
        check_answers(tab, run, np.load(run[0] / "images.npy")[4])


def test_what_is_no_picture_is_said_and_the_next_one_answered(
    browser: Browser, server: Running, run: tuple[Path, Weights]
) -> None:
    # Chromium itself notes the refused request on the console.
    with shown(browser, server, silent=False) as tab:
        tab.evaluate(DROP, [list(b"just text"), "a.txt", "text/plain"])
        alert = tab.get_by_role("alert")
        alert.filter(has_text="Expected an image (PNG, JPEG").wait_for(state="visible")
        tab.evaluate(DROP, [20_000_000, "large.png", "image/png"])
        alert.filter(has_text="at most 10.00\u00a0MB, found 20.00\u00a0MB").wait_for()
        tab.evaluate(DROP, [list(PICTURE), "a.png", "image/png"])
        check_answers(tab, run, PIXELS)
        assert alert.inner_text() == ""


def test_the_keyboard_reaches_and_opens_the_chooser(
    browser: Browser, server: Running, run: tuple[Path, Weights], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    with shown(browser, server) as tab:
        names = []
        for _ in range(2):
            tab.keyboard.press("Tab")
            names.append(tab.evaluate("document.activeElement.id || document.activeElement.hash"))
        assert names == ["#predictions", "choose"]
        outline = tab.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert outline == "3px"
        chooser = opened(tab, lambda: tab.keyboard.press("Enter"))
        chooser.set_files(tmp_path / "a.png")
        check_answers(tab, run, PIXELS)
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.getAttribute('aria-label')") == "Example 1"
        with tab.expect_response("**/predict*"):
            tab.keyboard.press("Space")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_can_be_read(
    browser: Browser, server: Running, width: int, scheme: str, faint: Any
) -> None:
    size = {"width": width, "height": 800}
    with shown(browser, server, viewport=size, color_scheme=scheme) as tab:
        assert faint(tab) == []
        tab.set_input_files("#file", {"name": "a", "mimeType": "", "buffer": PICTURE})
        tab.wait_for_selector("article ol")
        assert faint(tab) == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        boxes = [article.bounding_box() for article in tab.locator("article").all()]
        assert len({box["x"] for box in boxes}) == (1 if width == 360 else 3)
        assert tab.locator("#verdict").bounding_box()["y"] < 800  # it is scrolled to
        ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
        assert not tab.locator("#take").is_visible()


def test_a_phone_can_take_a_photo(browser: Browser, server: Running) -> None:
    size = {"width": 360, "height": 800}
    with shown(browser, server, viewport=size, has_touch=True, is_mobile=True) as tab:
        camera = tab.locator("#photo")
        assert camera.get_attribute("capture") == "environment"
        assert camera.get_attribute("accept") == "image/*"
        assert not tab.get_by_text("or drop it here").is_visible()
        chooser = opened(tab, tab.get_by_role("button", name="Take a photo").click)
        chooser.set_files({"name": "a", "mimeType": "", "buffer": PICTURE})
        tab.wait_for_selector("article ol")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360


def test_names_from_a_file_are_shown_and_never_run(browser: Browser, server: Running) -> None:
    with shown(browser, server) as tab:
        assert "<b>blue</b>" in tab.locator("#about").inner_text()
        tab.set_input_files("#file", {"name": "a", "mimeType": "", "buffer": PICTURE})
        tab.wait_for_selector("article ol")
        assert tab.locator("main b").count() == 0
        assert "<b>blue</b>" in tab.locator("article").first.inner_text()


def test_the_page_has_landmarks_and_one_heading_of_each_part(server: Running) -> None:
    page = server.get("/").body.decode()
    assert page.startswith("<!doctype html>")
    for tag in ("<header>", "<main>", "<footer>", '<html lang="en">', 'name="viewport"'):
        assert page.count(tag) == 1
    assert len(re.findall("<h1>", page)) == 1
    assert not re.findall(r"<script(?![^>]*src=)|<style|style=|\son\w+=", page)
    for path in re.findall(r'(?:src|href)="([a-z][^":]*)"', page):
        assert not path.startswith("/"), "behind a proxy the page may be below another path"
        assert server.get(f"/{path}").status == 200
