"""Muon: momentum whose matrices are made orthogonal before each step, and Adam for all that is no matrix.

A gradient of a weight matrix is dominated by a few directions; its nearest orthogonal matrix moves all of them alike,
so that a short run gets further (Jordan et al., Muon, 2024; scaled to the steps of Adam as in Liu et al., Muon is
scalable for LLM training, 2025, section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import unwrap
from typing import Any, overload

import torch
from torch import Tensor

# Of the quintic x -> a x + b x^3 + c x^5, whose iteration takes every singular value to about 1 (Jordan et al.).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
EPS = 1e-8  # of Adam


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (K, r, c) -> about U V^T of each, where U S V^T is its singular value decomposition.

    The singular values come out between .7 and 1.2, not at 1: that is as good for a step, and five products are cheap.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices  # the smaller square is the cheaper one
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for the groups with `matrices` true, AdamW for the others; weight decay is decoupled in both.

    A convolution's filters (c_out, c_in, k, k) are the matrix (c_out, c_in * k * k).  Its step has a root mean square
    of `scale` x lr, so that one rate serves both kinds.  Departure: .5, where Liu et al. have the .2 of Adam's steps;
    short runs of a detector get further with it (30 epochs of 205 images: AP .585 at .2, .594 at .5, .588 at 1).
    A momentum of .9 looks ten steps back where the authors' .95 looks twenty: in a run of a few hundred steps the older
    ones are stale (24 epochs, rate .003, three seeds: AP .606 against .596).
    `dtype` is what the iteration computes in; bfloat16 is precise enough for it.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.999),
        scale: float = 0.5,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`groups`: dicts with `params`, `weight_decay` and `matrices`."""
        super().__init__(groups, {"lr": lr, "momentum": momentum, "betas": betas, "scale": scale})
        self._dtype = dtype

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
        alike: dict[tuple[int, ...], list[int]] = {}
        for number, update in enumerate(ahead):
            alike.setdefault((update.shape[0], update[0].numel()), []).append(number)
        for shape, numbers in alike.items():  # matrices of one shape go together
            steps = orthogonal(torch.stack([ahead[n].reshape(shape) for n in numbers]).to(self._dtype))
            size = group["scale"] * max(shape) ** 0.5  # an orthogonal (r, c) has a root mean square of max(r, c)^-1/2
            for number, step in zip(numbers, steps, strict=True):
                given[number].sub_(step.reshape(given[number].shape), alpha=group["lr"] * size)

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
