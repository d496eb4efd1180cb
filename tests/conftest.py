"""What every test shares: a machine's own settings kept out, and real data where there is some."""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[1]

_home = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    # Before any test module is imported: Keras reads its settings at import.
    home = config.stash[_home] = tempfile.mkdtemp(prefix="tutelage-tests-")
    # A test may import Keras before tutelage, which would choose the backend for it.
    os.environ.setdefault("KERAS_BACKEND", "torch")
    os.environ["TUTELAGE_CACHE"] = os.path.join(home, "cache")
    os.environ["TUTELAGE_OFFLINE"] = "1"
    os.environ["KERAS_HOME"] = os.path.join(home, "keras")
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # the workers share the cores
        threads = max(1, (os.cpu_count() or 1) // int(workers))
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_home], ignore_errors=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets: the first of TUTELAGE_DATA, else ../shared/data."""
    named = os.environ.get("TUTELAGE_DATA", "").split(os.pathsep)
    for folder in [*filter(None, named), REPOSITORY.parent / "shared" / "data"]:
        if Path(folder).is_dir():
            return Path(folder)
    pytest.skip("real data not present: set TUTELAGE_DATA")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server that the tests start, without a database's name."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else Path("/usr/lib/postgresql").glob("*/bin")
    binaries = next((place for place in places if (place / "pg_ctl").exists()), None)
    if binaries is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not installed")
    folder = Path(tempfile.mkdtemp(prefix="tutelage-postgres-"))
    command: list[str] = []
    if os.geteuid() == 0:  # as which PostgreSQL refuses to run
        import pwd  # not on Windows

        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        command = ["runuser", "-u", "postgres", "--"]
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(name: str, *arguments: str) -> None:
        line = [*command, str(binaries / name), "-D", str(folder / "data"), *arguments]
        # The server inherits its output, so it can't be a pipe that is read to its end.
        with (folder.with_suffix(".log")).open("a") as log:
            subprocess.run(line, check=True, stdout=log, stderr=log, cwd=folder)

    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        call("initdb", "-U", "tutelage", "--auth=trust", "-E", "UTF8")
        call("pg_ctl", "-w", "-o", options, "start")
        yield f"postgresql://tutelage@127.0.0.1:{port}"
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            call("pg_ctl", "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".log").unlink(missing_ok=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind that a sweep can be shared through."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    import psycopg2

    server = request.getfixturevalue("postgres")
    name = f"tutelage_{secrets.token_hex(8)}"
    with contextlib.closing(psycopg2.connect(f"{server}/postgres")) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
    return f"{server}/{name}"


@pytest.fixture(scope="module")  # while it is open, no test can have an event loop of its own
def browser() -> Iterator[Any]:
    """A headless Chromium, as Playwright drives it."""
    from playwright.sync_api import sync_playwright

    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    if not any(found):
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as play:
        launched = play.chromium.launch(
            executable_path=next(filter(None, found)),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield launched
        launched.close()


def watched(context: Any) -> tuple[Any, list[str], list[str]]:
    """A new tab, and what is said on its console and asked of the network from then on."""
    tab = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    return tab, said, asked


# Luminances by WCAG 2: text is at least 4.5 to 1 against what is behind it.
CONTRASTS = """() => {
  const linear = x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const bright = ([r, g, b]) =>
    .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
  const parse = text => (text.match(/[0-9.]+/g) || []).map(Number);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const texts = 'p, h1, h2, h3, a, td, th, dt, dd, li, summary, figcaption, figure text, '
    + 'span, strong, small';
  return [...document.querySelectorAll(texts)]
    .filter(e => e.textContent.trim())
    .map(e => {
      const style = getComputedStyle(e);
      const own = parse(e instanceof SVGElement ? style.fill : style.color);
      const [less, more] = [bright(own), bright(behind(e))].sort((x, y) => x - y);
      return [(more + .05) / (less + .05), e.tagName, e.textContent.trim().slice(0, 40)];
    })
    .filter(([ratio]) => ratio < 4.5);
}"""


@pytest.fixture
def faint() -> Callable[[Any], list[Any]]:
    """Finds a page's texts that stand out too little."""
    return lambda tab: tab.evaluate(CONTRASTS)


@pytest.fixture(scope="session")
def write_exported() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Writes a linear model as `tutelage export` does and gives its weights and bias."""
    from onnx import TensorProto, helper, numpy_helper, save

    def write(
        path: Path,
        classes: tuple[str, ...] = ("red", "green", "blue"),
        shape: tuple[int, int, int] = (8, 8, 3),
        seed: int = 0,
        **about: Any,
    ) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        size = int(np.prod(shape))
        weights = (random.normal(size=(size, len(classes))) / 4000).astype(np.float32)
        bias = random.normal(size=len(classes)).astype(np.float32)
        nodes = [
            helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["floats"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
        ]
        graph = helper.make_graph(
            nodes,
            "linear",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", *shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(classes)])],
            [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        told = {"name": "student", "precision": "float32", "shape": shape} | about
        properties = {"classes": json.dumps(classes), "tutelage": json.dumps(told)}
        helper.set_model_props(model, properties)
        save(model, path)
        return weights, bias

    return write
