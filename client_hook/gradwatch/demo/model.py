"""The demo's model: a character-level GRU language model, small enough for a laptop's processor."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from gradwatch.demo.corpus import ALPHABET


class CharacterModel(nn.Module):
    """Predicts each next character. Input (batch, length) int64, output (batch, length, len(ALPHABET)) logits."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET), width)
        self.recurrent = nn.GRU(width, width, num_layers=2, batch_first=True)
        self.output = nn.Linear(width, len(ALPHABET))

    def forward(self, characters: Tensor) -> Tensor:
        hidden, _ = self.recurrent(self.embedding(characters))
        return cast(Tensor, self.output(hidden))
