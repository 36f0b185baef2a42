"""PyTorch peers of kdrec, written the way a good user would, on the CPU.

A function takes the events (`ids` `[T, B, F]`, `labels` `[T, B, K]`) and the initial parameters (`p_...`), and returns
the callable to time: the mean log loss of each task over what was predicted before it was learned.
"""

import torch
from torch import nn

RATE = 0.005


class Ranker(nn.Module):
    """Embeddings, two layers, heads, and a bias of each value for each task, from the given parameters."""

    def __init__(self, arrays):
        super().__init__()
        given = {name[2:]: torch.from_numpy(array).clone() for name, array in arrays.items() if name.startswith("p_")}
        self.embedding = nn.Embedding.from_pretrained(given["embedding"], freeze=False)
        self.biases = nn.Embedding.from_pretrained(given["biases"], freeze=False)
        layers = []
        for number in range(2):
            kernel, bias = (given[f"trunk.mlp.layers.layer{number}.{part}"] for part in ("kernel", "bias"))
            layers += [_linear(kernel.T, bias), nn.ReLU()]
        self.mlp, self.heads = nn.Sequential(*layers), _linear(given["heads.kernel"], given["heads.bias"])

    def forward(self, ids):
        """`[B, F]` to logits `[B, K]`."""
        return self.heads(self.mlp(self.embedding(ids).flatten(1))) + self.biases(ids).sum(1)


def _linear(weight, bias):
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight.contiguous(), bias
    return layer


def plain_loop(arrays):
    """A loop over batches with `torch.optim.Adam(fused=True)`, its fastest form."""
    ids, labels = torch.from_numpy(arrays["ids"]).long(), torch.from_numpy(arrays["labels"])

    def run():
        model = Ranker(arrays)
        adam = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
        total = torch.zeros(labels.shape[-1])
        for batch, outcome in zip(ids, labels, strict=True):
            each = nn.functional.binary_cross_entropy_with_logits(model(batch), outcome, reduction="none").sum(0)
            total += each.detach()
            adam.zero_grad(set_to_none=True)
            (each.sum() / len(batch)).backward()
            adam.step()
        return (total / labels[..., 0].numel()).double().numpy()

    return run
