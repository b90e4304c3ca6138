"""Attention of a compact network: fewer heads than there were, which read and write fewer features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CutAttention(nn.Module):
    """What ``nn.MultiheadAttention`` computes, with some of its heads, features in and features out.

    softmax(Q K^T / sqrt(d) + mask) V for each of the h heads that stay, d features each. It is called as torch's.
    Weights that are averaged over heads are those of the heads that stay.

    Args:
        attention: one with ``in_proj_weight`` [3 h d, features in], cut.
        rows: of that matrix, which stay of those there were; None for all.
    """

    _qkv_same_embed_dim = False  # torch's encoder layers then call it, and take no weights out of it

    def __init__(self, attention: nn.MultiheadAttention, rows: Sequence[int] | None = None) -> None:
        super().__init__()
        self.embed_dim, self.all_heads, self.head_dim = (
            attention.embed_dim,
            attention.num_heads,
            attention.head_dim,
        )
        every = range(3 * self.embed_dim)
        first = (row for row in (every if rows is None else rows) if row < self.embed_dim)
        self.heads = tuple(dict.fromkeys(row // self.head_dim for row in first))
        self.num_heads = len(self.heads)
        self.batch_first, self.dropout = attention.batch_first, attention.dropout
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj
        self.train(attention.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Of tokens [B, n, features] (or [n, B, features], or [n, features]) as torch's attention takes them."""
        batched = query.ndim == 3
        tokens = [query, key, value]
        if not batched:
            tokens = [one.unsqueeze(0) for one in tokens]
        elif not self.batch_first:
            tokens = [one.transpose(0, 1) for one in tokens]
        weights = self.in_proj_weight.chunk(3)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(one, weight, bias).view(*one.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)
            for one, weight, bias in zip(tokens, weights, biases, strict=True)
        )
        mask = self._mask(q, key_padding_mask, attn_mask)
        shares = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
            shares = (scores if mask is None else scores + mask).softmax(-1)
            shares = F.dropout(shares, self.dropout, self.training)
            mixed = shares @ v
        else:
            dropout = self.dropout if self.training else 0.0
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if shares is not None:
            shares = shares.mean(1) if average_attn_weights else shares
            shares = shares if batched else shares.squeeze(0)
        if not batched:
            return output.squeeze(0), shares
        return output if self.batch_first else output.transpose(0, 1), shares

    def _mask(self, query: Tensor, padding: Tensor | None, among: Tensor | None) -> Tensor | None:
        """[B or 1, h or 1, n, m] what is added to scores."""
        added: Tensor | None = None
        if among is not None:
            among = _scores(among, query.dtype)
            if among.ndim == 3:  # one for each image and each of the heads there were
                among = among.view(-1, self.all_heads, *among.shape[1:])[:, list(self.heads)]
            added = among if among.ndim == 4 else among[None, None]
        if padding is not None:
            hidden = _scores(padding, query.dtype)
            hidden = (hidden if hidden.ndim == 2 else hidden[None])[:, None, None]
            added = hidden if added is None else added + hidden
        return added


class EmptyAttention(nn.Module):
    """Attention of which no head is left: the output's bias for every token.

    Args:
        attention: torch's, cut or not.
    """

    _qkv_same_embed_dim, in_proj_bias = False, None  # torch's encoder layers then call it
    bias: Tensor

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        last = attention.out_proj
        assert isinstance(last, nn.Linear)
        bias = torch.zeros(last.out_features) if last.bias is None else last.bias.detach()
        self.register_buffer("bias", bias.clone())
        self.batch_first = bool(attention.batch_first)
        self.train(attention.training)

    def forward(self, query: Tensor, *others: object, **options: object) -> tuple[Tensor, None]:
        """Of queries [..., features], whatever else is given."""
        return self.bias.to(query.dtype).expand(*query.shape[:-1], -1).clone(), None


def _scores(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Of a mask whose True hides: minus infinity there."""
    if mask.dtype is not torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))
