"""The same in Keras 3 on JAX: one network after another with `fit`, float32, images in memory.

python keras_jax.py DATA.npz --width 16 --batch 16 --trials 1 --epochs 3
"""

import argparse
import json
import os
import time

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np
from keras import layers


def network(width: int, classes: int) -> keras.Model:
    stack = [keras.Input((32, 32, 3))]
    for block in range(3):
        for _ in range(4):
            stack += [
                layers.Conv2D(width * 2**block, 3, padding="same"),
                layers.BatchNormalization(),
                layers.LeakyReLU(0.01),
            ]
        stack += [layers.MaxPooling2D()]
    stack += [layers.Flatten(), layers.Dense(256), layers.LeakyReLU(0.01), layers.Dropout(0.5), layers.Dense(classes)]
    return keras.Sequential(stack)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    for name in ("width", "batch", "trials", "epochs"):
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    arrays = np.load(arguments.data)
    train_x, test_x = (arrays[name].astype(np.float32) / 255 for name in ("train_x", "test_x"))
    seconds, accuracies = [], []
    for seed in range(arguments.trials):
        started = time.perf_counter()
        keras.utils.set_random_seed(seed)
        model = network(arguments.width, int(arrays["train_y"].max()) + 1)
        model.compile(
            optimizer=keras.optimizers.Adam(1e-4),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        history = model.fit(
            train_x, arrays["train_y"], batch_size=arguments.batch, epochs=arguments.epochs,
            validation_data=(test_x, arrays["test_y"]), validation_batch_size=250, verbose=0,
        )  # fmt: skip
        accuracies.append(float(history.history["val_accuracy"][-1]))
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": seconds, "accuracies": accuracies}))


if __name__ == "__main__":
    main()
