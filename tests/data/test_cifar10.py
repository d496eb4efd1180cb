"""CIFAR-10's binary and pickled batches."""

import os
import pickle
import struct

import numpy as np
import pytest

from tests.data.example_data import (
    binary_files,
    numpy1_pickle,
    python2_pickle,
    python3_pickle,
    python_files,
    refusal,
    same,
    tarred,
    written,
)
from tutelage.data.cifar10 import CIFAR10_CLASSES
from tutelage.data.datasets import load


def test_python2_pickles_are_pickles(cifar):
    rows, labels = cifar[0]
    loaded = pickle.loads(python2_pickle(rows, labels.tolist()), encoding="bytes")
    np.testing.assert_array_equal(loaded[b"data"], rows)


@pytest.mark.parametrize("dump", [python2_pickle, python3_pickle, numpy1_pickle])
def test_cifar10_reads_the_same_from_python_and_binary(cifar, tmp_path, dump):
    binary = load("cifar10", tarred(tmp_path / "small-bin.tar.gz", binary_files(cifar)))
    folder = written(tmp_path, python_files(cifar, dump)) / "cifar-10-batches-py"
    python = load("cifar10", folder)
    same(binary, python)
    same(python, load("cifar10", tarred(tmp_path / "p.tgz", python_files(cifar, dump))))
    rows, labels = cifar[5]
    # A row is the red, the green and the blue plane.
    planes = binary.test.images.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(planes.reshape(20, -1), rows)
    np.testing.assert_array_equal(binary.test.labels, labels)
    assert binary.classes == CIFAR10_CLASSES
    assert len(binary.train) == 100


def test_a_pickle_with_columns_first_is_read_too(cifar, tmp_path):
    rows = load("cifar10", written(tmp_path / "c", python_files(cifar, python3_pickle)))
    columns = [(np.asfortranarray(images), labels) for images, labels in cifar]
    same(rows, load("cifar10", written(tmp_path / "f", python_files(columns, python3_pickle))))


def test_a_pickle_that_lies_about_its_memory_can_do_no_harm(cifar, tmp_path):
    rows, _ = cifar[0]
    files = python_files(cifar)
    batch = "cifar-10-batches-py/data_batch_1"
    whole = files[batch]
    flags = whole.index(b"J" + struct.pack("<i", -1) + b"K\x00tb") + 6
    lie = whole[:flags] + b"\x3f" + whole[flags + 1 :]  # NumPy's own dtype ends the process
    true = load("cifar10", written(tmp_path / "true", files))
    same(true, load("cifar10", written(tmp_path / "flags", files | {batch: lie})))
    lie = whole.replace(b"J" + struct.pack("<i", len(rows)), b"J" + struct.pack("<i", 1 << 30))
    assert "data_batch_1" in refusal(
        load, "cifar10", written(tmp_path / "shape", files | {batch: lie})
    )


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(cifar, tmp_path):
    files = python_files(cifar)
    trap = tmp_path / "sprung"
    files["cifar-10-batches-py/data_batch_3"] = pickle.dumps({b"data": _Evil(str(trap))})
    message = refusal(load, "cifar10", tarred(tmp_path / "c.tar.gz", files))
    assert "data_batch_3" in message
    assert "posix.mkdir" in message or "nt.mkdir" in message
    assert not trap.exists()
    pickle.loads(files["cifar-10-batches-py/data_batch_3"])  # it is a trap
    assert trap.exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("data_batch_2", b"\x80\x02}q"),
        ("data_batch_2", pickle.dumps([1, 2], protocol=2)),
        ("data_batch_2", pickle.dumps({b"data": np.zeros((2, 9), np.uint8), b"labels": [0, 1]})),
        ("data_batch_2", python3_pickle(np.zeros((2, 3072)), [0, 1])),
        ("data_batch_2", python3_pickle(np.zeros((2, 3072), np.int8), [0, 1])),
        ("data_batch_2", python3_pickle(np.zeros((2, 3072), np.uint8), [0])),
        ("data_batch_2", python3_pickle(np.zeros((2, 3072), np.uint8), ["a", "b"])),
        ("batches.meta", pickle.dumps({b"num_vis": 3072}, protocol=2)),
    ],
)
def test_a_damaged_python_batch_is_named(cifar, tmp_path, name, data):
    files = python_files(cifar) | {f"cifar-10-batches-py/{name}": data}
    assert name in refusal(load, "cifar10", written(tmp_path, files))


def test_a_pickle_that_would_take_all_memory_is_refused(cifar, tmp_path):
    bomb = b"\x80\x02}r\xff\xff\xff\x3f."  # a note of the number 2**30 - 1
    files = python_files(cifar) | {"cifar-10-batches-py/test_batch": bomb}
    message = refusal(load, "cifar10", written(tmp_path, files))
    assert "test_batch" in message
    assert "1073741823" in message


def test_a_missing_or_short_binary_batch_is_named(cifar, tmp_path):
    files = binary_files(cifar, "")
    del files["data_batch_4.bin"]
    assert "data_batch_4.bin" in refusal(load, "cifar10", written(tmp_path / "a", files))
    files = binary_files(cifar, "")
    files["test_batch.bin"] = files["test_batch.bin"][:-1]
    assert "test_batch.bin" in refusal(load, "cifar10", written(tmp_path / "b", files))
