"""FuxiCTR as a peer of kdrec: its trainer on the same model, on the CPU; see `kdrec_torch` for what goes in and out."""

import tempfile

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.models import BaseModel
from kdrec_torch import RATE, Ranker
from torch import nn


class Model(BaseModel):
    """The ranker inside FuxiCTR's base class, which brings the loop over batches."""

    def __init__(self, arrays, tasks):
        """Take the given parameters, and two tasks where FuxiCTR has one."""
        features = FeatureMap("events", tempfile.gettempdir())
        features.labels = ["labels"]
        super().__init__(features, model_root=tempfile.gettempdir(), metrics=["logloss"], verbose=0)
        self.ranker = Ranker(arrays)
        self.compile("adam", "binary_crossentropy", RATE)
        self.total = torch.zeros(tasks)
        # No evaluation in between, and no clipping: neither is part of what the others do.
        self._eval_steps, self._total_steps, self._max_gradient_norm, self._stop_training = 1 << 60, 0, 1e9, False

    def get_labels(self, inputs):
        """All tasks, as the base class asks its heirs to do."""
        return inputs["labels"]

    def forward(self, inputs):
        """Logits, since a loss of logits is what the others take."""
        return {"logits": self.ranker(inputs["ids"])}

    def add_loss(self, return_dict, y_true):
        """Mean over events, sum over tasks."""
        logits = return_dict["logits"]
        each = nn.functional.binary_cross_entropy_with_logits(logits, y_true, reduction="none").sum(0)
        self.total += each.detach()
        return each.sum() / len(y_true)


def trainer(arrays):
    """One epoch of `train_epoch` over batches that are ready in memory."""
    ids, labels = torch.from_numpy(arrays["ids"]).long(), torch.from_numpy(arrays["labels"])
    batches = [{"ids": batch, "labels": outcome} for batch, outcome in zip(ids, labels, strict=True)]

    def run():
        model = Model(arrays, labels.shape[-1])
        model.train_epoch(batches)
        return (model.total / labels[..., 0].numel()).double().numpy()

    return run
