"""Preprocessing killed at random instants, many times over: `python -m tests.torture.preprocessing --rounds 20`."""

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from data_tools.text.tokenizer_training import train_bpe

CHECKOUT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Each round has twenty kills of every kind of request; it ends with the first that leaves other bytes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.jsonl"
        texts.write_text("".join(f'{{"text": "the dog number {each} over the hill"}}\n' for each in range(20)))
        train_bpe([texts], Path(folder) / "bpe", 280)
        for seed in range(asked.seed, asked.seed + asked.rounds):
            place = Path(folder) / str(seed)
            place.mkdir()
            words = [place, Path(folder) / "bpe", asked.kills, seed]
            command = [sys.executable, "-m", "tests.data_tools.datasets.preprocessing.killed", *map(str, words)]
            done = subprocess.run(command, cwd=CHECKOUT, check=False)
            print(f"seed {seed}: {'the same' if done.returncode == 0 else 'OTHER'}", flush=True)
            if done.returncode:
                sys.exit(1)


if __name__ == "__main__":
    main()
