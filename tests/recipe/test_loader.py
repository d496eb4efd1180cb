"""Recipes: what they say, that they come back from TOML, and how mistakes are told."""

import dataclasses
import datetime
import json
import re
import subprocess
import sys
import tomllib
from hashlib import sha256
from pathlib import Path
from typing import get_args

import pytest

from tutelage import recipe
from tutelage.errors import RecipeError

NAMES = get_args(recipe.loss.LossName)
SMALLEST = """
[data]
name = "folder"
[views]
[teacher]
model = "teacher-2m"
[student]
model = "student-300k"
[loss]
[schedule]
teacher = {epochs = 2, learning_rate = 0.1}
student = {epochs = 3, learning_rate = 1}
"""


@pytest.fixture
def smallest(tmp_path: Path) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text(SMALLEST, encoding="utf-8")
    return file


SCHEDULE = "expected one of schedule.teacher, schedule.student, schedule.precision"
VIEWS = (
    "expected one of views.flip, views.shift, views.distinct, views.crop, views.crop_scale, "
    "views.crop_ratio, views.flip_vertical, views.policy, views.policy_operations, "
    "views.policy_magnitude, views.color_jitter, views.hue, views.erasing, views.mixup, "
    "views.cutmix"
)


def refusal(source: str | Path, overrides: dict[str, object] | None = None) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe.load(source, overrides or {})
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def mistake(key: str, value: object) -> str:
    """What is said of one override of the digits recipe."""
    start = f"digits.toml: 1 mistake: {key}: "
    message = refusal("digits", {key: value})
    assert message.startswith(start)
    return message.removeprefix(start)


@pytest.mark.parametrize("name", recipe.BUNDLED)
def test_a_bundled_recipe_says_what_its_file_says_and_leaves_no_key_to_defaults(name: str) -> None:
    file = Path(recipe.__file__).parent / "presets" / f"{name}.toml"
    loaded = recipe.load(name)
    assert loaded.name == name
    said, written = recipe.to_dict(loaded), tomllib.loads(file.read_text(encoding="utf-8"))
    for section, absent in (("data", "path"), ("teacher", "file"), ("student", "file")):
        assert said[section].pop(absent) == ""
    assert said == written


def test_every_file_among_the_bundled_recipes_is_named_and_loads() -> None:
    folder = Path(recipe.__file__).parent / "presets"
    assert {file.stem for file in folder.iterdir()} == set(recipe.BUNDLED)


def test_the_smallest_recipe_has_the_documented_defaults(smallest: Path) -> None:
    schedule = recipe.Schedule(
        epochs=2,
        batch_size=128,
        learning_rate=0.1,
        warmup=0.2,
        momentum=0.9,
        weight_decay=0.005,
        label_smoothing=0.0,
    )
    assert recipe.load(smallest) == recipe.Recipe(
        name="mine",
        seed=0,
        data=recipe.Data(name="folder", path="", validation=0.1, split_seed=0, size=None),
        views=recipe.Views(flip=True, shift=2),
        teacher=recipe.Network(model="teacher-2m", file=""),
        student=recipe.Network(model="student-300k", file=""),
        loss=recipe.Loss(name="kd", alpha="auto"),
        schedule=recipe.Schedules(
            teacher=schedule,
            student=dataclasses.replace(schedule, epochs=3, learning_rate=1.0),
            precision="auto",
        ),
    )


def test_a_recipe_comes_back_equal_from_its_toml(tmp_path: Path) -> None:
    first = recipe.load(
        "cifar10",
        {
            "data.size": [24, 32],
            "data.path": 'a "quoted" \\ path # with\nlines',
            "teacher.file": "runs/a/teacher.keras",
            "schedule.student.learning_rate": 1e-7,
            "schedule.precision": "float32",
            "seed": 2**31 - 1,
        },
    )
    file = tmp_path / "cifar10.toml"
    file.write_text(recipe.to_toml(first), encoding="utf-8")
    again = recipe.load(file)
    assert again == first
    assert again.data.size == (24, 32)
    assert recipe.key(again) == recipe.key(first)
    assert tomllib.loads(recipe.to_toml(first)) == recipe.to_dict(first)


def test_the_key_is_the_hash_of_the_sorted_json_and_the_name_is_no_part_of_it() -> None:
    digits = recipe.load("digits")
    canonical = json.dumps(recipe.to_dict(digits), sort_keys=True, separators=(",", ":"))
    assert recipe.key(digits) == sha256(canonical.encode()).hexdigest()
    assert recipe.key(dataclasses.replace(digits, name="other")) == recipe.key(digits)
    assert recipe.key(dataclasses.replace(digits, seed=1)) != recipe.key(digits)


def test_trackers_are_in_the_recipe_and_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    digits, tracked = (recipe.load("digits", {"track": names}) for names in ([], ["wandb"]))
    assert tracked.track == ("wandb",)
    assert (digits.track, recipe.load("digits").track) == ((), None)
    assert recipe.key(tracked) == recipe.key(digits) == recipe.key(recipe.load("digits"))
    assert recipe.to_dict(tracked) == recipe.to_dict(digits)
    file = tmp_path / "digits.toml"
    file.write_text(recipe.to_toml(tracked), encoding="utf-8")
    assert recipe.load(file) == tracked
    assert recipe.parse_setting('track=["mlflow"]') == ("track", ["mlflow"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("mlflow", "expected a list, each one of tensorboard, mlflow, wandb, found 'mlflow'"),
        (
            ["tensorboard", "mlfow"],
            "expected a list, each one of tensorboard, mlflow, wandb, found ['tensorboard', "
            "'mlfow']; did you mean mlflow?",
        ),
        (["wandb", "wandb"], "expected each name once, found ['wandb', 'wandb']"),
    ],
)
def test_trackers_are_named_once_each(value: object, expected: str) -> None:
    assert mistake("track", value) == expected


def test_an_integer_is_taken_for_a_number_and_makes_the_same_recipe() -> None:
    whole, real = (recipe.load("digits", {"loss.alpha": alpha}) for alpha in (1, 1.0))
    assert type(whole.loss.alpha) is float
    assert recipe.key(whole) == recipe.key(real)


def test_the_dict_leaves_out_the_name_and_what_is_none() -> None:
    tree = recipe.to_dict(recipe.load("digits"))
    assert "name" not in tree
    assert "size" not in tree["data"]
    assert recipe.to_dict(recipe.load("digits", {"data.size": (8, 9)}))["data"]["size"] == [8, 9]


def test_a_recipe_can_be_neither_changed_nor_extended() -> None:
    digits = recipe.load("digits")
    with pytest.raises(dataclasses.FrozenInstanceError):
        digits.seed = 1  # type: ignore[misc]
    assert hash(digits) == hash(recipe.load("digits"))


def test_overrides_win_over_the_file_and_may_fill_what_it_lacks(tmp_path: Path) -> None:
    file = tmp_path / "part.toml"
    file.write_text(SMALLEST.replace('[data]\nname = "folder"', "seed = 3"), encoding="utf-8")
    loaded = recipe.load(file, {"seed": 4, "data.name": "mnist", "schedule.student.epochs": 9})
    assert (loaded.seed, loaded.data.name, loaded.schedule.student.epochs) == (4, "mnist", 9)


def test_all_mistakes_are_told_together_in_one_line(smallest: Path) -> None:
    text = smallest.read_text(encoding="utf-8")
    smallest.write_text(text.replace("[loss]", "[loss]\ntemprature = 3"), encoding="utf-8")
    assert refusal(smallest, {"loss.alpha": 1.5, "seeds": 1, "views.shift": "far"}) == (
        f"{smallest}: 4 mistakes: "
        "seeds: unknown key, did you mean seed?; "
        "views.shift: expected an integer from 0 to 32, found 'far'; "
        "loss.alpha: expected a number from 0 to 1 or 'auto', found 1.5; "
        "loss.temprature: unknown key, did you mean loss.temperature?"
    )


@pytest.mark.parametrize(
    ("key", "values", "expected"),
    [
        ("seed", [-1, 2**31, 1.0, True, "1"], "an integer from 0 to 2147483647"),
        ("data.split_seed", [-1, 2**31], "an integer from 0 to 2147483647"),
        ("data.name", ["imagenet", 3], "one of digits, mnist, cifar10, folder"),
        ("data.path", [3, True], "a string"),
        ("data.validation", [0, 0.5, "0.1", True], "a number above 0 and below 0.5"),
        ("data.size", [32, [32], [32, 32, 3], [0, 1], [1, 4097], [1.0, 2], [True, 2], "32"],
         "a list of 2, each an integer from 1 to 4096"),
        ("data.transfer", [[], ["1", 2], "1"], "a list of at least one, each a string"),
        ("schedule.teacher.shift", [-1, 33, 1.5], "an integer from 0 to 32"),
        ("views.flip", [1, "true"], "true or false"),
        ("views.shift", [-1, 33, 1.5, False], "an integer from 0 to 32"),
        ("teacher.model", ["resnet", 3, ["a:b"]],
         "one of " + ", ".join(recipe.MODELS) + ", package.module:function"),
        ("loss.name", ["hinton", 3], "one of " + ", ".join(NAMES) + ", package.module:name"),
        ("loss.settings", [3, ["a"]], "a section"),
        ("loss.beta", [-1.0, True], "a finite number of at least 0"),
        ("loss.alpha", [-0.01, 1.01, True, "half", [0.5]], "a number from 0 to 1 or 'auto'"),
        ("loss.temperature", [0, -1.0, True], "a finite number above 0"),
        ("schedule.precision", ["double"], "one of auto, float32, bfloat16"),
        ("schedule.teacher.epochs", [0, 1.5, True], "an integer of at least 1"),
        ("schedule.student.batch_size", [0], "an integer of at least 1"),
        ("schedule.student.learning_rate", [0], "a finite number above 0"),
        ("schedule.student.warmup", [1, -0.1], "a number of at least 0 and below 1"),
        ("schedule.student.momentum", [1], "a number of at least 0 and below 1"),
        ("schedule.student.weight_decay", [-0.1], "a finite number of at least 0"),
        ("schedule.student.label_smoothing", [1], "a number of at least 0 and below 1"),
        ("schedule.student.optimizer", [3, ["sgd"]], "a string"),
        ("schedule.student.learning_rate_schedule", ["poly"], "one of linear, cosine, step"),
        ("schedule.student.milestones", [[], 0.5, [0.5, 1.0], [0]],
         "a list of at least one, each a number above 0 and below 1"),
        ("schedule.student.clip_norm", [0, -1.0, True], "a finite number above 0"),
        ("schedule.student.ema", [0, 1.0, True], "a number above 0 and below 1"),
        ("schedule.student.early_stopping", [0, 1.5, True], "an integer of at least 1"),
        ("schedule.student.monitor", ["accuracy"], "one of val_accuracy, val_loss"),
        ("schedule.student.class_weights", ["even", True], "'balanced'"),
        ("schedule.student.sampling", ["even", 3], "'balanced'"),
        ("schedule.student.layer_decay", [0, 1.0, True], "a number above 0 and below 1"),
        ("schedule.student.frozen_epochs", [0, 1.5], "an integer of at least 1"),
        ("schedule.student.gamma", [0, 1.0], "a number above 0 and below 1"),
        ("loss", [3, [1]], "a section"),
    ],
)  # fmt: skip
def test_an_impossible_value_is_told_with_what_was_expected(
    key: str, values: list[object], expected: str
) -> None:
    for value in values:
        found = str(value).lower() if isinstance(value, bool) else repr(value)
        assert mistake(key, value) == f"expected {expected}, found {found}"


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("teacher.model", "teachr-2m", "teacher-2m"),
        ("student.model", "student", "student-300k"),
        ("loss.name", "attention-tranfser", "attention-transfer"),
        ("loss.name", "nkdd", "nkd"),
        ("data.name", "cifar", "cifar10"),
        ("schedule.precision", "bflaot16", "bfloat16"),
        # Names of another list are no suggestions.
        ("teacher.model", "rkd", None),
        ("teacher.model", "digits", "digits-teacher or digits-student"),
        ("student.model", "mnist", None),
        ("loss.name", "mlp-300", None),
        ("loss.name", "temperature", None),
    ],
)
def test_a_misspelled_name_leads_to_the_nearest_one_of_its_list(
    key: str, value: str, meant: str | None
) -> None:
    told = mistake(key, value)
    assert f", found {value!r}" in told
    assert told.partition("; did you mean ")[2] == (f"{meant}?" if meant else "")


def test_a_misspelled_loss_of_several_leads_to_the_nearest_one() -> None:
    told = refusal("digits", {"loss.more": [{"name": "rkd"}, {"name": "fitnett"}]})
    assert told.endswith("did you mean fitnet?")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("seed", [0, 2**31 - 1]),
        ("data.validation", [0.001, 0.499]),
        ("data.size", [[1, 4096]]),
        ("views.shift", [0, 32]),
        ("loss.alpha", [0, 1]),
        ("schedule.student.warmup", [0, 0.999]),
        ("schedule.student.weight_decay", [0]),
        ("schedule.student.epochs", [1]),
    ],
)
def test_values_at_the_edge_are_taken(key: str, values: list[object]) -> None:
    for value in values:
        recipe.load("digits", {key: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_number_may_be_other_than_finite(value: float) -> None:
    tree = recipe.to_dict(recipe.load("digits"))
    student = tree["schedule"]["student"]
    keys = [f"{part}.{key}" for part in ("data", "loss") for key in tree[part]]
    keys += [f"schedule.student.{key}" for key in student]
    values = tree["data"] | tree["loss"] | student
    floats = [key for key in keys if type(values[key.split(".")[-1]]) is float]
    assert len(floats) == 9
    for key in floats:
        assert mistake(key, value).endswith(f", found {value}")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("alpha", "did you mean loss.alpha?"),
        ("views.alpha", "did you mean loss.alpha?"),
        ("loss.temprature", "did you mean loss.temperature?"),
        ("loss.temp", "did you mean loss.temperature?"),
        (
            "schedule.epochs",
            "did you mean schedule.teacher.epochs or schedule.student.epochs?",
        ),
        ("student.epochs", "did you mean schedule.student.epochs?"),
        ("model", "did you mean teacher.model or student.model?"),
        ("name", "did you mean data.name or loss.name?"),
        ("schedul", "did you mean schedule?"),
        ("scedule.teacher.epochs", "did you mean schedule.teacher.epochs?"),
        ("vews.x", "did you mean views?"),
        ("views.flpi", "did you mean views.flip?"),
        ("schedule.student.learn_rate", "did you mean schedule.student.learning_rate?"),
        ("data.val", "did you mean data.validation?"),
        ("schedule.device", SCHEDULE),
        ("schedule.lr", SCHEDULE),
        ("views.rotate", VIEWS),
        ("views.views_per_image", VIEWS),
        (
            "loss.xyz",
            "expected one of loss.name, loss.weight, loss.ramp, loss.warmup, loss.temperature, "
            "loss.beta, loss.gamma, loss.distance_weight, loss.angle_weight, loss.teacher_layer, "
            "loss.student_layer, loss.settings, loss.alpha, loss.more, loss.generations, "
            "loss.stored_classes",
        ),
        ("xyz", "expected one of seed, track, data, views, teacher, student, loss, schedule"),
        ("seed.xyz", "expected one of seed, track, data, views, teacher, student, loss, schedule"),
    ],
)
def test_an_unknown_key_leads_to_the_nearest_valid_one(key: str, expected: str) -> None:
    assert mistake(key, 0.5) == f"unknown key, {expected}"


@pytest.mark.parametrize("key", ["data.train_size", "loss.optimizer_name", "teacher.layers", "lr"])
def test_an_unrelated_key_is_never_a_suggestion(key: str) -> None:
    message = mistake(key, 0.5)
    section = key.rpartition(".")[0]
    assert "did you mean" not in message
    assert all(name.startswith(section) for name in message.split("one of ")[1].split(", "))


def test_unknown_keys_and_sections_of_the_file_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('name = "x"\n' + SMALLEST + "epoch = 3\n[los]\n", encoding="utf-8")
    assert refusal(file) == (
        f"{file}: 3 mistakes: name: unknown key, did you mean data.name or loss.name?; "
        f"schedule.epoch: unknown key, {SCHEDULE}; "
        "los: unknown key, did you mean loss?"
    )


def test_what_is_missing_is_told_with_what_was_expected(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    text = SMALLEST.replace('[teacher]\nmodel = "teacher-2m"', "").replace("epochs = 2, ", "")
    file.write_text(text, encoding="utf-8")
    assert refusal(file) == (
        f"{file}: 2 mistakes: teacher: expected a section, found nothing; "
        "schedule.teacher.epochs: expected an integer of at least 1, found nothing"
    )


def test_an_override_into_what_is_no_section_tells_the_files_mistake(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text("loss = 3" + SMALLEST.replace("[loss]", ""), encoding="utf-8")
    expected = f"{file}: 1 mistake: loss: expected a section, found 3"
    assert refusal(file, {"loss.alpha": 0.5}) == expected


def test_a_model_is_named_or_has_a_file_and_a_file_alone_says_how_it_takes_images() -> None:
    given = {"teacher.file": "t.onnx", "teacher.size": [64, 64], "teacher.mean": [0.5], "seed": 1}
    told = recipe.load("digits", given | {"student.file": "mine:net", "student.scale": 255})
    assert (told.teacher.file, told.teacher.size, told.teacher.mean) == ("t.onnx", (64, 64), (0.5,))
    assert (told.student.file, told.student.scale) == ("mine:net", 255.0)
    with pytest.raises(ValueError, match="found neither"):
        recipe.network.known(recipe.Network())
    assert refusal("digits", {"student.scale": 255}) == (
        "digits.toml: 1 mistake: student: scale applies only to a model of your own, from a file "
        "or a function, found scale = 255.0 with model digits-student"
    )
    wrong = refusal("digits", {"teacher.std": [0], "teacher.file": "t.onnx", "teacher.mean": 3})
    assert "teacher.std: expected a list, each a finite number above 0, found [0]" in wrong
    assert "teacher.mean: expected a list, each a finite number, found 3" in wrong


def test_a_network_of_ones_own_is_a_model_with_preprocessing() -> None:
    given = {"teacher.model": "my.networks:large", "teacher.scale": 255, "student.model": "nets:s"}
    told = recipe.load("digits", given)
    assert (told.teacher.own, told.teacher.scale) == ("my.networks:large", 255.0)
    assert told.student.own == "nets:s"
    assert recipe.load("digits").teacher.own is None
    assert recipe.load("digits", {"teacher.file": "t:net"}).teacher.own is None
    for file in ("t.keras", "runs/digits-1"):
        assert mistake("teacher.model", file).endswith(f"found {file!r}; give a file as `file`")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"seed = = 3", "(at line 1, column 8)"),
        (b"seed = 0\nseed = 1\n", "(at line 2, "),
        (b"seed = 0\na = [1,\n\n", "(at line 2, the last)"),
        (b"seed = 0\n\xff\xfe", "'utf-8' codec can't decode"),
    ],
)
def test_what_is_no_toml_is_told_with_file_and_line(
    tmp_path: Path, content: bytes, found: str
) -> None:
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    message = refusal(file)
    assert message.startswith(f"{file}: invalid TOML: ")
    assert found in message


def test_a_recipe_that_is_not_there_is_told_with_the_names_that_are(tmp_path: Path) -> None:
    ending = ": expected digits, mnist, cifar10, distill or the path of a .toml file"
    assert refusal("digts") == f"no recipe 'digts'{ending}; did you mean digits?"
    assert refusal("mine.toml") == f"no recipe 'mine.toml'{ending}"
    assert refusal(tmp_path) == f"no recipe '{tmp_path}'{ending}"
    assert refusal(tmp_path / "digits") == (
        f"no recipe '{tmp_path / 'digits'}'{ending}; did you mean digits?"
    )


def test_a_path_of_the_operating_system_that_fails_is_told_in_one_line() -> None:
    assert "expected a file that can be read, found: " in refusal("a" * 5000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss.alpha=0.5", 0.5),
        ("views.flip=true", True),
        ("data.size=[32,32]", [32, 32]),
        ("seed = 3", 3),
        ('data.path="a b"', "a b"),
        ("data.path='a b'", "a b"),
        ("data.name=mnist", "mnist"),
        ("data.path=/my images/a#b=c.zip", "/my images/a#b=c.zip"),
        ("data.path=C:\\images", "C:\\images"),
        ("views.flip=True", "True"),
    ],
)
def test_a_setting_is_read_as_toml_or_a_bare_word(text: str, expected: object) -> None:
    key, value = recipe.parse_setting(text)
    assert key == text.split("=")[0].strip()
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize("text", ["", "loss.alpha", "=1", "loss.alpha=", "a b=1", ".a=1", "a.=1"])
def test_a_setting_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"loss\.alpha") as caught:
        recipe.parse_setting(text)
    assert repr(text) in str(caught.value)


def test_a_setting_can_not_bring_in_a_second_one() -> None:
    with pytest.raises(RecipeError, match=r"loss\.alpha") as caught:
        recipe.parse_setting("loss.alpha=1\nseed=2")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["data.size=[32,", 'data.path="a', "data.path='a", "loss={a"])
def test_a_setting_that_opens_what_it_does_not_close_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="TOML value"):
        recipe.parse_setting(text)


def test_reading_a_recipe_loads_neither_keras_nor_pytorch() -> None:
    code = (
        "import sys, tutelage.recipe as r; r.load('digits'); "
        "sys.exit(bool({'keras', 'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss.beta": 2}, "beta is for dkd, dist, found beta = 2.0 with kd"),
        (
            {"loss.name": "dkd", "loss.gamma": 2},
            "gamma is for nkd, dist, found gamma = 2.0 with dkd",
        ),
    ],
)
def test_a_weight_of_another_loss_is_refused(settings: dict[str, object], said: str) -> None:
    assert refusal("digits", settings) == f"digits.toml: 1 mistake: loss: {said}"


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ({"name": "fitnet", "temperature": 2}, "loss: temperature is for kd, "),
        (
            {"name": "fitnet", "teacher_layer": "a"},
            "loss: expected both teacher_layer",
        ),
        ({"warmup": 0.5}, 'loss: warmup requires ramp = "linear"'),
        ({"ramp": "square"}, "loss.ramp: expected one of linear, cosine, found 'square'"),
        ({"more": 3}, "loss.more: expected a list of sections, found 3"),
        (
            {"more": [{"name": "rkd"}, {"weight": -1}]},
            "loss.more.1.weight: expected a finite",
        ),
        ({"more": [{"nam": "rkd"}]}, "loss.more.0.nam: unknown key, did you mean loss.more.name?"),
        ({"more": [{"name": "rkd", "beta": 2}]}, "loss.more.0: beta is for dkd, dist"),
        ({"more": [{"name": "rkd", "alpha": 2}]}, "loss.more.0.alpha: unknown key"),
    ],
)
def test_settings_of_terms_are_checked_where_they_stand(
    smallest: Path, loss: dict[str, object], said: str
) -> None:
    assert said in refusal(smallest, {f"loss.{key}": value for key, value in loss.items()})


def test_only_optimizers_with_a_momentum_take_one(smallest: Path) -> None:
    for name in ("adamw", "Adafactor", "SGD", "mine:made"):
        settings = {"schedule.student.optimizer": name}
        assert recipe.load(smallest, settings).schedule.student.momentum is None
        assert refusal(smallest, settings | {"schedule.student.momentum": 0.5}).endswith(
            f"schedule.student: momentum is for sgd, muon, found momentum = 0.5 with {name}"
        )
    for name in ("sgd", "muon"):
        assert recipe.load(smallest, {"schedule.student.optimizer": name}).schedule.student == (
            recipe.Schedule(epochs=3, learning_rate=1, optimizer=name, momentum=0.9)
        )


def test_another_optimizer_leaves_the_momentum_of_the_files_own(smallest: Path) -> None:
    told = recipe.load("cifar10", {"schedule.student.optimizer": "lamb"}).schedule
    assert (told.teacher.momentum, told.student.momentum) == (0.9, None)
    faster = smallest.read_text(encoding="utf-8").replace(
        "student = {", "student = {momentum = 0.8, "
    )
    smallest.write_text(faster, encoding="utf-8")
    for name, momentum in (("muon", 0.8), ("lamb", None)):
        settings = {"schedule.student.optimizer": name}
        assert recipe.load(smallest, settings).schedule.student.momentum == momentum
    text = faster.replace("student = {", 'student = {optimizer = "lamb", ')
    smallest.write_text(text, encoding="utf-8")
    assert "found momentum = 0.8 with lamb" in refusal(smallest)  # the file contradicts itself


def test_a_monitored_figure_without_early_stopping_is_refused() -> None:
    told = refusal("digits", {"schedule.student.monitor": "val_loss"})
    assert "schedule.student: monitor requires early_stopping" in told


def test_frozen_epochs_are_fewer_than_all(smallest: Path) -> None:
    told = refusal(smallest, {"schedule.student.frozen_epochs": 3})
    assert "schedule.student: expected frozen_epochs below epochs = 3, found 3" in told
    loaded = recipe.load(smallest, {"schedule.student.frozen_epochs": 2})
    assert loaded.schedule.student.frozen_epochs == 2


def test_two_ways_to_balance_the_classes_are_refused() -> None:
    settings = {f"schedule.student.{name}": "balanced" for name in ("class_weights", "sampling")}
    assert "expected one, found both" in refusal("digits", settings)


STEP = {"schedule.student.learning_rate_schedule": "step"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gamma": 0.5}, 'gamma requires learning_rate_schedule = "step", found gamma = 0.5 '),
        ({"learning_rate_schedule": "cosine", "milestones": [0.5]}, "milestones requires"),
        ({"learning_rate_schedule": "step", "milestones": [0.5, 0.5]}, "expected ascending"),
        ({"learning_rate_schedule": "step", "milestones": [0.2]}, "above warmup = 0.2, found"),
        ({"learning_rate_schedule": "step", "warmup": 0.6}, "found [0.5, 0.75]"),
    ],
)
def test_milestones_that_can_not_be_are_refused(settings: dict[str, object], said: str) -> None:
    told = refusal("digits", {f"schedule.student.{key}": value for key, value in settings.items()})
    assert told.startswith("digits.toml: 1 mistake: schedule.student: ")
    assert said in told


def test_another_learning_rate_schedule_leaves_the_milestones_of_the_files_own(
    tmp_path: Path,
) -> None:
    file = tmp_path / "stepped.toml"
    settings = STEP | {"schedule.student.milestones": [0.4], "schedule.student.gamma": 0.2}
    stepped = recipe.load("digits", settings)
    file.write_text(recipe.to_toml(stepped), encoding="utf-8")
    again = recipe.load(file, {"schedule.student.epochs": 25})
    assert again.schedule == stepped.schedule
    assert recipe.load(file, STEP).schedule.student.milestones == (0.4,)
    cosine = recipe.load(file, {"schedule.student.learning_rate_schedule": "cosine"})
    assert (cosine.schedule.student.milestones, cosine.schedule.student.gamma) == (None, None)


def test_several_losses_come_back_from_toml(smallest: Path, tmp_path: Path) -> None:
    more = [{"name": "rkd", "weight": 0.5, "ramp": "linear", "warmup": 0.2}, {"name": "dist"}]
    told = recipe.load(smallest, {"loss.more": more})
    assert [term.name for term in told.loss.terms()] == ["kd", "rkd", "dist"]
    (tmp_path / "again.toml").write_text(recipe.to_toml(told), encoding="utf-8")
    assert recipe.load(tmp_path / "again.toml").loss == told.loss
    assert recipe.key(told) != recipe.key(recipe.load(smallest))


def test_another_loss_leaves_the_settings_of_the_files_own() -> None:
    assert recipe.load("digits", {"loss.name": "kd"}).loss.temperature == 2.0
    assert recipe.load("digits", {"loss.name": "dkd"}).loss.temperature is None
    told = recipe.load("digits", {"loss.name": "dkd", "loss.temperature": 3})
    assert (told.loss.temperature, told.loss.alpha) == (3.0, 0.9)


def test_a_loss_of_ones_own_has_settings_of_its_own(smallest: Path, tmp_path: Path) -> None:
    settings = {"width": 2.5, "kind": "soft", "levels": [1, 2], "inner": {"on": True}}
    more = [{"name": "nets:other", "weight": 2, "settings": {"a": 1}}, {"name": "rkd"}]
    given = {"loss.name": "my.losses:Loss", "loss.settings": settings, "loss.more": more}
    told = recipe.load(smallest, given)
    assert [term.own for term in told.loss.terms()] == [True, True, False]
    assert told.loss.settings == settings
    (tmp_path / "again.toml").write_text(recipe.to_toml(told), encoding="utf-8")
    again = recipe.load(tmp_path / "again.toml")
    assert again.loss == told.loss
    # One by one, as on the command line.
    one = {"loss.name": "a:b", "loss.settings.width": 3, "loss.settings.inner.on": False}
    assert recipe.load(smallest, one).loss.settings == {"width": 3, "inner": {"on": False}}
    over = {"loss.settings.inner.on": False}
    assert recipe.load(tmp_path / "again.toml", over).loss.settings == settings | {
        "inner": {"on": False}
    }
    # Another loss drops them, the same one keeps them.
    extended = tmp_path / "extended.toml"
    for name, kept in (
        ("my.losses:Loss", settings | {"width": 9}),
        ("my.losses:Other", {"width": 9}),
    ):
        extended.write_text(
            f'extends = "again.toml"\n[loss]\nname = "{name}"\nsettings = {{width = 9}}',
            encoding="utf-8",
        )
        assert recipe.load(extended).loss.settings == kept
    assert recipe.load(tmp_path / "again.toml", {"loss.name": "kd"}).loss.settings is None


@pytest.mark.parametrize(
    ("loss", "offender"),
    [
        ({"settings": {"a": 1}}, "loss: settings is for a loss of your own"),
        ({"name": "a:b", "temperature": 2}, "loss: temperature is for .* with a:b; .* settings"),
        ({"name": "a:b", "settings": {"day": datetime.date(2026, 1, 1)}}, "loss.settings: .*day"),
        ({"name": "a:b", "settings": {"x": [float("nan")]}}, "loss.settings: .*x = "),
        ({"name": "a:b", "settings": {"x": None}}, "loss.settings: .*x = "),
        ({"name": "a:b", "more": [{"name": "c:d", "settings": 3}]}, "loss.more.0.settings: "),
        ({"name": "a.b"}, "package.module:name"),
    ],
)
def test_settings_that_no_loss_can_have_are_refused(loss: dict[str, object], offender: str) -> None:
    told = refusal("digits", {f"loss.{key}": value for key, value in loss.items()})
    assert re.search(offender, told)


def test_the_weights_of_a_loss_are_in_its_recipe_only_when_given() -> None:
    plain = recipe.load("digits", {"loss.name": "dist"})
    given = recipe.load("digits", {"loss.name": "dist", "loss.beta": 2, "loss.gamma": 0})
    assert recipe.to_dict(plain)["loss"] == {"name": "dist", "alpha": 0.9}
    assert recipe.to_dict(given)["loss"] == recipe.to_dict(plain)["loss"] | {
        "beta": 2.0,
        "gamma": 0.0,
    }


@pytest.mark.parametrize("value", ["caf\udce9", ["a.keras", "caf\udce9.keras"]])
def test_a_path_that_is_not_utf8_is_refused_by_its_key(value: object) -> None:
    with pytest.raises(RecipeError, match=r"teacher\.file"):
        recipe.load("distill", {"teacher.file": value})
