"""One process, or the several that `torchrun` started, which must do everything in step: whoever goes alone leaves the others waiting."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from condgen.errors import BadInput


def make_fabric(precision: str) -> Fabric:
    """For this process, or for as many as `torchrun` started; `precision` is "32" or "bf16"."""
    local, world = (int(os.environ.get(k, "1")) for k in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    chosen: dict[str, Any] = {"strategy": "ddp", "num_nodes": world // local} if world > 1 else {}
    with _quiet("lightning_fabric.utilities.rank_zero"):  # it announces bfloat16, which run.json says
        return Fabric(accelerator="auto", devices=local, precision="bf16-mixed" if precision == "bf16" else "32-true", **chosen)


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """While this lasts a logger says warnings alone."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(level)


def average(tensors: list[Tensor], fabric: Fabric) -> None:
    """Tensors become, in place, their mean over processes, in one flat message."""
    if fabric.world_size == 1 or not tensors:
        return
    flat = cast(Tensor, fabric.all_reduce(torch.cat([t.flatten() for t in tensors]), reduce_op="mean"))
    for t, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        t.copy_(mean.view_as(t))


def end_to_end(rows: Tensor, fabric: Fabric) -> Tensor:
    """The rows (b, ...) of all processes, as many on each, in their order: (processes * b, ...). Every process must ask."""
    return rows if fabric.world_size == 1 else cast(Tensor, fabric.all_gather(rows.contiguous())).flatten(0, 1)


def any_process(flag: bool, fabric: Fabric) -> bool:
    """Whether the flag is up on at least one process. Every process must ask."""
    if fabric.world_size == 1:
        return flag
    return bool(fabric.all_reduce(torch.tensor(float(flag), device=fabric.device), reduce_op="sum"))


def check_agreement(step: int, fingerprint: str, fabric: Fabric) -> None:
    """Raises BadInput, on every process, where they are about to train from different steps or on different data."""
    if fabric.world_size == 1:
        return
    mine = torch.tensor([step, int(fingerprint[:12], 16)], device=fabric.device)
    found = cast(Tensor, fabric.all_gather(mine)).reshape(-1, 2).tolist()
    for what, column in (("steps", 0), ("data", 1)):
        values = [row[column] for row in found]
        if len(set(values)) > 1:
            shown = values if column == 0 else [f"{v:012x}" for v in values]
            remedy = "all must see the same data and the same run folder"
            raise BadInput(f"the processes start from different {what} ({', '.join(map(str, shown))}): {remedy}")
