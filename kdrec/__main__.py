"""Command line of the package: `kdrec` and `python -m kdrec`."""

from functools import partial

from quartet.launch import launch

main = partial(launch, "kdrec")

if __name__ == "__main__":
    main()
