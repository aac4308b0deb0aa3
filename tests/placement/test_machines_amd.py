"""Machines of AMD: ``rocm-smi``, ``amd-smi``, RCCL's XML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from placement import load_topology
from tests.builders.machines import amd, full, rccl, rocm, smi, written
from traces import InputError


def kinds(*sizes: int) -> list[list[str]]:
    """Return link types of GPUs that are linked in groups."""
    group = [number for number, size in enumerate(sizes) for _ in range(size)]
    return [
        ["0" if a == b else "XGMI" if group[a] == group[b] else "PCIE" for b in range(len(group))]
        for a in range(len(group))
    ]


def speed(spec: object, a: int, b: int) -> float:
    """Return GB/s between two GPUs."""
    topology = load_topology(str(spec))
    assert topology.bandwidth_gb_s is not None
    return float(topology.bandwidth_gb_s[a, b])


def test_rocm_smi(tmp_path: Path) -> None:
    """Several tables of one text: types are read, and a network that is no faster than a link is assumed and told."""
    path = written(tmp_path, rocm(kinds(8)))
    topology = load_topology(f"{path},hosts=2")
    assert topology.gpus_per_node == (8, 8)
    assert (speed(f"{path},hosts=2", 0, 7), speed(f"{path},hosts=2", 0, 8)) == (64, 50)
    assert any("XGMI link is assumed" in note for note in topology.notes)
    assert speed(f"{path},xgmi_gb_s=76.8", 0, 7) == 76.8


@pytest.mark.parametrize(("numa", "hops"), [(True, True), (True, False), (False, True), (False, False)])
def test_rocm_smi_of_two_halves(tmp_path: Path, numa: bool, hops: bool) -> None:
    """Halves that XGMI joins are nodes of a host; PCIe between them crosses sockets, as hops or NUMA nodes say."""
    path = written(tmp_path, rocm(kinds(4, 4), numa=numa, hops=hops))
    topology = load_topology(path)
    assert topology.gpus_per_node == (4, 4)
    assert topology.host_of_gpu.tolist() == [0] * 8
    assert (speed(path, 0, 3), speed(path, 0, 4)) == (50, 12.5)
    assert topology.warnings == ()


def test_links_over_two_steps_are_slower(tmp_path: Path) -> None:
    """A weight of twice the least is a way over two links."""
    text = rocm(kinds(4))
    first, rest = text.split("Hops between", 1)
    heavy = first.replace(
        "GPU0   0            15           15           15 ", "GPU0   0            15           15           30 "
    )
    heavy = heavy.replace("GPU3   15           15 ", "GPU3   30           15 ")
    assert heavy != first
    path = written(tmp_path, heavy + "Hops between" + rest)
    assert (speed(path, 0, 1), speed(path, 0, 3)) == (50, 25)


def test_amd_smi(tmp_path: Path) -> None:
    """Rows are named by bus address; the driver's bandwidths count where it knows them."""
    assert load_topology(written(tmp_path, amd(kinds(8)))).gpus_per_node == (8,)
    assert speed(tmp_path / "topo.txt", 0, 7) == 64
    known = written(tmp_path, amd(kinds(2, 2), "50000-100000"))
    assert (speed(known, 0, 1), speed(known, 0, 2)) == (100, 17.5)
    assert speed(f"{known},hosts=2", 0, 4) == 14, "below the PCIe between the halves"
    assert speed(written(tmp_path, amd(kinds(4), "0-0")), 0, 1) == 50


def json_of(kinds: list[list[str]], form: str) -> Any:
    """Return the JSON of AMD's tools: new, wrapped and old ``amd-smi``, and ``rocm-smi``."""
    gpus = range(len(kinds))
    names = [["SELF" if a == b else kinds[a][b] for b in gpus] for a in gpus]
    if form == "rocm":
        pairs = {
            f"(Topology) {what} between DRM devices {a} and {b}": word
            for a in gpus
            for b in range(a + 1, len(kinds))
            for what, word in (
                ("Link type", kinds[a][b]),
                ("Weight", "15" if kinds[a][b] == "XGMI" else "40"),
                ("Hops", "1" if kinds[a][b] == "XGMI" else "2"),
            )
        }
        return {"system": pairs} | {f"card{gpu}": {"(Topology) Numa Node": "0"} for gpu in gpus}
    if form == "old":
        words = [{f"gpu_{b}": names[a][b] for b in gpus} for a in gpus]
        hops = [{f"gpu_{b}": 0 if a == b else 2 - (kinds[a][b] == "XGMI") for b in gpus} for a in gpus]
        return [{"gpu": gpu, "bdf": str(gpu), "link_type": words[gpu], "hops": hops[gpu]} for gpu in gpus]
    listed = [
        {
            "gpu": a,
            "bdf": str(a),
            "links": [
                {
                    "gpu": b,
                    "weight": 15,
                    "link_type": names[a][b],
                    "num_hops": 2 - (names[a][b] != "PCIE"),
                    "bandwidth": "N/A",
                }
                for b in reversed(gpus)
            ],
        }
        for a in gpus
    ]
    return {"gpu_data": listed} if form == "wrapped" else listed


@pytest.mark.parametrize("form", ["new", "wrapped", "old", "rocm"])
def test_json(tmp_path: Path, form: str) -> None:
    """Links are found by the GPU they name, not by their place; options count as for text."""
    path = written(tmp_path, json.dumps(json_of(kinds(2, 2), form)), "topo.json")
    topology = load_topology(f"{path},hosts=2,network_gb_s=10")
    assert topology.gpus_per_node == (2, 2, 2, 2)
    assert (speed(path, 0, 1), speed(path, 0, 2)) == (50, 17.5)


def _without_type(content: Any) -> Any:
    del content[0]["links"][0]["link_type"]
    return content


def _twice(content: Any) -> Any:
    content[1]["gpu"] = 0
    return content


def _elsewhere(content: Any) -> Any:
    content[0]["links"][0]["gpu"] = 77
    return content


@pytest.mark.parametrize("damage", [_without_type, _twice, _elsewhere])
def test_damaged_json(tmp_path: Path, damage: Any) -> None:
    """A pair without its type, a GPU that is there twice, a link to nowhere."""
    path = written(tmp_path, json.dumps(damage(json_of(kinds(4), "new"))), "topo.json")
    with pytest.raises(InputError, match="amd_tables"):
        load_topology(path)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("Link Type between", "Something between"), "amd_tables"),
        (("Hops between", "Weight between"), "amd_tables"),
        (("GPU3   XGMI", "GPU4   XGMI"), "amd_tables"),
        (("GPU0   0            XGMI", "GPU0   0            XXXX"), "amd_word"),
        (("GPU0   0            XGMI", "GPU0   XGMI         XGMI"), "amd_diagonal"),
        (("GPU0   0            XGMI", "GPU0   0            PCIE"), "amd_asymmetric"),
    ],
)
def test_damaged_tables(tmp_path: Path, change: tuple[str, str], code: str) -> None:
    """Tables that are missing, there twice, cut off or contradictory are named."""
    text = rocm(kinds(4))
    assert change[0] in text
    with pytest.raises(InputError, match=code):
        load_topology(written(tmp_path, text.replace(change[0], change[1])))


@pytest.mark.parametrize(
    ("gcn", "expected"), [("gfx942", 64), ("942", 64), ("gfx950", 76.8), ("910", 50), ("gfx90a:xnack-", 50)]
)
def test_rccl(tmp_path: Path, gcn: str, expected: float) -> None:
    """RCCL's links are ``xgmi`` from GPU to GPU, at the speed of the architecture; ``sm`` is no capability there."""
    path = written(tmp_path, rccl(8, gcn), "topo.xml")
    topology = load_topology(f"{path},hosts=2")
    assert topology.gpus_per_node == (8, 8)
    assert speed(path, 0, 7) == expected
    assert speed(f"{path},hosts=2", 0, 8) <= 50
    assert speed(f"{path},xgmi_gb_s=40", 0, 7) == 40


def test_unknown_architecture_is_told(tmp_path: Path) -> None:
    """The speed of a link that nobody knows is assumed, by name."""
    topology = load_topology(written(tmp_path, rccl(4, "gfx1300"), "topo.xml"))
    assert any("gfx1300 is assumed" in note for note in topology.notes)


def test_unknown_elements_of_a_gpu_are_refused(tmp_path: Path) -> None:
    """A link of a kind that is not known is named, not passed over."""
    text = rccl(2).replace("<xgmi ", "<ualink ")
    with pytest.raises(InputError, match=r"<ualink> inside <gpu> is not known") as error:
        load_topology(written(tmp_path, text, "topo.xml"))
    assert len(error.value.violations) == 2


def test_links_to_gpus_that_are_not_there(tmp_path: Path) -> None:
    """Two GPUs of a larger mesh are linked to each other, not through the ones that the file lacks."""
    text = rccl(3)
    cut = text[: text.index('<cpu numaid="2"')] + "</system>"
    lone = cut.replace('<xgmi target="0000:01:00.0" count="1" tclass="0x120000"/>', "").replace(
        '<xgmi target="0000:00:00.0" count="1" tclass="0x120000"/>', ""
    )
    assert speed(written(tmp_path, cut, "topo.xml"), 0, 1) == 64
    assert speed(written(tmp_path, lone, "topo.xml"), 0, 1) < 64


def test_speeds_of_the_other_vendor_are_refused(tmp_path: Path) -> None:
    """`nvlink_gb_s` has no place with AMD's links, nor `xgmi_gb_s` with NVIDIA's."""
    for text, option in (
        (rocm(kinds(2)), "nvlink_gb_s"),
        (rocm(kinds(1, 1)), "xgmi_gb_s"),
        (rccl(2), "nvlink_gb_s"),
        (smi(full(2, "NV12")), "xgmi_gb_s"),
    ):
        with pytest.raises(InputError, match=option):
            load_topology(f"{written(tmp_path, text, 'topo')},{option}=25")
