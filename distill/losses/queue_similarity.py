"""Imitate how like the teacher finds a picture to pictures it saw before.

Legend: N images, D channels of the teacher's embedding, Q places of the queue.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from edge_runtime.errors import ConfigError

__all__ = ["EmbeddingQueue", "queue_similarity_loss"]


class EmbeddingQueue(torch.nn.Module):
    """The teacher's last embeddings, at most `size`; the oldest go first."""

    embeddings_qd: torch.Tensor

    def __init__(self, size: int, width: int) -> None:
        """Start empty.

        Raises:
            ConfigError: fewer than 2 places: a softmax over one says nothing.
        """
        super().__init__()
        if size < 2:
            raise ConfigError(f"queue_size is {size}; it must be at least 2")
        self.size = size
        # A resumed run has to load a queue of any fill into a fresh one: fixed shape, own count.
        self.register_buffer("embeddings_qd", torch.zeros(size, width))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def filled(self) -> torch.Tensor:
        """(q, D) what is in it, newest last."""
        count = int(self.get_buffer("count"))
        return self.embeddings_qd[self.size - count :]

    @torch.no_grad()
    def push(self, embeddings_nd: torch.Tensor) -> None:
        """Append (N, D) embeddings."""
        rows = torch.cat([self.embeddings_qd, embeddings_nd.detach().float()])[-self.size :]
        self.embeddings_qd.copy_(rows)
        self.get_buffer("count").add_(len(embeddings_nd)).clamp_(max=self.size)


def queue_similarity_loss(
    mapped_nd: torch.Tensor,
    teacher_nd: torch.Tensor,
    queue_qd: torch.Tensor,
    *,
    temperature: float = 0.07,
) -> torch.Tensor:
    """KL divergence between the two distributions of similarity over the queue.

    p = softmax over q of cos(teacher, q) / temperature, s likewise of the mapped student; the
    loss is the mean of sum_q p log(p / s). Zero at equality; lengths do not matter; the queue's
    order does not matter. Source: SEED (arXiv 2101.04731), and lightly-train v1, where it gave
    the best classification of three distillation losses.

    Args:
        mapped_nd: (N, D) student embedding behind its throw-away linear map.
        teacher_nd: (N, D) standardised; no gradient flows into it.
        queue_qd: (q, D) standardised embeddings of other pictures, q >= 2.
        temperature: of both softmaxes, above 0.

    Returns:
        Scalar float32, >= 0.
    """
    queue = functional.normalize(queue_qd.detach().float(), dim=1)
    target = functional.normalize(teacher_nd.detach().float(), dim=1) @ queue.T / temperature
    ours = functional.normalize(mapped_nd.float(), dim=1) @ queue.T / temperature
    return functional.kl_div(
        ours.log_softmax(1), target.log_softmax(1), reduction="batchmean", log_target=True
    )
