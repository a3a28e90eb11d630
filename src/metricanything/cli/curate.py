"""`metricanything curate`: decide anew which frames of shards are kept, by edited rules."""

from __future__ import annotations

from pathlib import Path

import tyro


def curate(
    shards: tyro.conf.Positional[tuple[Path, ...]] = (),
    rules: Path | None = None,
    dry_run: bool = False,
) -> int:
    """Apply rules to the measurements of finished shards; no image is read, and nothing is deleted.

    Without shards, print the default rules, to be saved and edited.

    Args:
        shards: Shard folders, each judged by itself.
        rules: TOML file of rules (default: those that ingest uses).
        dry_run: Say what would be decided and change nothing.
    """
    from metricanything.cli.console import console
    from metricanything.curate.deciding import decide_again
    from metricanything.curate.rules import default_rules, read_rules

    if not shards:
        print(default_rules(), end="")
        return 0
    chosen = read_rules(rules)
    for folder in shards:
        decision = decide_again(folder, chosen, write=not dry_run)
        lines = [f"{folder}: {decision.kept} of {decision.frames} frames kept, {decision.kept_before} before"]
        lines += [f"  {reason}: {count}" for reason, count in decision.reasons.items()]
        console.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)
    return 0
