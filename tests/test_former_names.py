"""The names of version 0.1.0 raise an error that says the present one."""

import importlib
import importlib.util

import pytest

import tutelage
from tutelage import former_names


@pytest.mark.parametrize("name", former_names._NOW)
def test_a_former_module_names_the_one_that_has_taken_its_place(name: str) -> None:
    now = f"tutelage.{former_names._NOW[name]}"
    assert importlib.util.find_spec(now) is not None
    with pytest.raises(ModuleNotFoundError, match=now):
        importlib.import_module(f"tutelage.{name}")
    if name not in tutelage.__all__:  # sweep and export are functions now
        with pytest.raises(AttributeError, match=now):
            getattr(tutelage, name)


def test_a_name_that_never_was_has_no_other() -> None:
    with pytest.raises(ModuleNotFoundError) as error:
        importlib.import_module("tutelage.nothing")
    assert "since" not in str(error.value)
