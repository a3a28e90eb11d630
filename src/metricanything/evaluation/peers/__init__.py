"""Other models beside ours, behind one small interface, by name: `load_peer("peer:depth-pro")`.

Nothing is imported before a peer is loaded. Which adapters were run with the real library is said in their modules:
`hub` with random weights, `packages` against documentation alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from metricanything.core.errors import InputError
from metricanything.evaluation.peers.hub import TransformersPeer
from metricanything.evaluation.peers.interface import Adapter, Output, Peer
from metricanything.evaluation.peers.moge_baseline import MoGeBaselinePeer, load_moge_baseline
from metricanything.evaluation.peers.packages import (
    Metric3DPeer,
    MoGePeer,
    OmniDCPeer,
    PriorDepthAnythingPeer,
    UniDepthPeer,
)

__all__ = ["PEERS", "Adapter", "MoGeBaselinePeer", "Output", "Peer", "PeerSpec", "load_moge_baseline", "load_peer"]

PREFIX = "peer:"


@dataclass(frozen=True)
class PeerSpec:
    """A known peer: its adapter, where its weights are (a Hub id, or an entry of torch.hub), and its terms."""

    adapter: Callable[[str, str, str, str | None], Adapter]
    source: str
    licence: str


_NC = "CC BY-NC 4.0 (no commercial use)"
_DEPTH_ANYTHING = "depth-anything/Depth-Anything-V2-Metric"

#: The known peers by name. Licences as their authors state them; the terms of the weights may change, see their cards.
PEERS: dict[str, PeerSpec] = {
    "depth-pro": PeerSpec(TransformersPeer, "apple/DepthPro-hf", "Apple's own licences for code and weights"),
    **{
        f"depth-anything-v2-metric-{where}-{size}": PeerSpec(
            TransformersPeer,
            f"{_DEPTH_ANYTHING}-{where.title()}-{size.title()}-hf",
            "Apache-2.0" if size == "small" else _NC,
        )
        for where in ("indoor", "outdoor")
        for size in ("small", "base", "large")
    },
    "prompt-depth-anything-small": PeerSpec(
        TransformersPeer, "depth-anything/prompt-depth-anything-vits-hf", "Apache-2.0 (code); weights: see their card"
    ),
    "prompt-depth-anything-large": PeerSpec(
        TransformersPeer, "depth-anything/prompt-depth-anything-vitl-hf", "Apache-2.0 (code); weights: see their card"
    ),
    "zoedepth": PeerSpec(TransformersPeer, "Intel/zoedepth-nyu-kitti", "MIT"),
    "moge-2": PeerSpec(MoGePeer, "Ruicheng/moge-2-vitl-normal", "MIT"),
    "unidepth-v2-small": PeerSpec(UniDepthPeer, "lpiccinelli/unidepth-v2-vits14", _NC),
    "unidepth-v2-large": PeerSpec(UniDepthPeer, "lpiccinelli/unidepth-v2-vitl14", _NC),
    "metric3d-v2-small": PeerSpec(Metric3DPeer, "metric3d_vit_small", "BSD-2-Clause"),
    "metric3d-v2-large": PeerSpec(Metric3DPeer, "metric3d_vit_large", "BSD-2-Clause"),
    "metric3d-v2-giant": PeerSpec(Metric3DPeer, "metric3d_vit_giant2", "BSD-2-Clause"),
    "omni-dc": PeerSpec(OmniDCPeer, "zuoym15/OMNI-DC", "BSD-3-Clause"),
    "prior-depth-anything": PeerSpec(PriorDepthAnythingPeer, "Rain729/Prior-Depth-Anything", "Apache-2.0"),
}


def load_peer(name: str, device: str | None = None) -> Peer:
    """A peer by registered name, or a depth model of transformers by its Hub id; a leading "peer:" is optional.

    device: the best at hand when None. Raises InputError for an unknown name, and when what the peer needs is missing:
    the line says how to get it.
    """
    short = name.removeprefix(PREFIX)
    if short in PEERS:
        spec = PEERS[short]
        return spec.adapter(PREFIX + short, spec.licence, spec.source, device)
    if short.count("/") == 1 and all(short.split("/")):
        return TransformersPeer(PREFIX + short, "see its card on the Hub", short, device)
    raise InputError(
        f"{name}: no such peer; use one of {', '.join(PEERS)}, or the Hub id of a transformers depth model"
    )
