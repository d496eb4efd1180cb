"""What can go wrong, each also a child of the standard error a user would catch."""

from collections.abc import Iterator
from contextlib import contextmanager


class TutelageError(Exception):
    """Base of every error that a user can mend; the message is one line and says how."""


class RecipeError(TutelageError, ValueError):
    """A recipe, an option or an argument says something that can't be honoured."""


class DataError(TutelageError, ValueError):
    """A data set is damaged or is not what it should be."""


class DataNotFoundError(DataError, FileNotFoundError):
    """No data set where one was looked for."""


class ModelError(TutelageError, ValueError):
    """A model file or a pair of models that can't be used."""


class RunError(TutelageError, OSError):
    """A run folder that can't be used, or a disk that can't be written."""


class KnowledgeError(TutelageError, ValueError):
    """Stored logits that are torn, missing, or of another teacher, data or views."""


class TrainingError(TutelageError, ArithmeticError):
    """Training that can't go on: a loss that is not finite."""


class MissingExtraError(TutelageError, ModuleNotFoundError):
    """A package of one of the extras, such as `tutelage[report]`, that is not installed."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Name the extra that installs what a block imports.

    Args:
        name: of the extra, as in `pip install 'tutelage[NAME]'`.

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
