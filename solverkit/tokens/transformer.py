"""The bundled network `shakespeare`: a bidirectional transformer on characters that is told no time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention


class Block(nn.Module):
    """Pre-norm attention over the whole sequence with rotary positions (Su et al. 2021, eq. 34), then a perceptron."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_perceptron = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        b, l, d = x.shape  # noqa: E741
        q, k, v = self.qkv(self.norm_attention(x)).view(b, l, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(rotated(q, turn), rotated(k, turn), v)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).reshape(b, l, d)))
        return x + self.dropout(self.down(gelu(self.up(self.norm_perceptron(x)))))


def rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = turn
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)


class CharacterTransformer(nn.Module):
    """Logits of the clean character at every position, from a sequence some of whose characters are masked.

    Args:
        vocabulary: Number of characters V. The mask is the id V.
        width, depth, heads: Of the transformer.
        dropout: Of embeddings and residual branches, while it is trained.
    """

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.vocabulary, self.head_width = vocabulary, width // heads
        self.embedding, self.dropout = nn.Embedding(vocabulary + 1, width), nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, vocabulary)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                branch = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / (2 * depth) ** 0.5 if branch else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L) ids 0 .. V, V the mask, to logits (B, L, V)."""
        half = self.head_width // 2
        frequency = 10000.0 ** -(torch.arange(half, device=tokens.device) / half)
        angle = torch.arange(tokens.shape[1], device=tokens.device)[:, None] * frequency
        turn = angle.cos(), angle.sin()
        x = self.dropout(self.embedding(tokens))
        for block in self.blocks:
            x = block(x, turn)
        return self.head(self.norm(x))
