"""What optimizers step, and whether it has changed."""

from __future__ import annotations

from typing import Any

from gradwatch.parameter_groups import first, members, signature
from torch import nn
from torch.optim import SGD


def test_members_come_group_by_group() -> None:
    parts = [nn.Linear(2, 1), nn.Linear(1, 2)]
    parameters = [parameter for part in parts for parameter in part.parameters()]
    groups: list[dict[str, Any]] = [{"params": []}, *({"params": list(part.parameters())} for part in parts)]
    optimizer = SGD(groups, lr=0.1)
    assert all(one is other for one, other in zip(members(optimizer), parameters, strict=True))
    assert first(optimizer) is parameters[0]
    optimizer.param_groups.clear()
    assert first(optimizer).numel() == 0


def test_the_signature_changes_with_the_parameters() -> None:
    optimizer = SGD(nn.Linear(2, 1).parameters(), lr=0.1)
    seen = [signature([optimizer])]
    optimizer.add_param_group({"params": list(nn.Linear(2, 1).parameters())})
    seen.append(signature([optimizer]))
    kept = optimizer.param_groups.pop()
    other = nn.Linear(2, 1)
    optimizer.add_param_group({"params": list(other.parameters())})
    seen.append(signature([optimizer]))
    assert len(seen) == len({tuple(one) for one in seen}) and kept is not None
    assert signature([optimizer]) == seen[-1]
