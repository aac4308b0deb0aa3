"""Interleaved MoE layers, said by hand: at every door the same, and refused where they have no effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from api.cli import app
from api.cli.reading import read_model
from api.cli.remote.trace import send_trace
from tests.builders.service import npz
from traces import ModelLayout

LAYERS = [1, 3, 5]


@pytest.fixture(scope="module")
def content() -> bytes:
    """Make a trace of three layers that does not say which."""
    ids = np.random.default_rng(0).permuted(np.tile(np.arange(8), (64, 3, 1)), axis=2)[:, :, :2]
    return npz(topk_ids=ids, num_experts=np.int64(8))


def test_the_command_line_reads_lists(content: bytes, tmp_path: Path) -> None:
    """Numbers and ranges name the layers of the trace."""
    (tmp_path / "t.npz").write_bytes(content)
    words = ["profile", "t.npz", "--model-layers", "6", "--moe-layers", "1,3,5-5", "--json"]
    words[1] = str(tmp_path / "t.npz")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["layer_ids"] == LAYERS
    layout = read_model(None, 48, moe_layers="1,3,5-47", mtp_layers=1)
    assert layout == ModelLayout.of(48, moe_layers=[1, 3, *range(5, 48)], num_mtp_layers=1)


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"moe_layers": "1,3"}, "--moe-layers"),
        ({"model_layers": 6, "moe_layers": "1,3", "first_moe_layer": 1}, "--moe-layers"),
        ({"config": "config.json", "moe_layers": "1,3"}, "--moe-layers"),
        ({"model_layers": 6, "moe_layers": "1;3"}, "--moe-layers"),
        ({"mtp_layers": 1}, "--mtp-layers"),
    ],
)
def test_the_command_line_refuses_what_has_no_effect(given: dict[str, Any], option: str) -> None:
    """Without the number of layers, and beside what says the same."""
    names = ("config", "model_layers", "first_moe_layer", "mtp_layers", "moe_layers")
    with pytest.raises(typer.BadParameter) as error:
        read_model(*(given.get(name) for name in names))
    assert error.value.param_hint == option


def test_a_service_is_told(client: TestClient, content: bytes, tmp_path: Path) -> None:
    """In a parameter of the upload, in the body of one in parts, and by the command line's client."""
    told: dict[str, Any] = {"model_layers": 6, "moe_layers": "1,3,5"}
    assert client.post("/v1/traces", content=content, params=told).json()["layer_ids"] == LAYERS
    for params, pointer in (({"moe_layers": "1"}, "?moe_layers"), (told | {"first_moe_layer": 1}, "?moe_layers")):
        refused = client.post("/v1/traces", content=content, params=params)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)
    begun = client.post("/v1/uploads", json={"bytes": len(content), "model_layers": 6, "moe_layers": LAYERS})
    assert begun.status_code == 201, begun.text

    class Service:
        def upload(self, path: Path, **reading: Any) -> Any:
            raise LookupError(reading)

    service: Any = Service()
    (tmp_path / "t.npz").write_bytes(content)
    model = ModelLayout.of(6, moe_layers=LAYERS)
    with pytest.raises(LookupError) as error:
        send_trace(service, tmp_path / "t.npz", {"model": model})
    assert error.value.args[0] == {"name": None, "model_layers": 6, "moe_layers": LAYERS}
