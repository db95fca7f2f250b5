"""Linear probes of several learning rates trained together, against one after another.

    python benchmarks/linear_heads.py [--images 10000] [--width 768] [--classes 100] [--heads 8] [--epochs 3] [--batch 1024]

The same probes (batch norm, linear layer, LARS) on the same batches of clustered random features, by the suite's optimizer; one
thread, medians of CPU time over rounds that take turns. Nothing fails here: the numbers are read.
"""

import argparse
import statistics
import time

import torch
from torch import nn

from mae_bench.core.optim import OptimConfig, build_optimizer, parameter_groups, set_lr
from tasks.common.classifiers import Heads, Probe, head_number

RATIO = 0.316


def fit(model: nn.Module, config: OptimConfig, batches: list[tuple[torch.Tensor, torch.Tensor]], epochs: int) -> None:
    """Train without a schedule."""
    ladder = head_number(model)
    groups = parameter_groups(model, config, layer_id=None if ladder is None else lambda name: 1 - ladder(name))
    optimizer = build_optimizer(groups, config)
    set_lr(optimizer, config.lr)
    for _ in range(epochs):
        for batch in batches:
            model(batch)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"images": 10_000, "width": 768, "classes": 100, "heads": 8, "epochs": 3, "batch": 1024, "rounds": 5}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(given.classes, given.width, generator=random)
    labels = torch.randint(given.classes, (given.images,), generator=random)
    features = centres[labels] + 4 * torch.randn(given.images, given.width, generator=random)
    batches = list(zip(features.split(given.batch), labels.split(given.batch), strict=True))
    together, alone, differences = [], [], []
    for _ in range(given.rounds):
        torch.manual_seed(0)
        heads = Heads(given.width, given.classes, given.heads)
        start = heads.weights[0].detach().clone()
        started = time.process_time()
        fit(heads, OptimConfig(name="lars", lr=40.0, layer_decay=RATIO), batches, given.epochs)
        together.append(time.process_time() - started)
        spent = 0.0
        for number in range(given.heads):
            probe = Probe(given.width, given.classes)
            probe.linear.weight.data.copy_(start)
            started = time.process_time()
            fit(probe, OptimConfig(name="lars", lr=40.0 * RATIO**number), batches, given.epochs)
            spent += time.process_time() - started
            differences.append(float((probe.linear.weight - heads.weights[number]).detach().abs().max()))
        alone.append(spent)
    ratio = statistics.median(other / own for other, own in zip(alone, together, strict=True))
    data = f"{given.images} x {given.width}, {given.classes} classes, batch {given.batch}, {given.epochs} epochs"
    print(f"{given.heads} heads, {data}")
    print(f"together        {statistics.median(together):6.2f} CPU s")
    print(f"one by one      {statistics.median(alone):6.2f} CPU s   x{ratio:.2f} (median of {given.rounds} rounds)")
    print(f"largest difference of a weight {max(differences):.1e}")


if __name__ == "__main__":
    main()
