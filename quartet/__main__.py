"""`quartet`: run one headline table of every package and write a page of what came out."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run the headline tables; 0 if all came out, 1 if one failed."""
    parser = argparse.ArgumentParser(
        prog="quartet",
        description="Run one headline table of every package, on data that come with the installation, print the "
        "tables and write one page with pictures. Each package has a command of its own for everything else.",
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/quartet"), help="default: runs/quartet")
    parser.add_argument("--again", action="store_true", help="run again what is finished already")
    options = parser.parse_args(arguments)
    from quartet.headline import run

    try:
        return run(options.folder.absolute(), again=options.again)
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
