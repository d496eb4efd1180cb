"""Exceptions of the package; each also derives from the matching built-in exception."""

import re
from collections.abc import Iterator
from contextlib import contextmanager


class TutelageError(Exception):
    """Base of all errors that a user can fix; the message is one line and says how to."""


class RecipeError(TutelageError, ValueError):
    """A recipe, option or argument is invalid."""


class DataError(TutelageError, ValueError):
    """A data set is damaged or malformed."""


class DataNotFoundError(DataError, FileNotFoundError):
    """A data set was not found."""


class ModelError(TutelageError, ValueError):
    """A model file or a pair of models can't be used."""


class RunError(TutelageError, OSError):
    """A run folder can't be used, or a file can't be written."""


class LogitsError(TutelageError, ValueError):
    """Stored logits are damaged, missing, or of another teacher, data set or augmentation."""


class TrainingError(TutelageError, ArithmeticError):
    """Training can't continue: a loss is not finite."""


class MissingExtraError(TutelageError, ModuleNotFoundError):
    """A package of an optional extra, such as `tutelage[report]`, is not installed."""


def reason(error: BaseException) -> str:
    """An error's class and message on one line, without the colors of a terminal."""
    message = re.sub(r"\x1b\[[0-9;]*m", "", f"{type(error).__name__}: {error}")
    return " ".join(message.split())[:300]


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Report a failed import in this block with the extra that installs the package.

    Args:
        name: the extra, as in `pip install 'tutelage[NAME]'`.

    Raises:
        MissingExtraError: a package is not installed.

    Example:

    >>> from tutelage.errors import extra
    >>> with extra("report"):
    ...     import a_package_that_is_absent
    Traceback (most recent call last):
        ...
    tutelage.errors.MissingExtraError: a_package_that_is_absent is not installed: \
pip install 'tutelage[report]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if isinstance(error, MissingExtraError) or package == "tutelage":
            raise
        raise MissingExtraError(
            f"{package} is not installed: pip install 'tutelage[{name}]'", name=error.name
        ) from error
