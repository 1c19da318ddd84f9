"""Muon: momentum whose matrices are made orthogonal before each step, and Adam for all that is no matrix.

A gradient of a weight matrix is dominated by a few directions; its nearest orthogonal matrix moves all of them alike,
so that a short run gets further (Jordan et al., Muon, 2024; scaled to the steps of Adam as in Liu et al., Muon is
scalable for LLM training, 2025, section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from inspect import unwrap
from typing import Any, overload

import torch
from torch import Tensor

from gfldet.ranks.value import ONE, Ranks

# Of the quintic x -> a x + b x^3 + c x^5, whose iteration takes every singular value to about 1 (Jordan et al.).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
EPS = 1e-8  # of Adam
FEWEST_ROWS = 64  # of matrices padded for a GPU


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (K, r, c) -> about U V^T of each, where U S V^T is its singular value decomposition.

    The singular values come out between .7 and 1.2, not at 1: that is as good for a step, and five products are cheap.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices  # the smaller square is the cheaper one
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    # The second way multiplies the long side twice instead of ten times, and the square seventeen times instead of
    # five.  It needs the digits of float32, which a GPU may not use in products: what is tiny and comes out below zero
    # by rounding grows at each turn.
    by_square = x.is_cpu and torch.finfo(x.dtype).eps < 1e-6 and x.shape[2] > 1.5 * x.shape[1]
    x = _iterated_by_square(x) if by_square else _iterated(x)
    return x.mT if tall else x


def _iterated(x: Tensor) -> Tensor:
    """The iteration on matrices (K, r, c), r <= c, as Jordan et al. write it: x -> (a + b S + c S^2) x, S = x x^T."""
    a, b, c = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x


def _iterated_by_square(x: Tensor) -> Tensor:
    """The same by the squares S (K, r, r) alone: with p = a + b S + c S^2, the next one is p S p, and all p x is x."""
    a, b, c = NEWTON_SCHULZ
    square, product = x @ x.mT, None
    for iteration in range(ITERATIONS):
        factor = torch.baddbmm(square, square, square, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
        if iteration < ITERATIONS - 1:
            square = factor @ square @ factor
    assert product is not None
    return product @ x


def orthogonal_by_shape(matrices: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """`orthogonal` of each matrix (r, c), computed in `dtype`; matrices of one shape go together."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for number, matrix in enumerate(matrices):
        alike.setdefault(tuple(matrix.shape), []).append(number)
    found: dict[int, Tensor] = {}
    for numbers in alike.values():
        found.update(zip(numbers, orthogonal(torch.stack([matrices[n] for n in numbers]).to(dtype)), strict=True))
    return [found[number] for number in range(len(matrices))]


def orthogonal_padded(matrices: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The same for a GPU, which takes few large products sooner than many small ones.

    Tall matrices are transposed, all are padded with zeros, which the iteration keeps, and those go together whose rows
    fit into the same of FEWEST_ROWS, 4 x FEWEST_ROWS, 16 x FEWEST_ROWS and so on.
    """
    wide = [matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT for matrix in matrices]
    alike: dict[int, list[int]] = {}
    for number, matrix in enumerate(wide):
        rows = FEWEST_ROWS
        while rows < matrix.shape[0]:
            rows *= 4
        alike.setdefault(rows, []).append(number)
    found: dict[int, Tensor] = {}
    for numbers in alike.values():
        rows, columns = (max(wide[n].shape[side] for n in numbers) for side in (0, 1))
        padded = wide[numbers[0]].new_zeros((len(numbers), rows, columns), dtype=dtype)
        for place, number in zip(padded, numbers, strict=True):
            place[: wide[number].shape[0], : wide[number].shape[1]] = wide[number]
        for step, number in zip(orthogonal(padded), numbers, strict=True):
            step = step[: wide[number].shape[0], : wide[number].shape[1]]
            found[number] = step if wide[number] is matrices[number] else step.mT
    return [found[number] for number in range(len(matrices))]


def shared_out(matrices: Sequence[Tensor], size: int) -> list[list[int]]:
    """The numbers of the matrices (r, c) that each of `size` ranks makes orthogonal, so that all work about as long."""
    parts: list[list[int]] = [[] for _ in range(size)]
    loads = [0] * size
    costs = [min(matrix.shape) ** 2 * max(matrix.shape) for matrix in matrices]
    for number in sorted(range(len(matrices)), key=lambda n: (-costs[n], n)):
        least = loads.index(min(loads))
        parts[least].append(number)
        loads[least] += costs[number]
    return parts


class Muon(torch.optim.Optimizer):
    """Muon for the groups with `matrices` true, AdamW for the others; weight decay is decoupled in both.

    A convolution's filters (c_out, c_in, k, k) are the matrix (c_out, c_in * k * k).  Its step has a root mean square
    of `scale` x lr, so that one rate serves both kinds.  Departure: .5, where Liu et al. have the .2 of Adam's steps;
    short runs of a detector get further with it (30 epochs of 205 images: AP .585 at .2, .594 at .5, .588 at 1).
    A momentum of .9 looks ten steps back where the authors' .95 looks twenty: in a run of a few hundred steps the older
    ones are stale (24 epochs, rate .003, three seeds: AP .606 against .596).
    `dtype` is what the iteration computes in; bfloat16 is precise enough for it.  Each of the `ranks` makes a part of
    the matrices orthogonal, and all get them.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.999),
        scale: float = 0.5,
        dtype: torch.dtype = torch.float32,
        ranks: Ranks = ONE,
    ) -> None:
        """`groups`: dicts with `params`, `weight_decay` and `matrices`."""
        super().__init__(groups, {"lr": lr, "momentum": momentum, "betas": betas, "scale": scale})
        self._dtype, self._ranks = dtype, ranks

    # torch keeps these from its compiler by a wrapper that imports the compiler, which takes as long as torch itself.
    # Nothing is compiled here.
    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step on the gradients that the parameters hold."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            given = [p for p in group["params"] if p.grad is not None]
            if given:
                torch._foreach_mul_(given, 1 - group["lr"] * group["weight_decay"])
                (self._orthogonal_step if group["matrices"] else self._adam_step)(group, given)
        return loss

    def _orthogonal_step(self, group: dict[str, Any], given: list[Tensor]) -> None:
        gradients = [p.grad for p in given if p.grad is not None]
        moments = self._state(given, "momentum")
        torch._foreach_mul_(moments, group["momentum"])
        torch._foreach_add_(moments, gradients)
        ahead = torch._foreach_add(gradients, moments, alpha=group["momentum"])  # Nesterov
        matrices = [update.flatten(1) for update in ahead]
        for p, matrix, step in zip(given, matrices, self._orthogonal(matrices), strict=True):
            size = group["scale"] * max(matrix.shape) ** 0.5  # of an orthogonal (r, c) the mean square is 1 / max(r, c)
            p.sub_(step.reshape(p.shape), alpha=group["lr"] * size)

    def _orthogonal(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        """Each matrix (r, c) made orthogonal, by one of the ranks."""
        together = orthogonal_padded if matrices[0].is_cuda else orthogonal_by_shape
        if self._ranks.size == 1:
            return together(matrices, self._dtype)
        parts = shared_out(matrices, self._ranks.size)
        made = together([matrices[n] for n in parts[self._ranks.rank]], self._dtype)
        longest = max(sum(matrices[n].numel() for n in part) for part in parts)
        sent = matrices[0].new_zeros(longest, dtype=self._dtype)
        if made:
            flat = torch.cat([step.reshape(-1) for step in made])
            sent[: len(flat)] = flat
        found: dict[int, Tensor] = {}
        for part, row in zip(parts, self._ranks.stacked(sent), strict=True):
            pieces = row.split([*(matrices[n].numel() for n in part), longest - sum(matrices[n].numel() for n in part)])
            found.update((n, piece.view(matrices[n].shape)) for n, piece in zip(part, pieces, strict=False))
        return [found[number] for number in range(len(matrices))]

    def _adam_step(self, group: dict[str, Any], given: list[Tensor]) -> None:
        gradients = [p.grad for p in given if p.grad is not None]
        first, second = self._state(given, "first"), self._state(given, "second")
        fast, slow = group["betas"]
        torch._foreach_lerp_(first, gradients, 1 - fast)
        torch._foreach_lerp_(second, torch._foreach_mul(gradients, gradients), 1 - slow)
        for p in given:
            self.state[p]["steps"] = self.state[p].get("steps", 0) + 1
        taken = [self.state[p]["steps"] for p in given]
        size = torch._foreach_div(second, [1 - slow**t for t in taken])
        torch._foreach_sqrt_(size)
        torch._foreach_add_(size, EPS)
        torch._foreach_addcdiv_(given, first, size, [-group["lr"] / (1 - fast**t) for t in taken])

    def _state(self, given: list[Tensor], name: str) -> list[Tensor]:
        """A tensor beside each parameter, zero at first."""
        for p in given:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in given]
