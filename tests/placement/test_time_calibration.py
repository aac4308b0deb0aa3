"""Fits recover what made the tables, distributions are what they say, tables that are none are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.time.bottlenecks import forwarded_copies
from placement.time.calibration.check import check_tables
from placement.time.calibration.distributions import RULES, Rule, Workload, histograms, rule_of
from placement.time.calibration.exchanges import base_copies, curve_rows, fit_bottlenecks, fit_curve, link_rates
from placement.time.calibration.experts import expert_rows
from placement.time.calibration.fitting import fit
from placement.time.calibration.kernels.draws import balanced_slots, received
from placement.time.calibration.package import calibrate, package_tables
from placement.time.calibration.tables import kind_of, read_table
from placement.time.experts import joined
from placement.time.features import FEATURES
from tests.builders.measurements import rows_of, written
from traces import InputError


def test_fit_recovers_floor_and_slopes() -> None:
    """Terms that made the data are found, others stay out, under noise."""
    rng = np.random.default_rng(0)
    terms = np.column_stack([np.ones(300), rng.lognormal(0, 2, 300), rng.lognormal(0, 2, 300)])
    truth = np.array([0.05, 0.3, 0.0])
    measured = joined(0.5, terms @ truth) * np.exp(0.03 * rng.normal(size=300))
    floor, found = fit(terms, measured)
    assert floor == pytest.approx(0.5, rel=0.05)
    assert found[1] == pytest.approx(0.3, rel=0.05)
    assert found[2] < 0.01


def test_line_needs_no_floor() -> None:
    """Without a floor in the data, none is made up."""
    rng = np.random.default_rng(1)
    terms = np.column_stack([np.ones(200), rng.lognormal(0, 2, 200)])
    floor, found = fit(terms, terms @ np.array([0.2, 0.7]))
    assert floor == 0
    assert found == pytest.approx([0.2, 0.7], rel=1e-3)


def test_a_table_of_ones_own_gives_its_kernel_back(tmp_path: Path) -> None:
    """Fitted to one table, judged by another of the same kernel: within the noise."""
    fitted = calibrate("h200", [written(tmp_path / "my.csv", rows_of(0, 0.02))], source={"tables": "my.csv"})
    (kernel,) = fitted.kernels
    assert (kernel.name, kernel.phase, kernel.dtype) == ("mine", "any", "bfloat16")
    assert kernel.error.left_out.startswith("whole (EP size, distribution) pairs")
    assert kernel.error.median < 0.03
    (judged,) = check_tables([written(tmp_path / "other.csv", rows_of(9))], own=fitted)
    assert (judged.gpu, judged.judged_by, judged.rows) == ("h200", "mine", 90)
    assert judged.median < 0.02
    assert judged.p90 < 0.06


def test_experts_without_a_gate_are_two_matrices(tmp_path: Path) -> None:
    """They read and compute two thirds of what gated ones do."""
    rows = rows_of(2)[:2]
    tables = [rows, [row | {"kernel_source": "mine_nongated"} for row in rows]]
    gated, plain = (
        next(iter(expert_rows(read_table(written(tmp_path / f"{at}.csv", table)), "t"))).terms
        for at, table in enumerate(tables)
    )
    for name in ("weights", "pairs", "tile64"):
        at = FEATURES.index(name)
        assert plain[:, at] == pytest.approx(gated[:, at] * 2 / 3)
    assert (plain[:, FEATURES.index("pair_gb")] == gated[:, FEATURES.index("pair_gb")]).all()


def test_tables_of_other_kernels_are_judged_by_the_nearest(tmp_path: Path) -> None:
    """A GPU without measurements is judged by its roofline, and says so."""
    rows = [row | {"device": "NVIDIA H20"} for row in rows_of(1)[:30]]
    (judged,) = check_tables([written(tmp_path / "h20.csv", rows)])
    assert (judged.gpu, judged.judged_by) == ("h20", "roofline")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("tokens", "alpha"), [(2, "0.6"), (64, "1.2"), (2048, "1.01")])
def test_draws_have_the_pairs_of_the_pass(rule: Rule, tokens: int, alpha: str) -> None:
    """One rank's draws have all pairs, and no expert has more tokens than there are, but by the oldest rule."""
    workload = Workload(
        distribution=f"power_law_{alpha}", tokens=tokens, experts=32, top_k=4, ranks=1, slots=32, rule=rule
    )
    drawn = histograms(workload, draws=20)
    assert drawn is not None
    counts, rows = drawn
    assert (counts.sum(axis=1) == tokens * 4).all()
    assert rule == "largest" or counts.max() <= tokens
    assert rule == "largest" or (rows == tokens).all()


def test_the_busiest_rank_is_the_one_that_is_timed() -> None:
    """It has more than its share, and more so with a steeper law; balancing brings it back."""

    def share(distribution: str, slots: int = 64) -> float:
        workload = Workload(
            distribution=distribution, tokens=512, experts=64, top_k=4, ranks=8, slots=slots, rule="ranks"
        )
        drawn = histograms(workload)
        assert drawn is not None
        return float(drawn[0].sum(axis=1).mean() / (512 * 4 / 8))

    assert 1 < share("power_law_0.6") < share("power_law_1.2")
    assert share("power_law_1.2_eplb", 72) < share("power_law_1.2_eplb") < share("power_law_1.2")


@given(st.lists(st.integers(0, 9), min_size=8, max_size=8), st.sampled_from([8, 12]))
@settings(max_examples=20)
def test_balanced_slots_keep_every_token(counts: list[int], slots: int) -> None:
    """Redundant slots share what their expert has; the first rank is the slowest up to a token per slot."""
    found = balanced_slots(np.array(counts), slots, 4)
    width = slots // 4
    loads = found.reshape(4, width).sum(axis=1)
    assert found.sum() == sum(counts)
    assert loads.max() <= loads[0] + width


@given(st.lists(st.integers(0, 6), min_size=6, max_size=6), st.integers(1, 6))
@settings(max_examples=30)
def test_received_tokens_are_counted_once(counts: list[int], width: int) -> None:
    """Against sets: slots take consecutive tokens, the fullest first."""
    order, start, used = np.argsort(-np.array(counts), kind="stable"), 0, set()
    for slot in order.tolist():
        if slot < width:
            used |= {(start + i) % 6 for i in range(counts[slot])}
        start += counts[slot]
    assert received(np.array(counts), width, 6) == len(used)


def test_uniform_decode_has_single_tokens() -> None:
    """Fewer pairs than experts: the first experts have one token each."""
    workload = Workload(
        distribution="uniform", tokens=8, experts=64, top_k=4, ranks=4, slots=64, rule="ranks", decode=True
    )
    drawn = histograms(workload)
    assert drawn is not None
    assert drawn[0].tolist() == [[1] * 8 + [0] * 8]


def test_of_equally_near_draws_all_count() -> None:
    """Where all tokens reach the rank, its recorded tokens tell no draw from another."""
    workload = Workload(distribution="power_law_1.2", tokens=64, experts=8, top_k=4, ranks=1, slots=8, rule="ranks")
    drawn = histograms(workload, received=64, draws=30)
    assert drawn is not None
    assert len(drawn[0]) == len(drawn[1]) == 30


def test_what_was_found_out_of_the_tables() -> None:
    """Which correction a table had."""
    assert rule_of("SGLang", "0.5.6.post2", "h200") == "largest"
    assert rule_of("SGLang", "0.5.10", "h200") == "smallest"
    assert rule_of("SGLang", "0.5.10", "gb200") == rule_of("TRTLLM", "9", "h200") == "ranks"


def test_sms_and_links_are_told_apart() -> None:
    """Rates that made a table are found: SMs bind where there are few of them, and links where there are many."""
    tokens, sms, nodes = (grid.ravel() for grid in np.meshgrid([256, 1024, 4096, 16_384], [4, 8, 16, 24], [2, 4]))
    us = 30 + tokens * np.maximum(2.0 / sms, np.where(nodes == 4, 0.2, 0.0))  # on 2 nodes, links never bind
    rows: dict[str, Any] = {"node_num": nodes, "num_token": tokens, "hidden_size": np.full(len(us), 7168)}
    rows |= {f"{way}_transmit_us": us for way in ("dispatch", "combine")}
    rows |= {f"{way}_sms": sms for way in ("dispatch", "combine")}
    found = fit_bottlenecks(curve_rows(rows, "deepep_normal"), {2: 7.0, 8: 9.0})
    assert {(each.way, each.nodes) for each in found} == {(w, n) for n in (2, 4, 8) for w in ("combine", "dispatch")}
    by_nodes = {each.nodes: each for each in found if each.way == "dispatch"}
    vector = 7168 * 1.03 / 1e9
    copies = base_copies("deepep_normal", 8, 256, 4, 32)
    assert by_nodes[4].link_ms_per_gb == pytest.approx(0.2e-3 / (copies * vector), rel=1e-3)
    assert by_nodes[2].sm_ms_per_gb == pytest.approx(2e-3 / (forwarded_copies(8, 256, 2, 16) * vector), rel=1e-3)
    assert (by_nodes[2].link_ms_per_gb, by_nodes[8].link_ms_per_gb) == (7.0, 9.0)  # as another kernel found them


def test_links_are_told_by_kernels_that_send_a_copy_per_expert() -> None:
    """Their slope over what leaves a node is the links' rate."""
    rows: dict[str, Any] = {"node_num": np.full(4, 2), "num_token": np.array([8, 64, 128, 256])}
    rows |= {"hidden_size": np.full(4, 7168), "dispatch_avg_t_us": 20 + rows["num_token"] * 0.9}
    rows |= {"combine_avg_t_us": 20 + rows["num_token"] * 9.0}
    found = link_rates(curve_rows(rows, "deepep_low_latency"))
    assert found == {2: pytest.approx(0.9e-3 / (4 * 7168 * 1.03 / 1e9), rel=1e-3)}


def test_exchange_curves_are_judged_by_other_token_counts() -> None:
    """A straight line is found from every other number of tokens."""
    tokens = np.array([1, 8, 64, 256, 512, 1024, 4096, 8192])
    columns: dict[str, Any] = {"num_token": tokens, "node_num": np.full(8, 2), "hidden_size": np.full(8, 7168)}
    columns |= {"device": np.full(8, "NVIDIA H200"), "num_topk": np.full(8, 8), "num_experts": np.full(8, 256)}
    columns |= {"dispatch_transmit_us": 30 + 0.2 * tokens, "combine_transmit_us": 40 + 0.4 * tokens}
    dispatch, combine = (fit_curve(rows) for rows in curve_rows(columns, kind_of(columns, "t")))
    assert (dispatch.way, combine.way, dispatch.nodes) == ("dispatch", "combine", 2)
    assert dispatch.error.left_out == "every other number of tokens"
    assert max(dispatch.error.median, combine.error.median) < 0.01


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"latency": 0}, "time_value"),
        ({"latency": "nan"}, "time_value"),
        ({"latency": ""}, "Row 3 has None, which is no time"),
        ({"num_tokens": 0}, "size_value"),
        ({"num_tokens": ""}, "Row 3 has None: sizes"),
        ({"num_tokens": 16.5}, "size_value"),
        ({"moe_dtype": "fp6"}, "unknown_dtype"),
        ({"tokens_per_expert": "1 x"}, "tokens_per_expert"),
        ({"device": "abacus"}, "unknown_gpu"),
    ],
)
def test_tables_with_nonsense_are_refused(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    """Each names the column."""
    rows = rows_of(0)[:5]
    rows[3] |= change
    with pytest.raises(InputError, match=code):
        check_tables([written(tmp_path / "t.csv", rows)])


def test_a_table_of_which_no_row_is_known_is_refused(tmp_path: Path) -> None:
    """Rather than an empty answer; rows that are known are judged without it, and the others counted."""
    rows = [{name: row[name] for name in row if name != "tokens_per_expert"} for row in rows_of(0)[:2]]
    rows = [row | {"distribution": word} for row, word in zip(rows, ("uniform", "steep"), strict=True)]
    (judged,) = check_tables([written(tmp_path / "one.csv", rows)])
    assert (judged.rows, judged.skipped) == (1, 1)
    with pytest.raises(InputError, match="nothing_judged"):
        check_tables([written(tmp_path / "none.csv", rows[1:])])


def test_a_single_row_of_an_exchange_is_judged(tmp_path: Path) -> None:
    """A curve needs several points to be fitted, not to be judged; sizes may be whole numbers as floats."""
    row = {"device": "NVIDIA H200", "node_num": "2.0", "num_token": 512, "hidden_size": 7168, "num_topk": 8}
    row |= {"num_experts": 256, "dispatch_sms": 20, "dispatch_transmit_us": 90, "combine_sms": 20}
    row |= {"combine_transmit_us": 190}
    judged = check_tables([written(tmp_path / "one.csv", [row])])
    assert [(part.phase, part.rows) for part in judged] == [("combine", 1), ("dispatch", 1)]
    assert all(part.judged_by == "deepep_normal" and 0 < part.median < 2 for part in judged)
    with pytest.raises(InputError, match="size_value"):
        check_tables([written(tmp_path / "zero.csv", [row | {"node_num": 0}])])


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "", "latency\n"])
def test_other_files_are_no_tables(tmp_path: Path, text: str) -> None:
    """Columns that are no known schema, or no rows."""
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError):
        kind_of(read_table(tmp_path / "t.csv"), "t.csv")


def real_tables() -> Path:
    """Return the folder of the measured tables, or skip."""
    try:
        return package_tables()
    except InputError:
        pytest.skip('the measured tables are not installed: pip install "moe-placement[calibrate]"')


@pytest.mark.slow
@pytest.mark.parametrize("gpu", ["h200", "gb200"])
def test_measured_tables_are_met(gpu: str) -> None:
    """The shipped kernels against the tables themselves: median 5 %, nine of ten within 15 %."""
    from placement.time.calibration.package import SYSTEMS

    folder = real_tables() / SYSTEMS[gpu] / "moe" / "sglang" / "0.5.10"
    judged = check_tables(sorted(folder.glob("wideep_generation_moe_perf.parquet")))
    assert [part.phase for part in judged] == ["decode"]
    assert all(part.median <= 0.05 and part.p90 <= 0.15 for part in judged)
