"""What can go wrong, each also a child of the standard error a user would catch."""


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
