"""Digests follow what the logits depend on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnx
import torch

from tests.models.example_models import (
    FUNCTION,
    RGB_IMAGES,
    SEEN,
    Small,
    conv_net,
    flat,
    logits_of,
    onnx_file,
    small,
    teacher_of,
)
from tutelage.models import digest
from tutelage.models.preprocessing import Preprocessing


def test_a_source_has_the_same_logits_and_digest_each_time(
    tmp_path: Path, code: Callable[[str], str]
) -> None:
    path = onnx_file(tmp_path / "net.onnx")
    name = code(FUNCTION)
    conv_net(seed=2).save(tmp_path / "conv.keras")
    known = set()
    for source in (conv_net(), tmp_path / "conv.keras", flat(), path):
        one, two, other = (
            teacher_of(source),
            teacher_of(source),
            teacher_of(source, preprocessing=SEEN),
        )
        np.testing.assert_array_equal(logits_of(one), logits_of(two))
        assert one.digest == two.digest != other.digest
        known |= {one.digest, other.digest}
    assert len(known) == 8
    keras.utils.set_random_seed(0)
    one = teacher_of(f"{name}:keras_model")
    keras.utils.set_random_seed(0)
    assert teacher_of(f"{name}:keras_model").digest == one.digest  # its layers are named anew


def test_digests_are_those_of_version_0_1_0(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape))
    file = tmp_path / "m.onnx"
    file.write_bytes(b"graph")
    preprocessing = Preprocessing((2, 2), 255.0, (0.5,), (0.25,))
    # Computed by version 0.1.0, whose finished runs and cached logits are recognised by them.
    assert digest.torch_digest(module, preprocessing) == (
        "1c804bcfe50a4cc42c0724b409ce3aef149102499cd8edd97660456a6b838802"
    )
    assert digest.onnx_digest(file, preprocessing) == (
        "c00d4b7d7166e587c95ba846ab27726226305f0cbcfb797a96b416d2dac85336"
    )


def test_a_digest_follows_what_the_answers_depend_on(tmp_path: Path) -> None:
    def one() -> torch.nn.Module:
        class Local(Small):
            pass

        return Local()

    def other() -> torch.nn.Module:
        class Local(Small):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return 2 * super().forward(x)

        return Local()

    digests = []
    for build in (one, one, other):
        torch.manual_seed(0)
        digests.append(teacher_of(build(), RGB_IMAGES).digest)
    assert digests[0] == digests[1] != digests[2]
    module = small()
    before = teacher_of(module, RGB_IMAGES).digest
    module.norm.running_mean += 1
    assert teacher_of(module, RGB_IMAGES).digest != before
    # Weights that lie beside an ONNX file are a part of it.
    path = onnx_file(tmp_path / "net.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    before = teacher_of(path)
    raw = np.fromfile(tmp_path / "w.bin", np.uint8)
    raw[:4] = np.frombuffer(np.float32(5).tobytes(), np.uint8)
    raw.tofile(tmp_path / "w.bin")
    after = teacher_of(path)
    assert (logits_of(before) != logits_of(after)).any()
    assert before.digest != after.digest
    (tmp_path / "other.bin").write_bytes(b"no part of it")
    assert teacher_of(path).digest == after.digest
