"""Train a small Mixture-of-Experts language model on the CPU and record how it routes text it was not trained on.

The text is the running Python's own standard library, so nothing is downloaded. See ``README.md`` beside this file.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import math
import platform
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

LAYERS = 8
EXPERTS = 32
TOP_K = 2
D_MODEL = 96
D_EXPERT = 192
HEADS = 4
CONTEXT = 128
VOCAB = 256  # a token is a byte

BATCH = 32
LEARNING_RATE = 3e-3
WARMUP = 60
BALANCE_WEIGHT = 0.01  # alpha of arXiv 2101.03961, section 2.2
THREADS = 2  # fixed: the number of threads changes the order of float sums, hence the last bits

KINDS = ("code", "docstrings", "manual", "tables")
HELD_OUT_EVERY = 10  # every tenth document is never trained on
HELD_OUT_WINDOWS = 64  # per kind, for the held-out loss
TRACED_WINDOWS = 40  # per kind, the first of those above
PROMPT_WINDOWS = 8  # per kind, the first of those again: only their first half is kept, and the model continues it
PROMPT = 64
TEMPERATURE = 0.8

# Some systems ship these apart from the interpreter, or not at all.
SKIPPED_PARTS = {"test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "distutils", "ensurepip"}

Params = dict[str, Tensor]


@dataclass(frozen=True)
class Text:
    """Bytes of each kind, in the order of `KINDS`: those trained on and those held out."""

    train: list[bytes]
    held_out: list[bytes]


@dataclass(frozen=True)
class Routed:
    """What one pass over a batch of B sequences of S tokens gives."""

    logits: Tensor  # (B, S, VOCAB)
    balance: Tensor  # load-balancing loss, mean over layers; 1 when the load is even
    ids: Tensor  # (LAYERS, B * S, TOP_K)
    gates: Tensor  # (LAYERS, B * S, TOP_K)


def docstrings(source: str) -> str:
    """All docstrings of a module, in the order of the syntax tree."""
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(ast.parse(source)) if isinstance(node, nodes))
    return "\n\n".join(doc for doc in found if doc)


def read_text() -> Text:
    """Read the standard library, split by document so that a module's code and docstrings stay on one side."""
    from pydoc_data.topics import topics  # the language reference that help() shows

    root = Path(sysconfig.get_paths()["stdlib"])
    train: dict[str, list[str]] = {kind: [] for kind in KINDS}
    held_out: dict[str, list[str]] = {kind: [] for kind in KINDS}

    modules: list[Path] = []
    encodings: list[Path] = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        # Build-time and site files (_sysconfigdata..., site-packages) differ between machines; modules do not.
        if parts[0] not in sys.stdlib_module_names or SKIPPED_PARTS.intersection(parts) or parts[0] == "pydoc_data":
            continue
        (encodings if parts[0] == "encodings" else modules).append(path)

    for i, path in enumerate(modules):
        side = held_out if i % HELD_OUT_EVERY == 0 else train
        source = path.read_text(encoding="utf-8")
        side["code"].append(source)
        side["docstrings"].append(docstrings(source))
    for i, path in enumerate(encodings):
        side = held_out if i % HELD_OUT_EVERY == 0 else train
        side["tables"].append(path.read_text(encoding="utf-8"))
    for i, name in enumerate(sorted(topics)):
        side = held_out if i % HELD_OUT_EVERY == 0 else train
        side["manual"].append(topics[name])

    return Text(
        train=["\n\n".join(train[kind]).encode() for kind in KINDS],
        held_out=["\n\n".join(held_out[kind]).encode() for kind in KINDS],
    )


def unseen_windows(text: Text, rng: np.random.Generator) -> Tensor:
    """Draw held-out windows no half of which occurs in the training text.

    Splitting by document is not enough: topics of the manual quote each other, and code tables repeat.

    Returns
    -------
    Tensor
        int64 (kinds, HELD_OUT_WINDOWS, CONTEXT + 1); neighbours overlap in one byte, which is only ever a target.
    """
    everything = b"\n\n".join(text.train)
    kinds = []
    for kind, held_out in zip(KINDS, text.held_out, strict=True):
        rows: list[bytes] = []
        for start in rng.permutation(np.arange(0, len(held_out) - CONTEXT, CONTEXT)):
            window = held_out[start : start + CONTEXT + 1]
            middle = CONTEXT // 2
            if window[:middle] in everything or window[middle:CONTEXT] in everything:
                continue
            rows.append(window)
            if len(rows) == HELD_OUT_WINDOWS:
                break
        else:
            raise SystemExit(f"too little held-out text of kind {kind!r}: {len(rows)} windows")
        kinds.append(np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(HELD_OUT_WINDOWS, CONTEXT + 1))
    return torch.from_numpy(np.stack(kinds).astype(np.int64))


def draw_batch(train: list[Tensor], rng: np.random.Generator, per_kind: int) -> Tensor:
    """Draw training windows, as many of each kind; int64 (kinds * per_kind, CONTEXT + 1)."""
    rows = [
        data[start : start + CONTEXT + 1]
        for data in train
        for start in rng.integers(0, len(data) - CONTEXT, size=per_kind).tolist()
    ]
    return torch.stack(rows).long()


def init_params(seed: int) -> Params:
    """Draw the initial parameters."""
    gen = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float) -> Tensor:
        return (torch.randn(*shape, generator=gen) * std).requires_grad_()

    into, out = D_MODEL**-0.5, (2 * LAYERS) ** -0.5  # residual branches start small, so that their sum does not grow
    params = {
        "embed": normal(VOCAB, D_MODEL, std=0.02),
        "position": normal(CONTEXT, D_MODEL, std=0.02),
        "head": normal(D_MODEL, VOCAB, std=0.02),
    }
    for layer in range(LAYERS):
        params[f"qkv.{layer}"] = normal(D_MODEL, 3 * D_MODEL, std=into)
        params[f"proj.{layer}"] = normal(D_MODEL, D_MODEL, std=into * out)
        params[f"router.{layer}"] = normal(D_MODEL, EXPERTS, std=0.02)  # near-even at first: every expert learns
        params[f"up.{layer}"] = normal(EXPERTS, D_MODEL, D_EXPERT, std=into)
        params[f"down.{layer}"] = normal(EXPERTS, D_EXPERT, D_MODEL, std=D_EXPERT**-0.5 * out)
    return params


def norm(x: Tensor) -> Tensor:
    """RMS norm without a gain: the matrix that follows has one."""
    return functional.rms_norm(x, (D_MODEL,))


def attention(x: Tensor, qkv: Tensor, proj: Tensor) -> Tensor:
    """Causal multi-head self-attention over (B, S, D_MODEL)."""
    batch, length, _ = x.shape
    q, k, v = (x @ qkv).view(batch, length, 3, HEADS, D_MODEL // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
    mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return mixed.transpose(1, 2).reshape(batch, length, D_MODEL) @ proj


def moe(x: Tensor, router: Tensor, up: Tensor, down: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Send each token to its top experts; no expert has a capacity, so no token is dropped.

    Parameters
    ----------
    x : Tensor
        (T, D_MODEL).
    router, up, down : Tensor
        Weights of the layer.

    Returns
    -------
    tuple of Tensor
        Output (T, D_MODEL), load-balancing loss (), expert ids (T, TOP_K), gate weights (T, TOP_K).
    """
    probs = torch.softmax(x @ router, dim=-1)
    top, ids = probs.topk(TOP_K, dim=-1)
    gates = top / top.sum(dim=-1, keepdim=True)

    # One matrix product per expert on the rows it owns; on a CPU this beats padding to the fullest expert.
    flat = ids.reshape(-1)
    order = torch.argsort(flat, stable=True)
    token = order // TOP_K
    counts = torch.bincount(flat, minlength=EXPERTS)
    rows = torch.split(x.index_select(0, token), counts.tolist())
    results = [
        functional.gelu(part @ w_up, approximate="tanh") @ w_down
        for part, w_up, w_down in zip(rows, up.unbind(0), down.unbind(0), strict=True)
    ]
    weighted = torch.cat(results) * gates.reshape(-1).index_select(0, order).unsqueeze(1)
    out = torch.zeros_like(x).index_add(0, token, weighted)

    share = counts / flat.numel()  # f_i of the paper, over both choices; no gradient flows through it
    balance = EXPERTS * (share * probs.mean(dim=0)).sum()
    return out, balance, ids, gates


def forward(params: Params, tokens: Tensor) -> Routed:
    """Run the model over int64 tokens (B, S), S at most CONTEXT."""
    batch, length = tokens.shape
    x = params["embed"][tokens] + params["position"][:length]
    balances, ids, gates = [], [], []
    for layer in range(LAYERS):
        x = x + attention(norm(x), params[f"qkv.{layer}"], params[f"proj.{layer}"])
        out, balance, layer_ids, layer_gates = moe(
            norm(x).view(-1, D_MODEL), params[f"router.{layer}"], params[f"up.{layer}"], params[f"down.{layer}"]
        )
        x = x + out.view(batch, length, D_MODEL)
        balances.append(balance)
        ids.append(layer_ids)
        gates.append(layer_gates)
    return Routed(norm(x) @ params["head"], torch.stack(balances).mean(), torch.stack(ids), torch.stack(gates))


def token_loss(routed: Routed, windows: Tensor) -> Tensor:
    """Mean cross-entropy of the next byte, in nats."""
    return functional.cross_entropy(routed.logits.reshape(-1, VOCAB), windows[:, 1:].reshape(-1))


def train(params: Params, text: Text, steps: int, rng: np.random.Generator) -> None:
    """Train in place with AdamW, warm-up and a cosine decay to a tenth."""
    data = [torch.from_numpy(np.frombuffer(part, dtype=np.uint8).copy()) for part in text.train]
    optimiser = torch.optim.AdamW(params.values(), betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    start = time.perf_counter()
    for step in range(steps):
        decay = 0.55 + 0.45 * math.cos(math.pi * step / steps)
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARMUP) * decay
        windows = draw_batch(data, rng, BATCH // len(KINDS))
        routed = forward(params, windows[:, :-1])
        loss = token_loss(routed, windows)
        optimiser.zero_grad()
        torch.autograd.backward(loss + BALANCE_WEIGHT * routed.balance)
        torch.nn.utils.clip_grad_norm_(params.values(), 1.0)
        optimiser.step()
        if step % 50 == 0 or step == steps - 1:
            seconds = time.perf_counter() - start
            print(f"step {step:5d}  loss {loss.item():.3f}  balance {routed.balance.item():.3f}  {seconds:6.1f} s")


def evaluate(params: Params, windows: Tensor) -> tuple[list[float], float]:
    """Loss of each kind in nats per byte, and the load-balancing loss over all; windows (kinds, N, CONTEXT + 1)."""
    with torch.no_grad():
        losses = [token_loss(forward(params, part[:, :-1]), part).item() for part in windows.unbind(0)]
        balance = forward(params, windows[:, :, :-1].flatten(0, 1)).balance.item()
    return losses, balance


def continue_prompts(params: Params, prompts: Tensor, seed: int) -> Tensor:
    """Let the model write on from (B, PROMPT) to (B, CONTEXT).

    There is no key-value cache: at this size it is simpler to run the whole prefix again for each new token.
    """
    gen = torch.Generator().manual_seed(seed)
    tokens = prompts
    with torch.no_grad():
        while tokens.shape[1] < CONTEXT:
            logits = forward(params, tokens).logits[:, -1] / TEMPERATURE
            new = torch.multinomial(torch.softmax(logits, dim=-1), 1, generator=gen)
            tokens = torch.cat([tokens, new], dim=1)
    return tokens


def record(params: Params, windows: Tensor, rng: np.random.Generator, seed: int) -> dict[str, np.ndarray]:
    """Route the traced sequences and lay them out as the columns of a trace.

    Attention is causal and no token is dropped: a token's experts depend on its prefix alone, so one pass over a
    finished sequence routes each of its tokens as the decoding step did that first ran it.
    """
    tokens = windows[:, :TRACED_WINDOWS, :-1].clone()
    decoded = torch.zeros(tokens.shape[:2], dtype=torch.bool)
    decoded[:, :PROMPT_WINDOWS] = True
    tokens[decoded] = continue_prompts(params, tokens[decoded][:, :PROMPT], seed)

    # Shuffled: kinds or phases that took turns would be told apart by a split that takes every n-th sequence.
    order = torch.from_numpy(rng.permutation(decoded.numel()))
    tokens, decoded = tokens.flatten(0, 1)[order], decoded.flatten()[order]
    seq_id = torch.arange(len(tokens))
    with torch.no_grad():
        routed = forward(params, tokens)
    position = torch.arange(CONTEXT).repeat(len(tokens))
    phase = decoded.repeat_interleave(CONTEXT) & (position >= PROMPT)
    return {
        "topk_ids": routed.ids.transpose(0, 1).numpy().astype(np.uint8),
        "gate_weights": routed.gates.transpose(0, 1).numpy().astype(np.float16),
        "seq_id": seq_id.repeat_interleave(CONTEXT).numpy().astype(np.int32),
        "token_pos": position.numpy().astype(np.int32),
        "phase": phase.numpy().astype(np.uint8),
        "layer_ids": np.arange(LAYERS, dtype=np.int32),
        "num_experts": np.array(EXPERTS, dtype=np.int32),
    }


def main() -> None:
    """Train, report the losses and write the trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="training steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is random (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("tiny_moe.npz"), help="trace to write")
    args = parser.parse_args()

    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    rng = np.random.default_rng(args.seed)

    text = read_text()
    digest = hashlib.sha256(b"".join(text.train + text.held_out)).hexdigest()
    print(f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}")
    print(f"text sha256 {digest}")
    for kind, trained, held_out in zip(KINDS, text.train, text.held_out, strict=True):
        print(f"{kind:10s} {len(trained):9,d} bytes to train on, {len(held_out):9,d} held out")

    unseen = unseen_windows(text, rng)
    params = init_params(args.seed)
    print(f"{sum(p.numel() for p in params.values()):,d} parameters")
    train(params, text, args.steps, rng)

    data = [torch.from_numpy(np.frombuffer(part, dtype=np.uint8).copy()) for part in text.train]
    seen = draw_batch(data, rng, HELD_OUT_WINDOWS).view(len(KINDS), HELD_OUT_WINDOWS, CONTEXT + 1)
    for name, windows in (("train", seen), ("held out", unseen)):
        losses, balance = evaluate(params, windows)
        each = "  ".join(f"{kind} {loss:.3f}" for kind, loss in zip(KINDS, losses, strict=True))
        print(f"{name:8s}  loss {sum(losses) / len(losses):.3f} nats per byte ({each})  balance {balance:.3f}")

    columns = record(params, unseen, rng, args.seed)
    np.savez_compressed(args.out, **columns)  # type: ignore[arg-type]  # all are arrays
    print(f"{args.out.name}: {len(columns['seq_id']):,d} tokens, {args.out.stat().st_size:,d} bytes")


if __name__ == "__main__":
    main()
