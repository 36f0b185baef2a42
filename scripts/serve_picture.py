"""Make docs/serve.png: the page of `rwalk task=serve` with the MNI brain and seeds placed by intensity.

python scripts/serve_picture.py [OVERRIDE ...]      needs Chromium with its driver, see scripts/system.sh
"""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from selenium import webdriver

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "serve.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZE = (1340, 1010)
PATIENCE = 600  # seconds for the basis and the first certified answer


def main() -> int:
    """Serve the brain, wait until its answer is certified, and photograph the page."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        print("no Chromium with its driver: run scripts/system.sh", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "rwalk", "task=serve", "seeds=automatic", "serve.port=0",
                   f"run.folder={scratch}/run", *sys.argv[1:]]  # fmt: skip
        serving = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert serving.stdout is not None
        try:
            address = next(found[0] for line in serving.stdout if (found := re.search(r"http://\S+/", line)))
            photograph(browser, driver, address, scratch)
        finally:
            serving.send_signal(signal.SIGINT)
            serving.communicate()
    return serving.returncode


def photograph(browser: str, driver: str, address: str, profile: str) -> None:
    """Photograph the page once its answer is certified, in 256 colours to keep the repository small."""
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-sync",
                 "no-first-run", "hide-scrollbars", f"user-data-dir={profile}/profile"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.add_argument(f"--window-size={SIZE[0]},{SIZE[1]}")
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        window.get(address)
        deadline = time.monotonic() + PATIENCE
        while window.execute_script("return document.body.dataset.stage") != "improved" and time.monotonic() < deadline:
            time.sleep(0.5)
        time.sleep(2)  # the pictures of the last answer
        shot = Path(profile) / "shot.png"
        window.save_screenshot(str(shot))
    finally:
        window.quit()
    with Image.open(shot) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(TARGET, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
