"""Experts that are counted from 1: told as that by every reader in which people number them, and by the doctor."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.traces import random_ids
from traces import InputError, LoadCounts, Profile, Trace, check, load

IDS = random_ids(3, 80, 3, 8, 2).astype(np.int64) + 1
LOAD = np.random.default_rng(1).integers(20, 90, (3, 8))


def table(path: Path, load_of: Any, first: int) -> Path:
    """Write a long table, experts counted from `first`."""
    rows = [f"{layer},{expert + first},{load_of[layer, expert]}" for layer, expert in np.ndindex(load_of.shape)]
    path.write_text("\n".join(["layer,expert,count", *rows]))
    return path


def saved(folder: Path, kind: str) -> Path:
    """Write ids or counts of experts 1 to 8."""
    path = folder / f"t.{'csv' if kind in ('table', 'pairs') else kind}"
    if kind == "npz":
        np.savez(path, topk_ids=IDS)
    elif kind == "npy":
        np.save(path, np.concatenate([np.zeros((3, 1)), LOAD], axis=1))
    elif kind == "table":
        return table(path, LOAD, 1)
    else:
        lines = [f"{layer},{expert}" for token in IDS for layer, chosen in enumerate(token) for expert in chosen]
        path.write_text("\n".join(["layer,expert", *lines]) + "\n")
    return path


@pytest.mark.parametrize("kind", ["npz", "npy", "table", "pairs"])
def test_experts_from_1_are_refused_unless_their_number_is_stated(tmp_path: Path, kind: str) -> None:
    """Nine experts, the first without load, are planned only where somebody says that there are nine."""
    path = saved(tmp_path, kind)
    with pytest.raises(InputError, match="counted from 1") as caught:
        Profile.of(load(path))
    assert caught.value.violations[0].code == "experts_from_one"
    assert Profile.of(load(path, num_experts=9)).num_experts == 9
    (finding,) = [one for one in check(path) if one.code == "ids_beyond_experts"]
    assert finding.severity == "error"
    assert "counted from 1" in finding.detail


def test_a_file_that_states_its_experts_is_warned_of(tmp_path: Path) -> None:
    """It is read as it says, and the doctor asks."""
    path = tmp_path / "t.npz"
    np.savez(path, topk_ids=IDS, num_experts=9)
    assert Profile.of(load(path)).num_experts == 9
    assert [one.severity for one in check(path) if one.code == "ids_beyond_experts"] == ["warning"]


def test_an_expert_that_is_idle_in_some_layers_is_no_sign(tmp_path: Path) -> None:
    """Expert 0 is used somewhere, or others are idle as well, or there are too few tokens to tell."""
    idle = LOAD.copy()
    idle[:2, 0] = 0
    assert isinstance(load(table(tmp_path / "a.csv", idle, 0)), LoadCounts)
    idle[:, [0, 5]] = 0
    assert isinstance(load(table(tmp_path / "b.csv", idle, 0)), LoadCounts)
    np.savez(tmp_path / "few.npz", topk_ids=IDS[:4])
    assert Profile.of(load(tmp_path / "few.npz")).tokens == 4


def test_ids_from_1_are_no_shared_expert(tmp_path: Path) -> None:
    """The last of 8 experts that are counted from 1 is not left out as one beyond the experts."""
    path = tmp_path / "t.npz"
    np.savez(path, topk_ids=IDS)
    trace = load(path, num_experts=8, ids_beyond_experts="none")
    assert isinstance(trace, Trace)
    with pytest.raises(InputError, match="counted from 1"):
        Profile.of(trace)
    with pytest.raises(InputError, match="count from 1"):
        Profile.of(load(path, num_experts=8))
