"""The logits of a run's models on the validation and test images."""

from __future__ import annotations

import keras
import numpy as np

from tutelage import storage
from tutelage.data.content import Images
from tutelage.errors import RunError
from tutelage.evaluation import metrics
from tutelage.experiment.spec import Experiment, StageSpec
from tutelage.models import loading
from tutelage.runs.run_folder import RunFolder


class StageLogits:
    """Computes the logits of a run's models; those of the validation images once.

    Args:
        experiment: the experiment.
        folder: its opened folder.
    """

    def __init__(self, experiment: Experiment, folder: RunFolder):
        self._experiment, self._folder = experiment, folder
        self._validation: dict[str, np.ndarray] = {}
        self._loaded: tuple[str, keras.Model] | None = None

    def model(self, stage: StageSpec) -> keras.Model | None:
        """A complete stage's saved model; None for a given teacher that is no Keras model.

        Raises:
            RunError: if its file has changed since it was trained.
        """
        if stage.given is not None and stage.given.model is None:
            return None
        if self._loaded is None or self._loaded[0] != stage.name:
            path = self._folder.model(stage.name)
            if storage.sha256(path) != self._folder.stages[stage.name]["sha256"]:
                raise RunError(f"{path} has changed since it was trained: give another --out")
            self._loaded = stage.name, loading.load_model(path)
        return self._loaded[1]

    def validation(self, stage: StageSpec) -> np.ndarray:
        """Float32 logits of the validation images, (images, classes).

        The stage is complete, or has a given teacher.
        """
        if stage.name not in self._validation:
            logits = self._compute(stage, self._experiment.validation.images)
            if logits is None:
                logits = self._experiment.given_logits(validation=True)
            assert logits is not None
            self._validation[stage.name] = logits
        return self._validation[stage.name]

    def validation_accuracy(self, stage: StageSpec) -> float:
        """The accuracy on the validation images, 0 to 1."""
        labels = self._experiment.validation.labels
        return float(metrics.score(self.validation(stage), labels)["accuracy"])

    def test(self, stage: StageSpec) -> np.ndarray | None:
        """Float32 logits of the test images; None if the teacher is a file of logits."""
        return self._compute(stage, self._experiment.data.test.images)

    def _compute(self, stage: StageSpec, images: Images) -> np.ndarray | None:
        if stage.given is None:
            return loading.logits(self.model(stage), images)
        return None if stage.given.logits is None else stage.given.logits(images, "float32")
