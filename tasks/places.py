"""Where fetched files lie: bases by digest, candidates by evaluation, gradients by profile.

Everything here is a cache: it can be deleted at any time and is fetched or computed again.
"""

import hashlib
import shutil
from pathlib import Path

from gate.settings import Settings


class Places:
    """The folders of one machine's cache under the state folder."""

    def __init__(self, settings: Settings) -> None:
        self.root = settings.state_dir / "cache"

    def base(self, digest: str) -> Path:
        """Folder of a base's files."""
        return self.root / "bases" / digest

    def candidate(self, evaluation_key: str) -> Path:
        """Folder of a candidate's files, kept from inspection until the verdict."""
        return self.root / "candidates" / evaluation_key

    def rehashed(self, evaluation_key: str) -> Path:
        """Folder of a promoted version's files while they are hashed again."""
        return self.root / "rehashed" / evaluation_key

    def gradients(self, profile_key: str) -> Path:
        """File of a base's capability gradients."""
        return self.root / "gradients" / f"{hashlib.sha256(profile_key.encode()).hexdigest()}.safetensors"

    def controls(self) -> Path:
        """Folder, made where it is not there, in which planted candidates lie while they are judged."""
        folder = self.root / "controls"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def forget_candidate(self, evaluation_key: str) -> None:
        """Removes a candidate's files; its verdict is made."""
        shutil.rmtree(self.candidate(evaluation_key), ignore_errors=True)
