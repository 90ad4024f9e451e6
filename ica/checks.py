"""Validation of arguments: every refusal names the argument, what was wrong, and what is accepted."""

import math

import torch
from torch import Tensor

FLOATS = (torch.float64, torch.float32, torch.bfloat16)


def whole(name: str, value: int, least: int) -> int:
    """Return `value` if it is a whole number of at least `least`; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return value


def positive(name: str, value: float) -> float:
    """Return `value` if it is a finite number above zero; ValueError otherwise."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or value <= 0
    ):
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return float(value)


def one_of(name: str, value, accepted: tuple):
    """Return `value` if it is among `accepted`; ValueError otherwise."""
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(str, accepted))}; got {value!r}")
    return value


def dtype(name: str, value: torch.dtype) -> torch.dtype:
    """Return `value` if it is a floating type that the companion works in; ValueError otherwise."""
    return one_of(name, value, FLOATS)


def finite(name: str, tensor: Tensor) -> Tensor:
    """Return `tensor` if all entries are finite numbers of an accepted type; ValueError otherwise."""
    dtype(f"{name}.dtype", tensor.dtype)
    bad = ~torch.isfinite(tensor)
    if bad.any():
        where = tuple(torch.nonzero(bad)[0].tolist())
        raise ValueError(
            f"{name} must be finite; {int(bad.sum())} of {tensor.numel()} entries are not, the first at {where}"
        )
    return tensor


def readable(tensor: Tensor) -> bool:
    """Whether the values of a tensor can be looked at, which `torch.func.vmap` does not allow."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return False
        tensor = functorch.get_unwrapped(tensor)
    return True


def shape(name: str, tensor: Tensor, expected: tuple[int | None, ...]) -> Tensor:
    """Return `tensor` if its shape is `expected` (None: any size there); ValueError otherwise."""
    fits = tensor.ndim == len(expected) and all(
        e in (None, s) for e, s in zip(expected, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if e is None else str(e) for e in expected)
        raise ValueError(f"{name} must have shape ({wanted}), got {tuple(tensor.shape)}")
    return tensor


def distinct(name: str, rewards: Tensor) -> Tensor:
    """Return `rewards` if no two along the last axis are equal; ValueError otherwise.

    A tie leaves the Plackett-Luce ranking undefined.
    """
    ordered = rewards.sort(dim=-1).values
    tied = (ordered[..., 1:] == ordered[..., :-1]).any(dim=-1)
    if tied.any():
        where = tuple(torch.nonzero(tied)[0].tolist()) if tied.ndim else ()
        raise ValueError(
            f"{name} must be distinct within a prompt (no ties); prompt {where} has two equal rewards"
        )
    return rewards
