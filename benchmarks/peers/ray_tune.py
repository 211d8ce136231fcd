"""Ray Tune running the plain script's training, as many trials at once as there are cores, one thread each.

python ray_tune.py DATA.npz --width 16 --batch 16 --trials 4 --epochs 3
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def trainable(config: dict[str, Any]) -> dict[str, float]:
    import numpy as np
    import torch

    sys.path.insert(0, str(Path(__file__).parent))
    from plain import train

    torch.set_num_threads(1)
    arrays = np.load(config["data"])
    data = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    for part in ("train_x", "test_x"):
        data[part] = data[part].permute(0, 3, 1, 2).contiguous().float() / 255
    return {"accuracy": train(data, config["width"], config["batch"], config["epochs"], config["seed"])}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    for name in ("width", "batch", "trials", "epochs"):
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    import ray
    from ray import tune

    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False, logging_level="error")
    space = {"data": str(Path(arguments.data).resolve()), "seed": tune.grid_search(list(range(arguments.trials)))}
    space |= {name: getattr(arguments, name) for name in ("width", "batch", "epochs")}
    started = time.perf_counter()
    results = tune.Tuner(tune.with_resources(trainable, {"cpu": 1}), param_space=space,
                         run_config=tune.RunConfig(verbose=0)).fit()  # fmt: skip
    seconds = (time.perf_counter() - started) / arguments.trials
    accuracies = [result.metrics["accuracy"] for result in results]
    print(json.dumps({"seconds": [seconds] * arguments.trials, "accuracies": accuracies}))


if __name__ == "__main__":
    main()
