"""Transformers and mixers, small."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SwiGLU(nn.Module):
    """The MLP of language models, over tokens."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.up, self.down = (
            nn.Linear(width, hidden),
            nn.Linear(width, hidden),
            nn.Linear(hidden, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class GroupedQuery(nn.Module):
    """Four heads of queries, two of keys and values."""

    def __init__(self, width: int, heads: int = 4, shared: int = 2) -> None:
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, width // heads
        self.q, self.kv = nn.Linear(width, heads * self.size), nn.Linear(width, 2 * shared * self.size)
        self.out = nn.Linear(heads * self.size, width)

    def forward(self, x: Tensor) -> Tensor:
        images, tokens, _ = x.shape
        q = self.q(x).view(images, tokens, self.heads, self.size).transpose(1, 2)
        k, v = self.kv(x).view(images, tokens, 2, self.shared, self.size).permute(2, 0, 3, 1, 4)
        k, v = (one.repeat_interleave(self.heads // self.shared, 1) for one in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, scale=0.5)
        return self.out(y.transpose(1, 2).reshape(images, tokens, -1))


class Tokens(nn.Module):
    """A small transformer of any attention, MLP and norm."""

    def __init__(
        self,
        attention: Callable[[int], nn.Module],
        mlp: Callable[[int], nn.Module] | None = None,
        norm: type[nn.Module] = nn.LayerNorm,
        depth: int = 2,
    ) -> None:
        super().__init__()
        width = 32
        self.embed, self.token = nn.Conv2d(3, width, 8, 8), nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(0.1 * torch.randn(1, 65, width))
        mlp = mlp or (lambda width: nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width)))
        self.mix = nn.ModuleList(nn.Sequential(norm(width), attention(width)) for _ in range(depth))
        self.mlp = nn.ModuleList(nn.Sequential(norm(width), mlp(width)) for _ in range(depth))
        self.norm, self.head = norm(width), nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        for mix, mlp in zip(self.mix, self.mlp, strict=True):
            x = x + mix(x)
            x = x + mlp(x)
        return self.head(self.norm(x)[:, 0])


class QKV(nn.Module):
    """Attention as in timm: one layer for queries, keys and values."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.scale, self.qkv, self.proj = self.head_dim**-0.5, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        images, tokens, width = x.shape
        qkv = self.qkv(x).reshape(images, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        shares = (q * self.scale @ k.transpose(-2, -1)).softmax(-1)
        return self.proj((shares @ v).transpose(1, 2).reshape(images, tokens, width))


class Torchs(nn.Module):
    """torch's own attention."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Mixing(nn.Module):
    """An MLP over tokens, one over features."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 24), nn.GELU(), nn.Linear(24, tokens))
        self.features = nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.n1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.features(self.n2(x))


class Mixer(nn.Module):
    """MLP-Mixer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.blocks = nn.Conv2d(3, 32, 8, 8), nn.Sequential(Mixing(64, 32), Mixing(64, 32))
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(images).flatten(2).transpose(1, 2)).mean(1))
