"""Real fine-tunes of the shipped base, each made once for all the processes that run the tests."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from filelock import FileLock

from tasks.zoo import recipes
from tasks.zoo.staged_recipes import STAGED

BASE = STAGED.base_folder(Path())
BASE_REFERENCE = "models:/staged base/1"
"""What every one of them says it came from."""


class FineTunes:
    """By its recipe's name, the folder of a fine-tune with seed 0. Tests share it: who changes a file copies it first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.root.mkdir(exist_ok=True)

    def __call__(self, recipe: str) -> Path:
        folder = self.root / recipe
        with FileLock(self.root / f"{recipe}.lock"):
            if not folder.exists():
                self._make(recipe, folder)
        return folder

    def _make(self, recipe: str, folder: Path) -> None:
        """One thread, so that its bytes are the same on every machine; whole or not at all."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with TemporaryDirectory(dir=self.root) as room:
                recipes.make("staged", recipe, BASE, Path(room, recipe), base_reference=BASE_REFERENCE, seed=0)
                Path(room, recipe).rename(folder)
        finally:
            torch.set_num_threads(threads)
