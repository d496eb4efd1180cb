"""Settings that a loader takes the place of: refused from a user, replaced in a recipe."""

from __future__ import annotations

import pytest

from tutelage import recipe
from tutelage.errors import RecipeError


@pytest.mark.parametrize(
    "key",
    [
        "views.flip",
        "views.mixup",
        "views.distinct",
        "data.name",
        "data.path",
        "data.size",
        "data.validation",
        "data.split_seed",
        "data.transfer",
        "data.unlabeled",
        "data.in_memory",
        "data.workers",
        "schedule.student.batch_size",
        "schedule.teacher.batch_size",
        "schedule.student.cutout",
        "schedule.teacher.shift",
        "schedule.student.sampling",
    ],
)
def test_a_users_setting_is_refused_by_name(key: str) -> None:
    with pytest.raises(RecipeError, match=key):
        recipe.loader_overrides({"loss.alpha": 0.5, key: 3})


@pytest.mark.parametrize("name", recipe.BUNDLED)
def test_a_recipes_settings_are_replaced_and_told(name: str) -> None:
    whole = recipe.load(name)
    told = recipe.replaced_by_loader(whole)
    assert f"schedule.student.batch_size = {whole.schedule.student.batch_size}" in told
    assert (f"views.shift = {whole.views.shift}" in told) == (whole.views.shift > 0)
    replaced = recipe.load(name, recipe.loader_overrides({}))
    assert all("batch_size" in line for line in recipe.replaced_by_loader(replaced))
    assert (replaced.views.flip, replaced.views.shift, replaced.views.distinct) == (False, 0, 0)
    assert replaced.loss == whole.loss
    assert recipe.with_batch_size(whole, 7).schedule.teacher.batch_size == 7


def test_augmentation_of_a_recipe_file_is_replaced(tmp_path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'extends = "cifar10"\n[data]\nsize = [40, 40]\ntransfer = ["cat"]\n'
        '[views]\ncrop = "random-resized"\ncrop_scale = [0.5, 1.0]\nmixup = 0.2\n'
        '[schedule.student]\ncutout = 4\nsampling = "balanced"\n'
    )
    told = recipe.replaced_by_loader(recipe.load(file))
    assert {"data.size = [40, 40]", "views.crop_scale = [0.5, 1.0]"} <= set(told)
    replaced = recipe.load(file, recipe.loader_overrides({}))
    assert replaced.data.transfer is replaced.views.crop is replaced.views.crop_scale is None
    assert replaced.schedule.student.cutout == 0
