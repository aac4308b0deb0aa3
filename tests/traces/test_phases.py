"""Plans for one phase: the tokens of the other are left out, and traces without phases are refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.builders.traces import random_trace
from traces import InputError, Trace, load, save

PHASE = (np.arange(40) % 5 > 1).astype(np.uint8)


@pytest.mark.parametrize(("phase", "code"), [("prefill", 0), ("decode", 1)])
def test_tokens_of_one_phase(tmp_path: Path, phase: str, code: int) -> None:
    """Both parts together are the trace; the note says which part it is, and the digest differs."""
    save(random_trace(0, 40, 3, 8, 2, phase=PHASE), tmp_path / "t.npz")
    whole, part = load(tmp_path / "t.npz"), load(tmp_path / "t.npz", phase=phase)  # type: ignore[arg-type]  # a word
    assert isinstance(whole, Trace)
    assert isinstance(part, Trace)
    (all_ids,), (ids,) = ([batch.topk_ids for batch in trace.batches()] for trace in (whole, part))
    assert np.array_equal(ids, all_ids[code == PHASE])
    assert phase in part.provenance.notes[-1]
    assert part.digest != whole.digest


def test_what_has_no_phases_is_refused(tmp_path: Path) -> None:
    """Traces without the column, counts, and words that are no phase."""
    save(random_trace(0, 40, 3, 8, 2), tmp_path / "t.npz")
    (tmp_path / "w.csv").write_text("1.5,2\n3,4\n")
    for name, phase, code in (
        ("t.npz", "decode", "no_phases"),
        ("w.csv", "prefill", "no_phases"),
        ("t.npz", "warm-up", "unknown_choice"),
    ):
        with pytest.raises(InputError) as caught:
            load(tmp_path / name, phase=phase)  # type: ignore[arg-type]  # a wrong word, too
        assert caught.value.violations[0].code == code


def test_a_part_of_one_phase_pickles(tmp_path: Path) -> None:
    """It is opened again with how it was read: its phase, and what ids beyond the experts are."""
    trace = random_trace(0, 40, 3, 8, 2, phase=PHASE)
    save(trace, tmp_path / "t.npz")
    part = load(tmp_path / "t.npz", phase="decode", num_experts=7, ids_beyond_experts="none")
    assert isinstance(part, Trace)
    again = pickle.loads(pickle.dumps(part))
    (ids,), (same,) = ([batch.topk_ids for batch in trace.batches()] for trace in (part, again))
    assert np.array_equal(ids, same)
    assert again.digest == part.digest
