"""Attacks on the service as load, on the loopback, and how everybody else fares beside each of them.

Every attack meets a fresh server. While it lasts, `/healthz` is asked every 50 ms, and an honest tenant uploads a small
trace and asks for a small plan, again and again. Afterwards: has the memory come back, how long does SIGTERM take, how
many answers were faults (500)? Prints figures and conditions; nothing fails because a machine is slow.

An attack is an entry of `ATTACKS`: a function that one attacker repeats until the time is over, how many do so at once,
and the settings of the server. `--root` measures another checkout.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

import hostile_attacks as attacks
import hostile_work as work
import httpx2
from _harness import Neighbours, table
from hostile_others import Beside, beside, plan, small_trace
from hostile_target import HangingProvider, Target

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A kind of load.

    Attributes
    ----------
    text : str
        What the attackers do.
    once : callable
        One attempt of one attacker: takes the target and a client, and returns what is counted, a status say.
    attackers : int
        How many repeat it at the same time.
    settings : mapping
        Of the server, besides those that all attacks have.
    """

    text: str
    once: Callable[[Target, httpx2.Client], object]
    attackers: int = 16
    settings: Mapping[str, Any] = field(default_factory=dict)


ATTACKS: dict[str, Attack] = {
    "nobody": Attack(text="no attack: what the machine gives", once=attacks.rest, attackers=1),
    "hanging provider": Attack(
        text="tokens of unknown key ids, while the identity provider hangs", once=attacks.unknown_key_id, attackers=45
    ),
    "wrong keys": Attack(text="keys that are none", once=attacks.wrong_key, attackers=32),
    "refusals": Attack(text="changes without a key, to long paths", once=attacks.refused_change, attackers=32),
    "odd tokens": Attack(text="tokens signed by the provider with claims of odd types", once=attacks.odd_token),
    "odd paths": Attack(text="paths with NUL, surrogates and slashes", once=attacks.odd_path),
    "overlapping groups": Attack(text="0.9 MB of groups that overlap", once=attacks.overlapping_groups, attackers=4),
    "unknown fields": Attack(text="14.5 MB of fields that there are not", once=attacks.unknown_fields, attackers=4),
    "long lists": Attack(text="valid requests of 100,000 exclusions", once=attacks.long_lists, attackers=45),
    "deep nesting": Attack(text="JSON nested 100,000 deep, and wide", once=attacks.deep_nesting),
    "many numbers": Attack(text="8 MB of numbers in a plan file", once=attacks.many_numbers, attackers=4),
    "idle connections": Attack(text="1,000 connections that say nothing", once=attacks.idle_connections, attackers=1),
    "slow heads": Attack(text="heads that come a byte a second", once=attacks.slow_heads, attackers=1),
    "slow bodies": Attack(text="bodies that come a byte a second, with and without a key", once=attacks.slow_bodies),
    "watchers": Attack(text="50 watchers of one plan", once=attacks.watchers, attackers=1),
    "long line": Attack(text="uploads of 100 MB in one line", once=work.one_long_line, attackers=2),
    "small and slow": Attack(text="uploads of 160 kB that take long to read", once=work.small_and_slow, attackers=4),
    "many plans": Attack(text="16 plans of 4 s at a time", once=work.many_plans),
    "long plans": Attack(text="plans of an hour", once=work.long_plans, attackers=4),
    "many looks": Attack(text="replays, again and again", once=work.many_looks),
}


def attack_once(attack: Attack, target: Target, seconds: float) -> tuple[Beside, Counter[str]]:
    """Let the attackers go for so long; return what the others met, and what the attackers were told."""
    told = Counter[str]()

    def attacker(_: int) -> None:
        # Attackers have machines of their own. Here they leave the server what it asks for of this one's cores.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        with target.client(target.attacker, timeout=30) as http:
            while time.monotonic() < deadline:
                try:
                    told[str(attack.once(target, http))] += 1
                except (httpx2.HTTPError, OSError) as error:
                    told[type(error).__name__] += 1

    with beside(target.url, target.honest) as met:
        deadline = time.monotonic() + seconds
        with ThreadPoolExecutor(attack.attackers) as pool:
            list(pool.map(attacker, range(attack.attackers)))
    target.close_sockets()
    return met, told


def measure(name: str, seconds: float, root: Path, rest_s: float) -> tuple[str, ...]:
    """Attack a fresh server; return a row of the table."""
    attack = ATTACKS[name]
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder, HangingProvider() as provider:
        target = Target.start(Path(folder), root, provider, attack.settings)
        try:
            for _ in range(3):
                with suppress(httpx2.HTTPError), target.client(target.honest, timeout=60) as http:
                    plan(http, http.post("/v1/traces", content=small_trace(0)).json()["id"])
            with target.client(provider.token({"scope": "moe-placement:read"}), timeout=60) as http:
                http.get("/v1/plans")  # the provider's keys are known before it hangs
            provider.hang()
            before, kept = target.memory_mb(), target.audit_rows()
            met, told = attack_once(attack, target, seconds)
            time.sleep(rest_s)
            after, rows = target.memory_mb(), target.audit_rows() - kept
            stop_s = target.stop()
            faults = target.faults()
        finally:
            target.kill()
    row = (
        name,
        f"{1e3 * (quantiles(met.health, n=100, method='inclusive')[98] if len(met.health) > 1 else 0):.0f} ms",
        f"{1e3 * max(met.health, default=0):.0f} ms",
        f"{max(met.uploads, default=0):.2f} s",
        f"{max(met.plans, default=0):.2f} s",
        f"{before:.0f} -> {after:.0f} MB",
        f"{stop_s:.1f} s",
        str(faults),
        str(rows),
        str(sum(met.failures.values())),
    )
    failures = ", ".join(f"{count} {what}" for what, count in met.failures.items())
    sys.stderr.write(f"{' | '.join(row)}; told {dict(told.most_common(6))}; others failed: {failures or 'never'}\n")
    return row


def main() -> None:
    """Attack and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attack", action="append", choices=list(ATTACKS), help="only these; all by default")
    parser.add_argument("--seconds", type=float, default=15, help="that each attack lasts")
    parser.add_argument("--rest", type=float, default=5, help="seconds before the memory is looked at again")
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout whose service is attacked")
    given = parser.parse_args()
    others = Neighbours()
    rows = [measure(name, given.seconds, given.root.resolve(), given.rest) for name in given.attack or ATTACKS]
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    sys.stdout.write(f"{os.cpu_count()} cores, load average {load}; {others}; {given.seconds:g} s each\n")
    sys.stdout.write("Waits are the worst; a plan's is beyond its limit of 1 s. Memory is the server process's.\n\n")
    header = ("attack", "healthz p99", "worst", "upload", "plan", "memory", "SIGTERM", "500s", "audit", "failed")
    sys.stdout.write(table(header, rows) + "\n")


if __name__ == "__main__":
    main()
