"""What machines say of themselves, as tests make it: texts of ``nvidia-smi`` and AMD's tools, XML of NCCL and RCCL."""

from __future__ import annotations

from pathlib import Path

BOLD, PLAIN = "\x1b[4m", "\x1b[0m"
IBSTAT = """CA 'mlx5_0'
	CA type: MT4129
	Number of ports: 1
	Port 1:
		State: Active
		Physical state: LinkUp
		Rate: 400
		Link layer: InfiniBand
CA 'mlx5_1'
	Port 1:
		State: Active
		Rate: 400
CA 'mlx5_2'
	Port 1:
		State: Down
		Rate: 400
CA 'mlx5_bond_0'
	Port 1:
		State: Active
		Rate: 25
"""


def smi(matrix: list[list[str]], nics: int = 1, escapes: bool = True) -> str:
    """Return the matrix as nvidia-smi prints it: underlined header, tabs, columns for network ports and affinities."""
    gpus = len(matrix)
    names = [*(f"GPU{gpu}" for gpu in range(gpus)), *(f"NIC{nic}" for nic in range(nics))]
    header = "\t".join(["", *names, "CPU Affinity", "NUMA Affinity", "GPU NUMA ID"])
    lines = [f"{BOLD}{header}{PLAIN}" if escapes else header]
    lines += [
        f"GPU{gpu}\t" + "\t".join([*row, *["NODE"] * nics, "0-55", "0", "\tN/A"]) for gpu, row in enumerate(matrix)
    ]
    lines += [f"NIC{nic}\t" + "\t".join(["NODE"] * gpus + [" X "] * nics) for nic in range(nics)]
    return "\n".join([*lines, "", "Legend:", "", "  X    = Self", "  SYS  = Connection traversing PCIe", ""])


def full(gpus: int, word: str) -> list[list[str]]:
    """Return a matrix with one word between all GPUs."""
    return [[" X " if gpu == other else word for other in range(gpus)] for gpu in range(gpus)]


def written(folder: Path, text: str, name: str = "topo.txt") -> Path:
    """Write a description and return its path."""
    (folder / name).write_text(text)
    return folder / name


def xml(hosts: int, gpus: int, links: str, *, sm: int = 90, nets: int = 1, ranks: bool = True) -> str:
    """Return NCCL's XML for hosts of GPUs, with `links` inside each gpu element."""
    cpus = []
    for host in range(hosts):
        parts = []
        for gpu in range(gpus):
            rank = f' rank="{host * gpus + gpu}"' if ranks else ""
            parts.append(
                f'<pci busid="0000:{gpu:02x}:00.0" class="0x030200" link_speed="32.0 GT/s PCIe" link_width="16">'
                f'<gpu dev="{gpu}" sm="{sm}"{rank} gdr="1">{links}</gpu></pci>'
            )
        ports = "".join(f'<net name="mlx5_{n}" dev="{n}" speed="400000" port="1" guid="0x{n}"/>' for n in range(nets))
        parts.append(f'<pci busid="0000:f0:00.0"><nic>{ports}</nic></pci>')
        cpus.append(f'<cpu host_hash="0x{host + 1}" numaid="0" arch="x86_64">{"".join(parts)}</cpu>')
    return f'<system version="1">{"".join(cpus)}</system>'


SWITCHES = '<nvlink target="0000:a0:00.0" count="9" tclass="0x068000"/><nvlink target="0000:a1:00.0" count="9"/>'
FABRIC = '<nvlink target="fffffff:ff:ff.0" count="18" tclass="0x068000"/>'


XGMI_OF_TWO = '<xgmi target="0000:{other:02x}:00.0" count="1" tclass="0x120000"/>'


def rocm(kinds: list[list[str]], *, numa: bool = True, hops: bool = True) -> str:
    """Return what ``rocm-smi --showtopo`` prints for link types between GPUs."""
    gpus = len(kinds)
    weights = {"XGMI": "15", "PCIE": "72", "0": "0"}
    steps = {"XGMI": "1", "PCIE": "3", "0": "0"}

    def table(title: str, words: list[list[str]]) -> list[str]:
        names = [f"GPU{gpu}" for gpu in range(gpus)]
        head = "       " + "".join(f"{name:<13}" for name in names)
        rows = [f"{name:<7}" + "".join(f"{word:<13}" for word in row) for name, row in zip(names, words, strict=True)]
        return [f" {title} ".center(80, "="), head, *rows, ""]

    lines = [" ROCm System Management Interface ".center(80, "=")]
    lines += table("Weight between two GPUs", [[weights[word] for word in row] for row in kinds])
    if hops:
        lines += table("Hops between two GPUs", [[steps[word] for word in row] for row in kinds])
    lines += table("Link Type between two GPUs", kinds)
    if numa:
        lines += [" Numa Nodes ".center(80, "=")]
        for gpu in range(gpus):
            lines += [f"GPU[{gpu}]\t\t: (Topology) Numa Node: {2 * gpu // gpus}"]
            lines += [f"GPU[{gpu}]\t\t: (Topology) Numa Affinity: {2 * gpu // gpus}"]
    return "\n".join([*lines, " End of ROCm SMI Log ".center(80, "="), ""])


def amd(kinds: list[list[str]], bandwidth: str = "N/A") -> str:
    """Return what ``amd-smi topology`` prints."""
    buses = [f"0000:{16 * gpu + 12:02x}:00.0" for gpu in range(len(kinds))]

    def table(title: str, words: list[list[str]]) -> list[str]:
        rows = [f"{bus} " + "".join(f"{word:<13}" for word in row) for bus, row in zip(buses, words, strict=True)]
        return [f"{title} TABLE:", " " * 13 + " ".join(buses), *rows, ""]

    def filled(own: str, other: dict[str, str]) -> list[list[str]]:
        return [[own if a == b else other[kind] for b, kind in enumerate(row)] for a, row in enumerate(kinds)]

    lines = table("ACCESS", filled("ENABLED", {"XGMI": "ENABLED", "PCIE": "DISABLED"}))
    lines += table("WEIGHT", filled("0", {"XGMI": "15", "PCIE": "40"}))
    lines += table("HOPS", filled("0", {"XGMI": "1", "PCIE": "2"}))
    lines += table("LINK TYPE", filled("SELF", {"XGMI": "XGMI", "PCIE": "PCIE"}))
    lines += table("NUMA BW", filled("N/A", {"XGMI": bandwidth, "PCIE": "N/A"}))
    lines += table("CACHE COHERANCY", filled("SELF", {"XGMI": "C", "PCIE": "NC"}))
    return "\n".join([*lines, "Legend:", "  SELF = Current GPU", ""])


def rccl(gpus: int, gcn: str = "gfx942") -> str:
    """Return RCCL's XML of a host whose GPUs are all linked to each other."""
    parts = []
    for gpu in range(gpus):
        links = "".join(XGMI_OF_TWO.format(other=other) for other in range(gpus) if other != gpu)
        parts.append(
            f'<cpu numaid="{gpu}"><pci busid="0000:{gpu:02x}:00.0" class="0x120000" link_speed="32.0 GT/s PCIe" '
            f'link_width="16"><gpu dev="{gpu}" sm="228" gcn="{gcn}" arch="38911" rank="{gpu}" gdr="1">{links}</gpu>'
            "</pci></cpu>"
        )
    return f'<system version="2">{"".join(parts)}</system>'
