"""Make the picture of README.md: part of a real report, photographed by a headless Chromium.

python scripts/pictures.py
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZE = (1180, 1240)


def main() -> int:
    """Score four mixture classes against brain tissue and photograph the head of the report."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        print(f"no browser found: install one of {', '.join(BROWSERS)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        command = [sys.executable, "-m", "evalmetrics", "data=tissues", "data.classes=4", f"run.folder={run}"]
        subprocess.run(command, check=True, cwd=ROOT)
        photograph(browser, run / "report.html", ROOT / "docs" / "report.png", scratch)
    return 0


def photograph(browser: str, page: Path, target: Path, profile: str) -> None:
    """Photograph the upper part of a page, in 64 colours to keep the repository small."""
    shot = Path(profile) / "shot.png"
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
    view = ["--headless", "--hide-scrollbars", f"--window-size={SIZE[0]},{SIZE[1]}", f"--screenshot={shot}"]
    arguments = [browser, *quiet, *view, f"--user-data-dir={profile}/profile", page.as_uri()]
    subprocess.run(arguments, check=True, capture_output=True)
    with Image.open(shot) as image:
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
