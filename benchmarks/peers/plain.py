"""What anyone would write: one network after another in PyTorch, float32, eager, images in memory, all cores.

python plain.py DATA.npz --width 16 --batch 16 --trials 1 --epochs 3
"""

import argparse
import json
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def network(width: int, classes: int, dense: int = 256) -> nn.Sequential:
    """`width`K-4C3B-`dense`D-Dropout0.5 with batch normalization."""
    layers: list[nn.Module] = []
    channels = 3
    for block in range(3):
        for _ in range(4):
            out = width * 2**block
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out, eps=1e-3, momentum=0.01)]
            layers += [nn.LeakyReLU(0.01)]
            channels = out
        layers += [nn.MaxPool2d(2)]
    layers += [
        nn.Flatten(),
        nn.Linear(channels * 16, dense),
        nn.LeakyReLU(0.01),
        nn.Dropout(0.5),
        nn.Linear(dense, classes),
    ]
    return nn.Sequential(*layers)


def train(data: dict[str, torch.Tensor], width: int, batch: int, epochs: int, seed: int) -> float:
    """Returns the test accuracy after the last epoch; it is measured after each."""
    torch.manual_seed(seed)
    model = network(width, int(data["train_y"].max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, eps=1e-7)
    accuracy = 0.0
    for _ in range(epochs):
        model.train()
        for index in torch.randperm(len(data["train_x"])).split(batch):
            optimizer.zero_grad()
            F.cross_entropy(model(data["train_x"][index]), data["train_y"][index]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            answers = [model(x).argmax(1) for x in data["test_x"].split(250)]
        accuracy = float((torch.cat(answers) == data["test_y"]).float().mean())
    return accuracy


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    for name in ("width", "batch", "trials", "epochs"):
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    arrays = np.load(arguments.data)
    data = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    for part in ("train_x", "test_x"):
        data[part] = data[part].permute(0, 3, 1, 2).contiguous().float() / 255
    seconds, accuracies = [], []
    for seed in range(arguments.trials):
        started = time.perf_counter()
        accuracies.append(train(data, arguments.width, arguments.batch, arguments.epochs, seed))
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": seconds, "accuracies": accuracies}))


if __name__ == "__main__":
    main()
