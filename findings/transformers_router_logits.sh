#!/usr/bin/env bash
# The top-k of transformers' `router_logits` is not the routing in many families, and one ignores the configured k.
#
# Surprising:  Families with a selection bias beside the gate choose by score plus bias, but `output_router_logits=True`
#              returns what was there before it, under the same name and shape as in Mixtral or Qwen3-MoE, where its
#              top-k is the routing. And Phi-MoE uses two experts whatever `num_experts_per_tok` says.
# Versions:    transformers==5.24.0, torch==2.13.0 (any build), numpy==2.4.6
# Why:         Loads and co-activations counted from router_logits are of other experts than those that run: placements
#              made from them balance the load that the bias was trained to remove. Record the indices that the experts
#              receive, and take k from them.
# Seen:        2026-11-29
#
# Small random models; routers get weights and, where they have one, a bias (standard deviation 0.05).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --no-compile numpy==2.4.6 torch==2.13.0 transformers==5.24.0
cat > finding.py <<'PYTHON'
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 16, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 128, "num_local_experts": 16,
    "num_experts": 16, "n_routed_experts": 16, "moe_num_experts": 16, "num_experts_per_tok": 4, "moe_k": 4,
    "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}
BIASED = ("glm4_moe", "minimax_m2", "ernie4_5_moe", "solar_open", "afmoe", "deepseek_v3")
PLAIN = ("mixtral", "qwen3_moe", "olmoe", "phimoe")


def routed(family):
    """Return the share of (token, layer) whose experts are not the top-k of router_logits, and the k in use."""
    known = CONFIG_MAPPING[family]()
    config = CONFIG_MAPPING[family](**{name: size for name, size in SIZES.items() if hasattr(known, name)})
    assert config.num_experts_per_tok == 4
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith(("gate.weight", "router.weight")):
            tensor.data.normal_(0, 0.3)
        elif "correction_bias" in name or "expert_bias" in name:
            tensor.data.normal_(0, 0.05)
    received = []
    for name, module in model.named_modules():
        if name.endswith(".experts"):
            module.register_forward_pre_hook(lambda _, inputs: received.append(inputs[1]))
    with torch.no_grad():
        logits = model(torch.arange(3, 64)[None], output_router_logits=True).router_logits
    assert len(received) == len(logits) > 0
    differs = []
    for experts, row in zip(received, logits):
        top = row.topk(experts.shape[-1]).indices
        differs.append((experts.sort().values != top.sort().values).any(-1).float().mean())
    return float(torch.stack(differs).mean()), received[0].shape[-1]


seen = {family: routed(family) for family in BIASED + PLAIN}
for family, (differs, k) in seen.items():
    print(f"{family}: {differs:.0%} of the tokens use other experts than the top-{k} of router_logits; k is {k} of 4")
changed = "the behaviour has changed"
assert all(seen[family][0] > 0.1 for family in BIASED) and all(seen[family][0] == 0 for family in PLAIN), changed
assert all(k == (2 if family == "phimoe" else 4) for family, (_, k) in seen.items()), changed
PYTHON
env/bin/python finding.py
