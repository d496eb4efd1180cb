"""Where data sets are found, downloads, official names."""

import functools
import hashlib
import http.server
import os
import threading

import numpy as np
import pytest

from tests.data.example_data import (
    BATCHES,
    binary_files,
    idx_files,
    npz,
    python_files,
    refusal,
    same,
    tarred,
    written,
)
from tutelage.data import finding
from tutelage.data.datasets import load
from tutelage.errors import DataNotFoundError, RecipeError


def test_only_the_original_is_called_cifar10(cifar, tmp_path, monkeypatch):
    folder = written(tmp_path, binary_files(cifar)) / "cifar-10-batches-bin"
    assert load("cifar10", folder).name == "cifar10 (unknown copy)"
    written(tmp_path, python_files(cifar))
    original = [hashlib.sha256((folder / f"{name}.bin").read_bytes()) for name in BATCHES]
    digests = tuple(digest.hexdigest() for digest in original)
    monkeypatch.setattr(finding, "_CIFAR10_BATCHES", digests)
    data = load("folder", folder)
    assert data.name == "CIFAR-10"
    assert load("cifar10", tmp_path / "cifar-10-batches-py").name == "CIFAR-10"
    arrays = {"x_train": data.train.images, "y_train": data.train.labels[:, None]}
    arrays |= {"x_test": data.test.images, "y_test": data.test.labels[:, None]}
    np.savez(tmp_path / "c.npz", **arrays)
    same(data, load("cifar10", tmp_path / "c.npz"))
    assert load("cifar10", tmp_path / "c.npz").name == "CIFAR-10"
    assert load("cifar10", folder, size=(16, 16)).name == "CIFAR-10, resized to 16x16"
    arrays["x_test"] = arrays["x_test"] ^ np.uint8(1)
    np.savez(tmp_path / "c.npz", **arrays)
    assert load("cifar10", tmp_path / "c.npz").name == "cifar10 (unknown copy)"


def test_an_official_file_name_with_another_content_is_refused(cifar, tmp_path):
    path = tarred(tmp_path / "cifar-10-binary.tar.gz", binary_files(cifar))
    message = refusal(load, "cifar10", path)
    assert str(path) in message
    assert "download it again" in message


def test_places_are_searched_in_order(tmp_path, monkeypatch):
    keras = npz(tmp_path / "keras" / "datasets" / "mnist.npz", 3)
    assert load("mnist").source == str(keras)
    second = npz(tmp_path / "second" / "mnist.npz", 2)
    folders = [tmp_path / "first", tmp_path / "second"]
    monkeypatch.setenv("TUTELAGE_DATA", os.pathsep.join(map(str, folders)))
    assert load("mnist").source == str(second)
    first = written(tmp_path / "first" / "mnist", idx_files())
    assert load("mnist").source == str(first)
    mine = npz(tmp_path / "given.npz", 1)
    data = load("mnist", mine)
    assert data.source == str(mine)
    assert (data.train.images == 1).all()


@pytest.mark.parametrize(
    "name",
    ["cifar-10-batches-py-target", "cifar-10-batches-py-target_archive", "cifar-10-batches-py"],
)
def test_what_keras_keeps_of_cifar10_is_found(cifar, tmp_path, name):
    place = tmp_path / "keras" / "datasets"
    place.mkdir(parents=True)
    if name.endswith("_archive"):
        tarred(place / name, python_files(cifar))
    elif name.endswith("-target"):
        written(place / name, python_files(cifar))
    else:
        written(place, python_files(cifar))
    assert load("cifar10").source == str(place / name)


def test_what_is_found_nowhere_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_DATA", str(tmp_path / "mine"))
    message = refusal(load, "cifar10", kind=DataNotFoundError)
    for word in ("'cifar10'", str(tmp_path / "mine"), str(tmp_path / "keras"), "give --data PATH"):
        assert word in message


@pytest.fixture
def server(tmp_path):
    """A real web server over tmp_path/served."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_download_is_checked_and_kept(tmp_path, monkeypatch, server):
    monkeypatch.setenv("TUTELAGE_OFFLINE", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    file = npz(tmp_path / "served" / "mnist.npz", 5)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    wrong = {"mnist": (f"{server}/mnist.npz", "0" * 64)}
    monkeypatch.setattr(finding, "_DOWNLOADS", wrong)
    message = refusal(load, "mnist", kind=DataNotFoundError)
    assert "could not be downloaded" in message
    assert not (tmp_path / "cache" / "downloads" / "mnist.npz").exists()
    monkeypatch.setattr(finding, "_DOWNLOADS", {"mnist": (f"{server}/mnist.npz", digest)})
    data = load("mnist")
    assert data.source == str(tmp_path / "cache" / "downloads" / "mnist.npz")
    monkeypatch.setenv("TUTELAGE_OFFLINE", "1")
    same(data, load("mnist"))


def test_bad_names_and_paths_are_refused(tmp_path):
    message = refusal(load, "cifar", kind=RecipeError)
    assert "'cifar'" in message
    assert "cifar10" in message
    assert "--data PATH" in refusal(load, "folder", kind=DataNotFoundError)
    missing = tmp_path / "none.tar"
    assert str(missing) in refusal(load, "folder", missing, kind=DataNotFoundError)
    (tmp_path / "a.txt").write_text("hello")
    assert "a.txt" in refusal(load, "folder", tmp_path / "a.txt")
