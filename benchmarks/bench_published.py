"""Seconds per image and peak memory of the full-size published models, with random weights.

    python benchmarks/bench_published.py pointmap depthmap [--threads 2] [--device cpu]

Every configuration runs in a process of its own, one 640x480 image each, decode excluded: float32; float32 with the
weights left in their file (`low_memory`); bfloat16, from a file of that type. Prints a table. `peak` is the process's
highest resident memory, `before` that with the weights loaded; pages of mapped files count in both, `anonymous` is
without them. With --device cuda: float32, bfloat16 and bfloat16 compiled, CUDA memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

CONFIGURATIONS: dict[str, dict[str, object]] = {
    "float32": {},
    "low_memory": {"low_memory": True},
    "bfloat16": {"dtype": "bfloat16"},
    "bfloat16 compiled": {"dtype": "bfloat16", "compile": True},
}
CPU, CUDA = ("float32", "low_memory", "bfloat16"), ("float32", "bfloat16", "bfloat16 compiled")


def random_weights(name: str, path: Path) -> None:
    """A checkpoint of the published size and layout."""
    from metricanything.models.checkpoint import save_model
    from metricanything.models.registry import get_spec

    torch.manual_seed(0)
    with torch.device("meta"):
        network = get_spec(name).network_class()(get_spec(name).read_config({}))
    buffers = {key for key, _ in network.named_buffers()}
    state = {}
    for key, value in network.state_dict().items():
        if key.endswith("periods"):
            state[key] = (100 ** (torch.arange(16) / 16)).bfloat16().float()
        elif key in buffers or (value.dim() == 1 and key.endswith("weight")):
            state[key] = torch.ones(value.shape)
        elif key.endswith("bias"):
            state[key] = torch.zeros(value.shape)
        else:
            state[key] = torch.randn(value.shape) * 0.02
    if name == "depthmap":  # so that its last ReLU lets something through
        state["head.12.bias"] = torch.ones(1)
    network.load_state_dict(state, assign=True)
    save_model(path, network, name)
    save_model(path.with_suffix(".half.safetensors"), network.bfloat16(), name)


def resident() -> dict[str, float]:
    """Resident memory of this process and its peak, GiB; of which anonymous (not pages of a file)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    kib = {key: int(fields[key].split()[0]) for key in ("VmRSS", "VmHWM", "RssAnon")}
    return {key: round(value / 2**20, 2) for key, value in kib.items()}


def measure(path: Path, options: dict[str, object], threads: int, device: str, images: int) -> dict[str, object]:
    """One configuration, in this process."""
    import metricanything as ma

    torch.set_num_threads(threads)
    compiled = bool(options.pop("compile", False))
    model = ma.load(path, device=None if options.get("low_memory") else device, **options)  # type: ignore[arg-type]
    if compiled:
        model.engine.network.compile()
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    camera = ma.Camera.from_fov(60, 640, 480)
    before = resident()
    if device == "cuda":
        for _ in range(3):
            model.predict(image, camera=camera)
        torch.cuda.reset_peak_memory_stats()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(images):
        depth = model.predict(image, camera=camera).depth
    seconds = {"s": (time.perf_counter() - wall) / images, "cpu_s": (time.process_time() - cpu) / images}
    memory = resident()
    report = {
        **{key: round(value, 3) for key, value in seconds.items()},
        "before_gib": before["VmRSS"],
        "peak_gib": memory["VmHWM"],
        "anonymous_gib": memory["RssAnon"],
    }
    if device == "cuda":
        report["cuda_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    np.save(path.with_suffix(".depth.npy"), depth)
    return report


def main() -> None:
    """Run all configurations and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["pointmap", "depthmap"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--configurations", nargs="+", choices=CONFIGURATIONS)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--one", nargs=2, metavar=("FILE", "OPTIONS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(Path(args.one[0]), json.loads(args.one[1]), args.threads, args.device, args.images)))
        return
    print("| model | configuration | s | cpu s | before GiB | peak GiB | anonymous GiB | median change of depth |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            path, exact = Path(folder) / f"{name}.safetensors", None
            random_weights(name, path)
            for label in args.configurations or (CPU if args.device == "cpu" else CUDA):
                options = CONFIGURATIONS[label]
                command = [sys.executable, __file__, "--threads", str(args.threads), "--device", args.device]
                file = path.with_suffix(".half.safetensors") if "dtype" in options else path
                command += ["--images", str(args.images), "--one", str(file), json.dumps(options)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                row = json.loads(done.stdout.splitlines()[-1])
                depth = np.load(file.with_suffix(".depth.npy"))
                exact = depth if exact is None else exact
                change = float(np.median(np.abs(depth / exact - 1)))
                print(f"| {name} | {label} | " + " | ".join(map(str, row.values())) + f" | {change:.1e} |", flush=True)


if __name__ == "__main__":
    main()
