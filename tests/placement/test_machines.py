"""Topologies from what machines say of themselves."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from placement import Topology, load_topology
from tests.builders.machines import FABRIC, IBSTAT, SWITCHES, full, smi, written, xml
from traces import InputError


@pytest.mark.parametrize("escapes", [True, False])
def test_smi_hgx(tmp_path: Path, escapes: bool) -> None:
    """Eight GPUs with 18 links each are a node at 450 GB/s, whatever the terminal's escapes; twice, they are two."""
    path = written(tmp_path, smi(full(8, "NV18"), nics=9, escapes=escapes))
    one = load_topology(f"{path},nvlink_gb_s=25")
    assert one.gpus_per_node == (8,)
    assert one.bandwidth_gb_s is not None
    assert one.bandwidth_gb_s[0, 7] == 450
    two = load_topology(f"{path},nvlink_gb_s=25,hosts=2,network_gb_s=45")
    assert two.gpus_per_node == (8, 8)
    assert two.host_of_gpu.tolist() == [0] * 8 + [1] * 8
    assert (two.hop_cost[0, 7], two.hop_cost[0, 8]) == (0.1, 1.0)
    assert one.hop_cost[0, 7] == pytest.approx(50 / 450)


def test_smi_does_not_guess_the_generation(tmp_path: Path) -> None:
    """18 links are those of an H100 or of a B200, at twice the speed: it has to be said. 12 are those of an A100."""
    with pytest.raises(InputError, match="nvlink_gb_s=25"):
        load_topology(written(tmp_path, smi(full(8, "NV18"))))
    a100 = load_topology(written(tmp_path, smi(full(8, "NV12"))))
    assert a100.bandwidth_gb_s is not None
    assert a100.bandwidth_gb_s[0, 1] == 300


def test_gb200_domain_is_the_rack(tmp_path: Path) -> None:
    """Four GPUs of a GB200 host are part of a domain that the host can't see: the caller says where it ends."""
    path = written(tmp_path, smi(full(4, "NV18"), nics=4))
    with pytest.raises(InputError, match="domain=rack"):
        load_topology(f"{path},nvlink_gb_s=50,hosts=18")
    rack = load_topology(f"{path},nvlink_gb_s=50,hosts=18,domain=rack")
    preset = Topology.parse("gb200_nvl72")
    assert rack.gpus_per_node == preset.gpus_per_node == (72,)
    assert rack.host_of_gpu.tolist() == preset.host_of_gpu.tolist()
    assert np.array_equal(rack.hop_cost, preset.hop_cost)
    assert load_topology(f"{path},nvlink_gb_s=50,hosts=18,domain=host").gpus_per_node == (4,) * 18


def test_smi_without_nvlink(tmp_path: Path) -> None:
    """A host without NVLink is one node, with the costs of PCIe: across sockets twice those of a switch."""
    matrix = [
        [" X ", "PIX", "SYS", "SYS"],
        ["PIX", " X ", "SYS", "SYS"],
        ["SYS", "SYS", " X ", "PIX"],
        ["SYS", "SYS", "PIX", " X "],
    ]
    topology = load_topology(f"{written(tmp_path, smi(matrix))},pcie_gb_s=50,network_gb_s=12.5,hosts=2")
    assert topology.gpus_per_node == (4, 4)
    assert topology.hop_cost[0].tolist() == [0.0, 0.25, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("links", "options", "key"),
    [
        ("SYS", "network_gb_s=5", "network_gb_s"),
        ("SYS", "domain=host", "domain"),
        ("SYS", "domain=rack,hosts=2", "domain"),
        ("NV12", "pcie_gb_s=20", "pcie_gb_s"),
        ("NV12", "pcie_gb_s=20,hosts=2,domain=rack", "pcie_gb_s"),
        ("NV12", "network_gb_s=20,hosts=2,domain=rack", "network_gb_s"),
    ],
)
def test_options_without_effect_are_refused(tmp_path: Path, links: str, options: str, key: str) -> None:
    """What no pair of GPUs has a use for is told, and does not change the costs of others."""
    with pytest.raises(InputError) as caught:
        load_topology(f"{written(tmp_path, smi(full(4, links)))},{options}")
    assert [(one.code, one.pointer) for one in caught.value.violations] == [("without_effect", f"/topology/{key}")]


def test_options_of_pcie_matter_to_the_network(tmp_path: Path) -> None:
    """Between hosts, what leaves a GPU passes its PCIe port."""
    topology = load_topology(f"{written(tmp_path, smi(full(4, 'NV12')))},pcie_gb_s=20,hosts=2")
    assert topology.bandwidth_gb_s is not None
    assert topology.bandwidth_gb_s[0, 4] == 20 / 4  # four GPUs share a port


def test_shorthands_have_no_options() -> None:
    """They are no file, and the message says so rather than that there is none."""
    with pytest.raises(InputError, match="shorthands have no options"):
        load_topology("1x4,network_gb_s=5")


def test_smi_bridges(tmp_path: Path) -> None:
    """GPUs that bridges join in pairs are a node each."""
    pairs = [
        ["X", "NV4", "SYS", "SYS"],
        ["NV4", "X", "SYS", "SYS"],
        ["SYS", "SYS", "X", "NV4"],
        ["SYS", "SYS", "NV4", "X"],
    ]
    topology = load_topology(written(tmp_path, smi(pairs)))
    assert topology.gpus_per_node == (2, 2)
    assert topology.host_of_gpu.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("GPU1\t", "GPU7\t"), "smi_rows"),
        (("GPU1\t", "GPU0\t"), "smi_rows"),
        (("NV12\t X ", "NV12\tNV12"), "smi_diagonal"),
        (("GPU0\t X \tNV12", "GPU0\t X \tNV11"), "smi_asymmetric"),
        (("GPU0\t X \tNV12", "GPU0\t X \tABC"), "smi_word"),
        (("GPU0\t X \tNV12", "GPU0\t X \tNV0"), "smi_word"),
    ],
)
def test_smi_damage(tmp_path: Path, change: tuple[str, str], code: str) -> None:
    """Rows that are missing, twice or contradictory are named."""
    text = smi(full(4, "NV12"))
    assert change[0] in text.split("\n", 1)[1]
    head, rest = text.split("\n", 1)
    with pytest.raises(InputError, match=code):
        load_topology(written(tmp_path, head + "\n" + rest.replace(change[0], change[1], 1)))


def test_nccl_hgx(tmp_path: Path) -> None:
    """Switches of a host join its GPUs; ports give the network's speed; each host is a node."""
    topology = load_topology(written(tmp_path, xml(2, 8, SWITCHES, nets=8), "topo.xml"))
    assert topology.gpus_per_node == (8, 8)
    assert topology.bandwidth_gb_s is not None
    assert topology.bandwidth_gb_s[0, 7] == 450
    assert topology.bandwidth_gb_s[0, 8] == 50


def test_nccl_gb200(tmp_path: Path) -> None:
    """The fabric's switch joins all hosts of the file into one domain, at the speed of NVLink 5."""
    topology = load_topology(written(tmp_path, xml(4, 4, FABRIC, sm=100), "topo.xml"))
    assert topology.gpus_per_node == (16,)
    assert topology.host_of_gpu.tolist() == np.repeat(range(4), 4).tolist()
    assert topology.bandwidth_gb_s is not None
    assert topology.bandwidth_gb_s[0, 15] == 900


def test_nccl_gpu_without_its_link(tmp_path: Path) -> None:
    """A GPU whose link is missing, a fault that NCCL passes over in silence, is named."""
    text = xml(2, 4, FABRIC, sm=100)
    broken = text.replace(f'rank="5" gdr="1">{FABRIC}', 'rank="5" gdr="1">')
    assert broken != text
    with pytest.raises(InputError, match=r"Ranks \[5\] have none"):
        load_topology(written(tmp_path, broken, "topo.xml"))


def test_nccl_direct_links_and_ranks(tmp_path: Path) -> None:
    """Links from GPU to GPU, and ranks in another order than the devices."""
    gpus = [
        '<pci busid="0001:0:0.0"><gpu dev="0" sm="80" rank="1"><nvlink target="0002:0:0.0" count="12"/></gpu></pci>',
        '<pci busid="0002:0:0.0"><gpu dev="1" sm="80" rank="0"><nvlink target="0001:0:0.0" count="12"/></gpu></pci>',
        '<pci busid="0003:0:0.0"><gpu dev="2" sm="80" rank="2"/></pci>',
    ]
    text = f'<?xml version="1.0"?>\n<!-- dump -->\n<system version="1"><cpu numaid="0">{"".join(gpus)}</cpu></system>'
    topology = load_topology(written(tmp_path, text, "topo.xml"))
    assert topology.gpus_per_node == (2, 1)
    assert topology.bandwidth_gb_s is not None
    assert topology.bandwidth_gb_s[0].tolist()[1:] == [300, 25]


def test_nccl_speeds_of_the_caller(tmp_path: Path) -> None:
    """`nvlink_gb_s` and `pcie_gb_s` take the place of what the XML says, and are refused where there is no NVLink."""
    path = written(tmp_path, xml(2, 8, SWITCHES), "topo.xml")
    topology = load_topology(f"{path},nvlink_gb_s=50")
    assert topology.bandwidth_gb_s is not None
    assert topology.bandwidth_gb_s[0, 7] == 18 * 50
    plain = written(tmp_path, xml(1, 2, ""), "plain.xml")
    over_pcie = load_topology(f"{plain},pcie_gb_s=40").bandwidth_gb_s
    assert over_pcie is not None
    assert over_pcie[0, 1] == 40
    for other in (plain, written(tmp_path, smi(full(2, "PIX")))):
        with pytest.raises(InputError, match="No GPU has an NVLink"):
            load_topology(f"{other},nvlink_gb_s=50")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('<!DOCTYPE system [<!ENTITY a "aaaaaaaaaa">]><system version="1">&a;</system>', "xml_doctype"),
        ('<system version="1"><!DOCTYPE a></system>', "xml_doctype"),
        ('<system version="1"><cpu>', "not_xml"),
        ('<system version="1"></system>', "nccl_ranks"),
        ('<system version="1"><gpu dev="0"/><gpu dev="0"/></system>', "nccl_ranks"),
        ('<system version="1"><gpu dev="0" rank="0"/><gpu dev="0" rank="1"/></system>', "nccl_dev"),
        ('<system version="1"><gpu dev="0"><nvlink target="a" count="0"/></gpu></system>', "nccl_links"),
        ('<system version="1"><gpu dev="x"/></system>', "nccl_number"),
        ('<system version="1"><gpu dev="0"><nvlink target="a"/></gpu></system>', "nccl_number"),
        ('<system version="1">' + "<pci>" * 100 + "</pci>" * 100 + "</system>", "not_xml"),
        ('<system version="1">&undefined;</system>', "not_xml"),
    ],
)
def test_nccl_damage(tmp_path: Path, text: str, code: str) -> None:
    """Entities never expand; what is cut off, nested or nameless is refused."""
    if text.startswith("<!"):
        text = "<!-- -->" + text.replace("<!DOCTYPE", "<system/><!DOCTYPE", 1)
    with pytest.raises(InputError, match=code):
        load_topology(written(tmp_path, text, "topo.xml"))


def test_large_dump_is_read_quickly(tmp_path: Path) -> None:
    """A domain of 576 GPUs takes no time to speak of."""
    path = written(tmp_path, xml(144, 4, FABRIC, sm=103), "topo.xml")
    before = time.perf_counter()
    assert load_topology(path).gpus_per_node == (576,)
    assert time.perf_counter() - before < 20


def test_rank_costs(tmp_path: Path) -> None:
    """SGLang's matrix of costs, with its key or bare, in a file of any name."""
    matrix = [[0.0, 1.0], [1.0, 0.0]]
    for content in ({"rank_cost_matrix": matrix}, matrix):
        path = written(tmp_path, json.dumps(content), "costs")
        assert load_topology(path).hop_cost.tolist() == matrix
    with pytest.raises(InputError, match="matrix_diagonal"):
        load_topology(written(tmp_path, "[[1, 1], [1, 0]]", "costs"))
    with pytest.raises(InputError, match="topology_options"):
        load_topology(f"{path},hosts=2")


def test_ibstat(tmp_path: Path) -> None:
    """The active ports of the highest rate give the network's speed per GPU."""
    written(tmp_path, IBSTAT, "ibstat.txt")
    path = written(tmp_path, smi(full(8, "NV12")))
    topology = load_topology(f"{path},hosts=2,ibstat={tmp_path / 'ibstat.txt'}")
    assert topology.bandwidth_gb_s is not None
    assert topology.bandwidth_gb_s[0, 8] == 2 * 400 / 8 / 8
    written(tmp_path, "nothing", "ibstat.txt")
    with pytest.raises(InputError, match="ibstat"):
        load_topology(f"{path},ibstat={tmp_path / 'ibstat.txt'}")


@pytest.mark.parametrize(
    "options",
    ["hosts=0", "hosts=x", "hosts=1.5", "hosts=9999", "speed=3", "hosts=2,hosts=2", "domain=planet", "network_gb_s=nan",
     "network_gb_s=1e9", "hosts", "hosts=2,network_gb_s=5,ibstat=/nowhere"],
)  # fmt: skip
def test_options_are_checked(tmp_path: Path, options: str) -> None:
    """An option that is unknown, repeated or out of range is refused."""
    path = written(tmp_path, smi(full(2, "NV12")))
    with pytest.raises(InputError):
        load_topology(f"{path},{options}")


def test_other_content_is_refused(tmp_path: Path) -> None:
    """Neither a description nor a shorthand."""
    with pytest.raises(InputError, match="unknown_format"):
        load_topology(written(tmp_path, "hello"))
    with pytest.raises(InputError):
        load_topology(tmp_path / "missing.txt")
    with pytest.raises(InputError):
        load_topology(f"{tmp_path / 'missing.txt'},hosts=2")
