"""Code that a recipe names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tutelage.errors import RecipeError
from tutelage.recipe import reference


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a module into the current folder and give its name."""
    monkeypatch.chdir(tmp_path)

    def write(source: str) -> str:
        name = f"named_{len(list(tmp_path.glob('*.py')))}_{tmp_path.name}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


@pytest.mark.parametrize("text", ["a:b", "my.package.module:Name", "a_1:_b", "größe:ä"])
def test_references_are_known_by_their_form(text: str) -> None:
    assert reference.is_reference(text)


@pytest.mark.parametrize(
    "text", ["", "kd", "a.b", "a:", ":b", "a:b:c", "C:/t.keras", "a-b:c", "1a:b", "a:b.c", "a :b"]
)
def test_names_and_paths_are_no_references(text: str) -> None:
    assert not reference.is_reference(text)


def test_a_name_is_found_in_the_current_folder_which_is_no_longer_searched(
    code: Callable[[str], str],
) -> None:
    path = list(sys.path)
    assert reference.find(f"{code('def double(x): return 2 * x')}:double")(4) == 8
    assert sys.path == path


@pytest.mark.parametrize(
    ("source", "name", "offender"),
    [
        ("def f(:", "f", "SyntaxError"),
        ("import no_such_module", "f", "no_such_module"),
        ("raise OSError('two\\nlines')", "f", "two lines"),
        ("import sys; sys.exit(3)", "f", "SystemExit"),
        ("def network(): ...", "netwrok", "did you mean network?"),
        ("value = 3", "value", "value"),
    ],
)
def test_what_can_not_be_imported_is_one_line_that_names_it(
    code: Callable[[str], str], source: str, name: str, offender: str
) -> None:
    module = code(source)
    with pytest.raises(RecipeError) as caught:
        reference.find(f"{module}:{name}")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{module}:{name}: ")
    assert offender in line


def test_a_function_gets_the_arguments_that_it_has_parameters_for() -> None:
    offered = {"input_shape": (8, 8, 1), "classes": 10}

    def only(classes: int, /, input_shape: object = None) -> None: ...
    def keyword(*, classes: int) -> None: ...
    def others(*args: object, **kwargs: object) -> None: ...

    class Network:
        def __init__(self, input_shape: object, width: int = 8) -> None: ...

    assert reference.accepted(only, offered) == {"input_shape": (8, 8, 1)}
    assert reference.accepted(keyword, offered) == {"classes": 10}
    assert reference.accepted(others, offered) == {}
    assert reference.accepted(Network, offered) == {"input_shape": (8, 8, 1)}
    assert reference.accepted(min, offered) == {}  # in C, without a signature
