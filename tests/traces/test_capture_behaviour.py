"""What `record` does around the hooks: end tokens, caches, files, names, refusals, and that hooks go."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traces import InputError, Trace, load
from traces.capture import record

torch: Any = None
transformers: Any = None
Layer: Any = None
Decoder: Any = None
END, VOCABULARY = 1, 20


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """Load what takes seconds in the process that runs these tests, not in each that collects them."""
    global torch, transformers, Layer, Decoder
    torch = pytest.importorskip("torch", reason="needs a CPU build of torch: see the extra 'capture'")
    transformers = pytest.importorskip("transformers", reason="needs transformers: see the extra 'capture'")
    torch.set_num_threads(1)  # for matrices as small as these
    from tests.builders.layers import Decoder, Layer


@pytest.fixture(scope="module")
def model() -> Any:
    """Build a small Mixtral."""
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
        pad_token_id=0,
        eos_token_id=END,
    )
    return transformers.MixtralForCausalLM(config).eval()


def codes(error: pytest.ExceptionInfo[InputError]) -> set[str]:
    """Return the codes of all violations."""
    return {violation.code for violation in error.value.violations}


def hooks_of(model: Any) -> int:
    """Count the hooks on all modules."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def ids(*rows: int, width: int = 5) -> Any:
    """Token ids without the end token, and the mask of rows that are padded on the left."""
    tokens = torch.randint(2, VOCABULARY, (len(rows), width), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[0] * (width - length) + [1] * length for length in rows])
    return tokens * mask, mask


def column(trace: Trace, name: str) -> list[Any]:
    """Return a column of a short trace."""
    return list(np.asarray(getattr(next(trace.batches()), name)).tolist())


def forced(plan: list[list[int]]) -> Any:
    """Return a logits processor that makes row r sample plan[r][step]."""
    steps = iter(zip(*plan, strict=True))

    class Forced(transformers.LogitsProcessor):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            chosen = torch.tensor(next(steps))
            return torch.full_like(scores, -1e9).scatter(1, chosen[:, None], 0.0)

    return transformers.LogitsProcessorList([Forced()])


def test_rows_that_ended_are_not_recorded(model: Any) -> None:
    """From its end token on, what a row is fed is filler; the other rows go on. A sampled pad token is no end."""
    tokens, mask = ids(5, 3)
    processor = forced([[7, END, 9, 9, 9], [7, 0, 8, 9, 9]])
    with record(model) as recording, torch.no_grad():
        output = model.generate(tokens, attention_mask=mask, max_new_tokens=5, logits_processor=processor)
    assert output[0, 5:].tolist() == [7, END, 0, 0, 0]
    assert [column(recording.trace, "seq_id").count(row) for row in (0, 1)] == [5 + 1, 3 + 4]
    assert column(recording.trace, "token_pos")[-1] == 6


@pytest.mark.parametrize(
    ("settings", "configured", "tokens"),
    [
        ({}, None, 5),
        ({"eos_token_id": 17}, None, 7),
        ({"eos_token_id": None}, None, 7),
        ({}, {"eos_token_id": 17}, 7),
        ({}, {"max_length": 99}, 5),
        ({"eos_token_id": [17, END]}, {"eos_token_id": 17}, 5),
    ],
)
def test_end_tokens_are_those_that_generate_goes_by(
    model: Any, settings: dict[str, Any], configured: dict[str, Any] | None, tokens: int
) -> None:
    """An argument counts before the configuration of the call, even None, and that before the model's."""
    ids_, mask = ids(5, 5)
    config = None if configured is None else transformers.GenerationConfig(pad_token_id=0, **configured)
    with record(model) as recording, torch.no_grad():
        output = model.generate(
            ids_,
            config,
            attention_mask=mask,
            max_new_tokens=3,
            logits_processor=forced([[END, 9, 9], [9, 9, 9]]),
            **settings,
        )
    assert output[0, 5:].tolist() == ([END, 0, 0] if tokens == 5 else [END, 9, 9])
    assert [column(recording.trace, "seq_id").count(row) for row in (0, 1)] == [tokens, 7]


def test_rows_that_criteria_of_ones_own_end_are_not_recorded(model: Any) -> None:
    """Where a row may end without an end token, it is over with the padding that follows."""

    class Seven(transformers.StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            return input_ids[:, -1] == 7

    tokens, mask = ids(5, 5)
    with record(model) as recording, torch.no_grad():
        output = model.generate(
            tokens,
            attention_mask=mask,
            max_new_tokens=4,
            logits_processor=forced([[9, 7, 9, 9], [9, 9, 9, 9]]),
            stopping_criteria=transformers.StoppingCriteriaList([Seven()]),
        )
    assert output[0, 5:].tolist() == [9, 7, 0, 0]
    assert [column(recording.trace, "seq_id").count(row) for row in (0, 1)] == [5 + 2, 5 + 3]


def test_every_generate_starts_new_sequences(model: Any) -> None:
    """Sequences are numbered through over calls of generate() and of the model."""
    tokens, mask = ids(5, 2)
    with record(model) as recording, torch.no_grad():
        model.generate(tokens, attention_mask=mask, max_new_tokens=2, eos_token_id=None)
        model(tokens, attention_mask=mask)
        model(tokens[:1])
    assert sorted(set(column(recording.trace, "seq_id"))) == [0, 1, 2, 3, 4]
    assert column(recording.trace, "phase").count(1) == 2


@pytest.mark.parametrize("padding", [0, 4])
def test_generate_gives_two_sequences_and_their_decode_rows(model: Any, padding: int) -> None:
    """Two prompts of 9 tokens, one of them padded on the left: each is one sequence, with 4 steps of one row each."""
    tokens, mask = ids(9, 9 - padding, width=9)
    with record(model) as recording, torch.no_grad():
        model.generate(tokens, attention_mask=mask, max_new_tokens=5, do_sample=False, eos_token_id=None)
    trace = recording.trace
    assert [column(trace, "seq_id").count(row) for row in range(3)] == [13, 13 - padding, 0]
    assert column(trace, "phase") == [0] * (18 - padding) + [1] * 8
    assert column(trace, "token_pos")[-8:] == [at for step in range(4) for at in (9 + step, 9 - padding + step)]


@pytest.mark.parametrize("name", ["cache", "past_key_values", "cache_params", "any_other"])
def test_the_cache_is_seen_under_any_keyword(name: str) -> None:
    """Steps go on with their sequences, whatever the argument of the cache is called."""
    decoder, cache = Decoder(name), transformers.DynamicCache()
    tokens, mask = ids(4, 2, width=4)
    step = torch.cat([mask, mask[:, -1:]], 1)
    with record(decoder, routers=["layers.*.gate"], choose=lambda out: out.topk(2).indices, num_experts=4) as recording:
        decoder(tokens, attention_mask=mask, **{name: cache})
        decoder(tokens[:, :1], attention_mask=step, **{name: cache})
    assert column(recording.trace, "seq_id") == [0] * 4 + [1] * 2 + [0, 1]
    assert column(recording.trace, "token_pos")[-2:] == [4, 2]
    assert column(recording.trace, "phase") == [0] * 6 + [1] * 2


def test_two_caches_are_refused() -> None:
    """Which one holds the sequences would be a guess."""
    caches = {"cache": transformers.DynamicCache(), "past_key_values": transformers.DynamicCache()}
    decoder = Decoder("cache")
    with pytest.raises(InputError, match="several caches"), record(decoder, routers=["layers.*.gate"], num_experts=4):
        decoder(ids(3)[0], **caches)


def test_generate_without_cache_records_each_token_once(model: Any) -> None:
    """Where every step computes the whole sequence again, only what is new is recorded: the same as with a cache."""
    tokens, mask = ids(5, 2)
    traces = []
    for use_cache in (True, False):
        with record(model) as recording, torch.no_grad():
            model.generate(tokens, attention_mask=mask, max_new_tokens=4, eos_token_id=None, use_cache=use_cache)
        traces.append(recording.trace)
    for name in ("seq_id", "token_pos", "phase", "topk_ids"):
        assert column(traces[0], name) == column(traces[1], name)


def test_chunked_prefill_is_one_prefill(model: Any) -> None:
    """A prompt that is fed in chunks keeps its sequence, positions and phase."""
    tokens, mask = ids(5, 3)
    with record(model) as recording, torch.no_grad():
        model.generate(tokens, attention_mask=mask, max_new_tokens=2, eos_token_id=None, prefill_chunk_size=3)
    trace = recording.trace
    assert column(trace, "phase") == [0] * 8 + [1] * 2
    positions = zip(column(trace, "seq_id"), column(trace, "token_pos"), strict=True)
    assert sorted(positions) == [(0, p) for p in range(6)] + [(1, p) for p in range(4)]


def test_a_loop_of_ones_own_goes_on_with_the_returned_cache(model: Any) -> None:
    """The cache that a call returns ties the next call to the same sequences."""
    tokens, _ = ids(4, 4, width=4)
    with record(model) as recording, torch.no_grad():
        cache = model(tokens).past_key_values
        model(tokens[:, :1], past_key_values=cache)
        model(tokens[:, :2], past_key_values=cache)
    assert column(recording.trace, "seq_id") == [0] * 4 + [1] * 4 + [0, 1] + [0, 0, 1, 1]
    assert column(recording.trace, "token_pos")[8:] == [4, 4, 5, 6, 5, 6]
    assert column(recording.trace, "phase") == [0] * 8 + [1, 1] + [0] * 4


def test_sequences_may_begin_before_the_recording(model: Any) -> None:
    """Positions go on from what the mask says of the cache, and a note says so."""
    tokens, mask = ids(4, 2, width=4)
    with torch.no_grad():
        cache = model(tokens, attention_mask=mask).past_key_values
        with record(model) as recording:
            model(tokens[:, :1], past_key_values=cache, attention_mask=torch.cat([mask, mask[:, -1:]], 1))
    assert column(recording.trace, "token_pos") == [4, 2]
    assert column(recording.trace, "phase") == [1, 1]
    assert "began before" in recording.trace.provenance.notes[0]


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"num_beams": 2}, "beam_search"),
        ({"prompt_lookup_num_tokens": 2}, "speculative_decoding"),
        ({"use_mtp": True}, "speculative_decoding"),
        ({"speculation_type": "dflash"}, "speculative_decoding"),
    ],
)
def test_decoding_that_breaks_the_order_is_refused(model: Any, settings: dict[str, Any], code: str) -> None:
    """Beam search and speculative decoding are refused before they start."""
    with pytest.raises(InputError) as error, record(model):
        model.generate(ids(5)[0], max_new_tokens=2, **settings)
    assert codes(error) == {code}


def test_a_changed_cache_is_refused(model: Any) -> None:
    """Cropped and reordered caches belong to other sequences than those that were recorded."""
    tokens, _ = ids(4, 4, width=4)
    with record(model), torch.no_grad():
        cache = model(tokens).past_key_values
        with pytest.raises(InputError) as error:
            cache.reorder_cache(torch.tensor([1, 0]))
        assert codes(error) == {"cache_changed"}
        cache.crop(-2)
        with pytest.raises(InputError) as error:
            model(tokens[:, :1], past_key_values=cache)
        assert codes(error) == {"cache_changed"}
    cache.reorder_cache(torch.tensor([1, 0]))  # allowed again


def test_masks_that_hide_the_padding_are_refused(model: Any) -> None:
    """Masks for pairs of positions, static caches that make such, and packed rows."""
    tokens, mask = ids(5, 3)
    with pytest.raises(InputError, match="pairs of positions"), record(model):
        model(tokens, attention_mask=torch.ones(2, 1, 5, 5, dtype=torch.bool))
    with pytest.raises(InputError, match="static cache"), record(model):
        model.generate(tokens, attention_mask=mask, max_new_tokens=2, cache_implementation="static")
    with pytest.raises(InputError, match="share a row"), record(model):
        model(tokens[:1], position_ids=torch.tensor([[0, 1, 2, 0, 1]]))
    with pytest.raises(InputError, match="continuous batching"), record(model):
        model(tokens[:1], cu_seq_lens_q=torch.tensor([0, 2, 5]))


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_the_file_is_the_trace(model: Any, suffix: str, tmp_path: Path) -> None:
    """A path gives a file that loads as the same trace as a recording without one, and nothing is left beside it."""
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    tokens, mask = ids(5, 3)
    with record(model) as kept, record(model, tmp_path / f"t{suffix}") as written, torch.no_grad():
        model.generate(tokens, attention_mask=mask, max_new_tokens=3, eos_token_id=None)
    loaded = load(tmp_path / f"t{suffix}")
    assert isinstance(loaded, Trace)
    for name in ("topk_ids", "gate_weights", "seq_id", "token_pos", "phase"):
        assert column(loaded, name) == column(kept.trace, name) == column(written.trace, name)
    assert [path.name for path in tmp_path.iterdir()] == [f"t{suffix}"]
    assert loaded.columns == kept.trace.columns


def test_an_error_leaves_neither_file_nor_hooks(model: Any, tmp_path: Path) -> None:
    """Whatever ends the block, hooks and generate() are as before, and no file appears."""
    before = hooks_of(model)

    def interrupted() -> Any:
        with record(model, tmp_path / "t.npz") as recording, torch.no_grad():
            seen.append(recording)
            model(ids(3)[0])
            assert hooks_of(model) == before + 4
            raise RuntimeError("mine")

    seen: list[Any] = []
    with pytest.raises(RuntimeError, match="mine"):
        interrupted()
    assert hooks_of(model) == before
    assert "generate" not in vars(model)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="after the block"):
        _ = seen[0].trace


def test_tokens_survive_a_failure_to_write(model: Any, tmp_path: Path) -> None:
    """Where the folder is gone at the end, the error says so, and the trace is still there."""
    folder = tmp_path / "gone"
    folder.mkdir()
    seen: list[Any] = []

    def recorded() -> None:
        with record(model, folder / "t.npz") as recording, torch.no_grad():
            seen.append(recording)
            model(ids(3)[0])
            (folder / "t.npz").mkdir()

    with pytest.raises(InputError, match="folder"):
        recorded()
    assert len(column(seen[0].trace, "seq_id")) == 5


def test_a_failed_call_is_left_out(model: Any) -> None:
    """A call that raises records nothing, and the next one is numbered as if it had not been."""
    tokens, _ = ids(4, 4, width=4)
    with record(model) as recording, torch.no_grad():
        with pytest.raises(IndexError):
            model(torch.full((2, 3), VOCABULARY + 5))
        model(tokens)
    assert column(recording.trace, "seq_id") == [0] * 4 + [1] * 4


def test_recordings_nest(model: Any) -> None:
    """An inner recording sees its part, the outer one all."""
    tokens, mask = ids(5)
    with record(model) as outer, torch.no_grad():
        model.generate(tokens, attention_mask=mask, max_new_tokens=2, eos_token_id=None)
        with record(model, weights=False) as inner:
            model.generate(tokens, attention_mask=mask, max_new_tokens=2, eos_token_id=None)
        model(tokens)
    assert (outer.tokens, inner.tokens) == (17, 6)
    assert "gate_weights" not in inner.trace.columns


def test_caches_and_models_are_not_kept_alive(model: Any) -> None:
    """A cache is freed when its owner drops it, recording or not."""
    import weakref

    with record(model), torch.no_grad():
        alive = weakref.ref(model(ids(3)[0]).past_key_values)
        gc.collect()
        assert alive() is None


def test_compiled_models_are_refused(model: Any) -> None:
    """Hooks would not run, or break the graph: the whole model, or a layer of it that was compiled in place."""
    plain = torch.nn.Sequential(Layer())
    plain[0].compile()
    for compiled in (torch.compile(model), plain):
        with pytest.raises(InputError) as error, record(compiled):
            pass
        assert codes(error) == {"compiled_model"}


def test_plain_layers_by_name_and_choice() -> None:
    """Modules are named by pattern; a function says what they chose; floats (B, S, H) tell rows and positions."""
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), Layer(), Layer())
    hidden = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))

    def choose(logits: Any) -> Any:
        weights, chosen = logits.softmax(-1).topk(2)
        return chosen, weights

    with record(model, routers=["*.gate"], choose=choose, num_experts=4) as recording, torch.no_grad():
        model(hidden)
    trace = recording.trace
    assert (trace.layer_ids.tolist(), trace.num_experts, trace.top_k) == ([1, 2], 4, 2)
    expected = torch.stack([model[1].used.reshape(-1, 2), model[2].used.reshape(-1, 2)], dim=1)
    assert column(trace, "topk_ids") == expected.tolist()
    assert column(trace, "seq_id") == [0, 0, 0, 1, 1, 1]
    assert "gate_weights" in trace.columns
    with record(model, routers={"2.gate": 17}, choose=choose, num_experts=4) as recording, torch.no_grad():
        model(hidden[0])  # (S, H): one sequence
    assert recording.trace.layer_ids.tolist() == [17]
    assert column(recording.trace, "token_pos") == [0, 1, 2]


def test_missing_routers_are_explained(model: Any) -> None:
    """The error lists classes that were looked for and modules that may be meant, and says how to name them."""
    plain = torch.nn.Sequential(Layer())
    with pytest.raises(InputError, match=r"TopKRouter.*0\.gate \(Linear\).*routers=") as error, record(plain):
        pass
    assert codes(error) == {"no_router"}
    with pytest.raises(InputError, match=r"layers\.\*\.router"), record(model, routers=["layers.*.router"]):
        pass


@pytest.mark.parametrize(
    ("experts", "settings", "code"),
    [
        (
            [4, 3],
            {"choose": lambda logits: logits.topk(logits.shape[-1] - 1).indices},
            "top_k_differs",
        ),
        ([4], {"choose": lambda logits: logits}, "choose_output"),
        ([4], {}, "router_output"),
        ([4], {"choose": lambda logits: logits.topk(1).indices + 4}, "ids_range"),
        ([4], {"choose": lambda logits: logits.topk(1).indices + 65536}, "ids_range"),
        ([4], {"choose": lambda logits: logits[:, :1].topk(1).indices}, "router_rows"),
        ([4], {"choose": lambda logits: logits.topk(2).indices * 0}, "duplicate_expert"),
        ([4], {"choose": lambda logits: (logits.topk(2).indices, logits.topk(2).values - 9)}, "weights_range"),
    ],
)
def test_what_does_not_fit_is_refused(experts: list[int], settings: dict[str, Any], code: str) -> None:
    """Different K, outputs that are no indices, ids out of range, and rows that are not the call's tokens."""
    model = torch.nn.Sequential(*(Layer(experts=number) for number in experts))
    with pytest.raises(InputError) as error, record(model, routers=["*.gate"], num_experts=4, **settings):
        model(torch.zeros(1, 2, 8))
    assert codes(error) == {code}


def test_calls_must_be_alike() -> None:
    """A trace has one K, and weights for all tokens or none."""
    model = torch.nn.Sequential(Layer())
    outputs: Any = iter(
        [lambda x: x.topk(2).indices, lambda x: x.topk(1).indices, lambda x: x.softmax(-1).topk(2)[::-1]]
    )
    with record(model, routers=["*.gate"], num_experts=4, choose=lambda logits: next(outputs)(logits)) as recording:
        model(torch.zeros(1, 2, 8))
        for _ in range(2):
            with pytest.raises(InputError) as error:
                model(torch.zeros(1, 2, 8))
            assert codes(error) == {"calls_differ"}
    assert recording.tokens == 2


def test_routers_that_run_elsewhere_or_not_at_all_are_refused(model: Any) -> None:
    """A router outside of a call has no padding or sequence; an idle one would leave a hole in the trace."""
    tokens, _ = ids(3)
    with pytest.raises(InputError) as error, record(model):
        model.model(tokens)
    assert codes(error) == {"outside_call"}
    both = torch.nn.ModuleDict({"0": Layer(), "1": Layer()})
    both.forward = lambda hidden: both["0"](hidden)
    choose: dict[str, Any] = {"choose": lambda logits: logits.topk(2).indices, "num_experts": 4}
    with pytest.raises(InputError) as error, record(both, routers=["*.gate"], **choose):
        both(torch.zeros(1, 2, 8))
    assert codes(error) == {"router_idle"}
    with pytest.raises(InputError) as error, record(model):
        pass
    assert codes(error) == {"nothing_recorded"}


def test_gradient_checkpointing_is_recorded_once(model: Any) -> None:
    """Layers that are computed again in the backward pass are not tokens of their own."""
    tokens, _ = ids(4)
    model.train()
    model.gradient_checkpointing_enable()
    try:
        with record(model) as recording:
            model(tokens, use_cache=False).logits.sum().backward()
    finally:
        model.gradient_checkpointing_disable()
        model.eval()
    assert recording.tokens == 5


def test_the_path_is_checked_before_the_recording(model: Any, tmp_path: Path) -> None:
    """A long recording does not end at a folder that is not there, or an unknown suffix."""
    for path in (tmp_path / "no" / "t.npz", tmp_path / "t.csv"):
        with pytest.raises(InputError), record(model, path):
            pytest.fail("the block must not run")
