"""Attention of a compact network: fewer heads than there were, which read and write fewer features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CutAttention(nn.MultiheadAttention):
    """What ``nn.MultiheadAttention`` computes, with some of its heads, features in and features out.

    softmax(Q K^T / sqrt(d) + mask) V for each of the h heads that stay, d features each. It is called as torch's,
    and says of itself what that did: ``num_heads`` and ``embed_dim`` are those there were, also for masks. In
    weights averaged over heads one that is gone counts with equal weights: those of zero queries and keys.

    Args:
        attention: one with ``in_proj_weight`` [3 h d, features in], cut.
        rows: of that matrix, which stay of those there were; None for all.

    Attributes:
        heads: the numbers of those that stay.
    """

    def __init__(self, attention: nn.MultiheadAttention, rows: Sequence[int] | None = None) -> None:
        nn.Module.__init__(self)
        self.embed_dim, self.num_heads, self.head_dim = (
            attention.embed_dim,
            attention.num_heads,
            attention.head_dim,
        )
        self.kdim, self.vdim, self._qkv_same_embed_dim = attention.kdim, attention.vdim, False
        self.batch_first, self.dropout = attention.batch_first, attention.dropout
        self.bias_k, self.bias_v, self.add_zero_attn = None, None, False
        first = (row for row in (range(3 * self.embed_dim) if rows is None else rows) if row < self.embed_dim)
        self.heads = tuple(dict.fromkeys(row // self.head_dim for row in first))
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
        mask = self._mask(query.dtype, key_padding_mask, attn_mask)
        output, shares = self._mixed(tokens, mask, need_weights)
        if shares is not None:
            shares = self._average(shares, mask) if average_attn_weights else shares
            shares = shares if batched else shares.squeeze(0)
        if not batched:
            return output.squeeze(0), shares
        return output if self.batch_first else output.transpose(0, 1), shares

    def _mixed(
        self, tokens: Sequence[Tensor], mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """([B, n, features out], [B, h, n, m] weights where they are asked for)."""
        weights = self.in_proj_weight.chunk(3)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(one, weight, bias)
            .view(one.shape[0], one.shape[1], len(self.heads), self.head_dim)
            .transpose(1, 2)
            for one, weight, bias in zip(tokens, weights, biases, strict=True)
        )
        if need_weights:
            scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
            shares = (scores if mask is None else scores + mask).softmax(-1)
            shares = F.dropout(shares, self.dropout, self.training)
            mixed = shares @ v
        else:
            shares = None
            mixed = F.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0)
        output: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return output, shares

    def _average(self, shares: Tensor, mask: Tensor | None) -> Tensor:
        """[B, n, m] over all heads there were."""
        equal = torch.zeros_like(shares[:, :1])
        equal = (equal if mask is None else equal + mask[:, :1]).softmax(-1).squeeze(1)
        average: Tensor = (shares.sum(1) + (self.num_heads - len(self.heads)) * equal) / self.num_heads
        return average

    def _mask(self, dtype: torch.dtype, padding: Tensor | None, among: Tensor | None) -> Tensor | None:
        """[B or 1, h or 1, n or 1, m] what is added to scores."""
        added: Tensor | None = None
        if among is not None:
            among = _scores(among, dtype)
            if among.ndim == 3:  # one for each image and each of the heads there were
                among = among.view(-1, self.num_heads, *among.shape[1:])[:, list(self.heads) or [0]]
            added = among if among.ndim == 4 else among[None, None]
        if padding is not None:
            hidden = _scores(padding, dtype)
            hidden = (hidden if hidden.ndim == 2 else hidden[None])[:, None, None]
            added = hidden if added is None else added + hidden
        return added


class EmptyAttention(CutAttention):
    """Attention of which no head is left: the output's bias for every token, and equal weights.

    Args:
        attention: torch's, cut.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__(attention)
        self.heads = ()
        last = attention.out_proj
        bias = torch.zeros(last.out_features) if last.bias is None else last.bias.detach()
        self.in_proj_weight, self.in_proj_bias, self.out_proj = None, None, None  # type: ignore[assignment]
        self.register_buffer("bias", bias.clone())

    def _mixed(
        self, tokens: Sequence[Tensor], mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        query, key, _ = tokens
        bias = self.get_buffer("bias").to(query.dtype)
        output = bias.expand(query.shape[0], query.shape[1], -1).clone()
        empty = query.new_zeros(query.shape[0], 1, query.shape[1], key.shape[1])  # of one head, not averaged
        return output, empty if need_weights else None


def _scores(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Of a mask whose True hides: minus infinity there."""
    if mask.dtype is not torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))
