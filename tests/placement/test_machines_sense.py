"""What is assumed of a machine never contradicts what its description says, and is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import traces
from placement import Link, Topology, load_topology
from placement.topology.file import topology_from_dict, topology_to_dict
from solvers import Limits, Study
from tests.builders.machines import SWITCHES, full, rocm, smi, written, xml
from traces import InputError

ROOT = Path(__file__).parents[2]
CASES = Path(os.environ.get("MOE_PLACEMENT_CASES", ROOT.parent / "shared" / "cases")) / "topology"
NV = "\n  NV#  = Connection traversing a bonded set of # NVLinks"
SOCKETS = [["NODE" if (a < 2) == (b < 2) else "SYS" for b in range(4)] for a in range(4)]
OVER_PCIE = [["X" if a == b else word for b, word in enumerate(row)] for a, row in enumerate(SOCKETS)]
BRIDGED = [
    ["X", "SYS", "NV4", "SYS"],
    ["SYS", "X", "SYS", "NV4"],
    ["NV4", "SYS", "X", "SYS"],
    ["SYS", "NV4", "SYS", "X"],
]


def speeds(topology: Topology) -> npt.NDArray[np.float64]:
    """Return GB/s between GPUs."""
    assert topology.bandwidth_gb_s is not None
    return topology.bandwidth_gb_s


def told(topology: Topology, *words: str) -> bool:
    """Whether a note has all the words."""
    return any(all(word in note for word in words) for note in topology.notes)


def test_network_is_slower_than_the_pcie_below_it(tmp_path: Path) -> None:
    """Over PCIe alone, the network is assumed below the slowest hop inside, and it is told."""
    topology = load_topology(f"{written(tmp_path, smi(OVER_PCIE))},hosts=2")
    inside, between = speeds(topology)[0, 1:4], speeds(topology)[0, 4:]
    assert inside.tolist() == [17.5, 12.5, 12.5]
    assert between.tolist() == [6.25] * 4, "four GPUs share the one port that is listed"
    assert told(topology, "network", "assumed", "share 1 port")
    assert told(topology, "PCIe is assumed", "25 GB/s")
    assert topology.warnings == ()
    four = load_topology(f"{written(tmp_path, smi(OVER_PCIE, nics=4))},hosts=2")
    assert speeds(four)[0, 4] == 10
    assert load_topology(f"{tmp_path / 'topo.txt'}").notes == four.notes[:-1], "one host has no network"


def test_pcie_of_the_caller_limits_the_network(tmp_path: Path) -> None:
    """Behind NVLink, the network passes the PCIe port of each GPU: what is stated of it is not exceeded."""
    path = written(tmp_path, smi(full(8, "NV12"), nics=8))
    assert speeds(load_topology(f"{path},hosts=2"))[0, 8] == 25
    assert speeds(load_topology(f"{path},hosts=2,pcie_gb_s=12"))[0, 8] == 12
    h100 = written(tmp_path, smi(full(8, "NV18"), nics=8))
    assert speeds(load_topology(f"{h100},hosts=2,nvlink_gb_s=25"))[0, 8] == 50


def test_stated_network_is_kept_and_warned_about(tmp_path: Path) -> None:
    """A network that is stated stays as stated; hops between nodes that cost less than inside are a warning."""
    topology = load_topology(f"{written(tmp_path, smi(OVER_PCIE))},hosts=2,network_gb_s=50")
    assert speeds(topology)[0, 4] == 50
    assert told(topology, "taken as stated")
    (warning,) = topology.warnings
    assert "between nodes costs less than one inside" in warning


def test_xml_network_is_limited_by_pcie(tmp_path: Path) -> None:
    """Ports of 50 GB/s per GPU behind PCIe 3.0 carry what PCIe carries."""
    slow = xml(2, 4, SWITCHES, nets=4).replace("32.0 GT/s", "8.0 GT/s")
    topology = load_topology(written(tmp_path, slow, "topo.xml"))
    assert speeds(topology)[0, 4] == pytest.approx(8 * 16 * 128 / 130 / 8)
    assert told(topology, "50 GB/s per GPU, but PCIe carries only 15.75")
    nameless = xml(2, 4, SWITCHES, nets=0).replace("32.0 GT/s", "8.0 GT/s")
    assert speeds(load_topology(written(tmp_path, nameless, "topo.xml")))[0, 4] == pytest.approx(15.75, abs=0.01)


def test_memory_link_of_the_processor_carries_the_network(tmp_path: Path) -> None:
    """A GPU that is linked to its processor beside PCIe, as in GB200, is not held back by PCIe's width."""
    links = SWITCHES + '<c2c bw="44712" count="5"/>'
    text = xml(2, 4, links, sm=100, nets=4).replace('link_width="16"', 'link_width="1"')
    assert speeds(load_topology(written(tmp_path, text, "topo.xml")))[0, 4] == 50


@pytest.mark.parametrize(
    ("intra", "inter", "expected"),
    [(12.5, None, (12.5, 10)), (450, None, (450, 50)), (None, 900, (1125, 900)), (None, 25, (450, 25))],
)
def test_link_that_is_given_is_not_contradicted(
    intra: float | None, inter: float | None, expected: tuple[float, float]
) -> None:
    """Of links inside and between nodes, the default of one keeps below or above the other; the same in a file."""
    links = [None if speed is None else Link(bandwidth_gb_s=speed, latency_us=0) for speed in (intra, inter)]
    topology = Topology.of((2, 2), intra=links[0], inter=links[1])
    assert (speeds(topology)[0, 1], speeds(topology)[0, 2]) == expected
    assert told(topology, "not given", "assumed")
    said = {"intra_node": intra, "inter_node": inter}
    content = {name: {"bandwidth_gb_s": speed} for name, speed in said.items() if speed is not None}
    again = topology_from_dict({"gpus_per_node": [2, 2], **content})
    assert np.array_equal(again.hop_cost, topology.hop_cost)
    assert again.notes == topology.notes


def test_notes_are_kept_and_make_no_difference(tmp_path: Path) -> None:
    """They survive a file; topologies that differ in nothing else are equal."""
    topology = load_topology(f"{written(tmp_path, smi(OVER_PCIE))},hosts=2")
    again = topology_from_dict(json.loads(json.dumps(topology_to_dict(topology))))
    assert again.notes == topology.notes
    assert again == topology
    bare = topology_from_dict({key: value for key, value in topology_to_dict(topology).items() if key != "notes"})
    assert bare == topology
    assert hash(bare) == hash(topology)
    assert bare.notes == ()
    for notes in ([1], ["x" * 3000], ["x"] * 101):
        with pytest.raises(InputError, match="topology_notes"):
            topology_from_dict({"gpus_per_node": 2, "notes": notes})


@pytest.mark.parametrize(
    ("cost", "hosts", "warned"),
    [
        ([[0, 1, 2, 2], [1, 0, 2, 2], [2, 2, 0, 1], [2, 2, 1, 0]], [0, 0, 1, 1], False),
        ([[0, 3, 2, 2], [1, 0, 2, 2], [2, 2, 0, 1], [2, 2, 1, 0]], [0, 0, 1, 1], True),
        ([[0, 1, 2, 2], [1, 0, 2, 2], [2, 2, 0, 1], [2, 2, 1, 0]], [0, 1, 0, 1], False),
    ],
)
def test_order_of_costs(cost: list[list[float]], hosts: list[int], warned: bool) -> None:
    """Whatever gives the costs, a hop between nodes that is cheaper than one inside is a warning."""
    content = {"gpus_per_node": [2, 2], "rank_cost_matrix": cost, "host_of_gpu": hosts}
    topology = topology_from_dict(content)
    assert bool(topology.warnings) is warned
    assert ("costs less" in repr(topology)) is warned


def test_hop_to_another_host_that_is_cheaper_than_inside(tmp_path: Path) -> None:
    """Bridged pairs are nodes of their own: a network that beats PCIe inside their host is told as well."""
    pairs = [[BRIDGED[a][b] for b in (0, 2, 1, 3)] for a in (0, 2, 1, 3)]
    path = written(tmp_path, smi(pairs))
    assert load_topology(f"{path},hosts=2").warnings == ()
    assert "between hosts" in load_topology(f"{path},hosts=2,network_gb_s=20").warnings[0]


def test_pci_matrix_is_told_apart(tmp_path: Path) -> None:
    """``topo -mp`` has no NV# in its legend; without one, or with it, there is a note that no NVLink was seen."""
    legend = "  PIX  = Connection traversing at most a single PCIe bridge"
    hidden = written(tmp_path, smi(OVER_PCIE) + legend)
    assert told(load_topology(hidden), "topo -mp", "hides NVLink")
    with pytest.raises(InputError, match="topo -mp"):
        load_topology(f"{hidden},nvlink_gb_s=25")
    shown = load_topology(written(tmp_path, smi(OVER_PCIE) + legend + NV))
    assert told(shown, "No NVLink was seen")
    assert not told(shown, "topo -mp")


def test_reach_is_no_link(tmp_path: Path) -> None:
    """``topo -p2p`` is named for what it is; beside ``topo -m`` in one text, it is passed over."""
    reach = smi(full(4, "OK"), nics=0).replace("\tNODE", "")
    with pytest.raises(InputError, match=r"topo -p2p.*reach each other's memory"):
        load_topology(written(tmp_path, reach))
    both = load_topology(written(tmp_path, smi(full(4, "NV12")) + "\n$ nvidia-smi topo -p2p r\n" + reach))
    assert speeds(both)[0, 1] == 300
    with_pci = load_topology(written(tmp_path, smi(OVER_PCIE) + "\n" + smi(full(4, "NV12"))))
    assert speeds(with_pci)[0, 1] == 300
    with pytest.raises(InputError, match="tables of links that differ"):
        load_topology(written(tmp_path, smi(full(4, "NV12")) + "\n" + smi(full(4, "NV8"))))


@pytest.mark.parametrize("lost", ["", "^[", "\\x1b", "\u241b"])
@pytest.mark.parametrize("quote", ["", "> ", "    "])
def test_pasted_text(tmp_path: Path, lost: str, quote: str) -> None:
    """A header whose ESC byte is lost or spelled out, in a mail or a chat, with another line break."""
    text = smi(full(8, "NV12"), nics=8).replace("\x1b", lost)
    pasted = "\r\n".join(f"{quote}{line}" for line in f"$ nvidia-smi topo -m\n{text}".split("\n"))
    (tmp_path / "topo.txt").write_bytes(pasted.encode())
    assert load_topology(tmp_path / "topo.txt") == load_topology(written(tmp_path, smi(full(8, "NV12"), nics=8)))
    bare = smi(full(8, "NV12"), nics=8).replace("\x1b", lost)
    assert load_topology(written(tmp_path, bare)).gpus_per_node == (8,)


def test_bridges_between_gpus_that_are_no_neighbours(tmp_path: Path) -> None:
    """The host is one node with the cost of each pair, and the order that makes pairs neighbours is told and read."""
    path = written(tmp_path, smi(BRIDGED))
    topology = load_topology(f"{path},hosts=2")
    assert topology.gpus_per_node == (4, 4)
    assert speeds(topology)[0, 1:4].tolist() == [12.5, 100, 12.5]
    assert told(topology, "CUDA_VISIBLE_DEVICES=0,2,1,3", "gpu_order=0+2+1+3")
    ordered = load_topology(f"{path},gpu_order=0+2+1+3")
    assert ordered.gpus_per_node == (2, 2)
    assert speeds(ordered)[0, 1:4].tolist() == [100, 12.5, 12.5]
    assert load_topology(f"{path},gpu_order=2+0").gpus_per_node == (2,)
    for order in ("0+0", "0+4", "0+x", "-1"):
        with pytest.raises(InputError, match="gpu_order"):
            load_topology(f"{path},gpu_order={order}")


def test_ranks_of_two_hosts_that_take_turns(tmp_path: Path) -> None:
    """Nodes are runs of ranks: the error has the order that makes them so, and reading with it works."""
    text = xml(2, 2, SWITCHES)
    for old, new in ((1, 2), (2, 1)):
        text = text.replace(f'rank="{old}" gdr', f'rank="{new}" GDR')
    path = written(tmp_path, text.replace("GDR", "gdr"), "topo.xml")
    with pytest.raises(InputError, match=r"gpu_order=0\+2\+1\+3"):
        load_topology(path)
    assert load_topology(f"{path},gpu_order=0+2+1+3").gpus_per_node == (2, 2)


def test_plans_stay_inside_hosts_without_nvlink(tmp_path: Path) -> None:
    """On the sample trace, fewer tokens leave their host than without planning; study and plan carry the notes."""
    sockets = [["NODE" if a // 4 == b // 4 else "SYS" for b in range(8)] for a in range(8)]
    matrix = [["X" if a == b else word for b, word in enumerate(row)] for a, row in enumerate(sockets)]
    topology = load_topology(f"{written(tmp_path, smi(matrix, nics=0))},hosts=2")
    trace = traces.load(ROOT / "examples" / "tiny_moe" / "tiny_moe.npz")
    study = Study.of(trace, topology, slots_per_gpu=2, hold_out=0.0)
    assert set(topology.notes) <= set(study.notes)
    found = study.solve(limits=Limits(work=60_000))
    figures = study.compare(plan=found.plan)["plan"].parts["fit"].evaluation
    assert figures.cross_node_fraction < 0.33, "0.50 without planning"
    assert found.plan.provenance["topology"]["notes"] == list(topology.notes)


OPTIONS = {"ansi_lost.txt": ",nvlink_gb_s=25"}


@pytest.mark.skipif(not CASES.is_dir(), reason="The folder of cases that is not part of the repository is absent.")
@pytest.mark.parametrize("name", sorted(path.name for path in CASES.glob("*")) if CASES.is_dir() else ["none"])
def test_cases(name: str) -> None:
    """Each case makes a topology whose order of costs makes sense, or is refused with the rank."""
    if name == "gb300_bad.xml":
        with pytest.raises(InputError, match=r"Ranks \[5\] have none"):
            load_topology(CASES / name)
        return
    topology = load_topology(f"{CASES / name},hosts=2{OPTIONS.get(name, '')}")
    assert topology.num_nodes == 2
    assert topology.warnings == ()
    assert told(topology, "network", "assumed")


@pytest.mark.parametrize("lost", [(0,), (7,), (6, 7), (2, 5)])
@pytest.mark.parametrize("vendor", ["nvidia", "amd"])
def test_gpus_that_lost_their_links(tmp_path: Path, vendor: str, lost: tuple[int, ...]) -> None:
    """Wherever they stand, they are named, and the others can be planned for; bridged pairs are no such host."""
    word, pcie = (" NV12", "SYS") if vendor == "nvidia" else ("XGMI", "PCIE")
    matrix = full(8, word.strip())
    for gpu in lost:
        for other in range(8):
            if other != gpu:
                matrix[gpu][other] = matrix[other][gpu] = pcie
    if vendor == "amd":
        matrix = [["0" if gpu == other else matrix[gpu][other] for other in range(8)] for gpu in range(8)]
    path = written(tmp_path, smi(matrix) if vendor == "nvidia" else rocm(matrix))
    command = "nvidia-smi nvlink -s" if vendor == "nvidia" else "rocm-smi"
    with pytest.raises(InputError, match=rf"Ranks \[{', '.join(map(str, lost))}\] have none.*{command}"):
        load_topology(path)
    order = "+".join(str(gpu) for gpu in range(8) if gpu not in lost)
    assert load_topology(f"{path},gpu_order={order}").gpus_per_node == (8 - len(lost),)


def test_the_same_table_twice(tmp_path: Path) -> None:
    """The output of two hosts in one text is one host, and a note says so."""
    text = smi(full(8, "NV12"))
    (note,) = [note for note in load_topology(written(tmp_path, text + text)).notes if "2 tables" in note]
    assert "hosts=2" in note
