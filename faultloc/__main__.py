"""Command line of the package: `faultloc` and `python -m faultloc`."""

from functools import partial

from quartet.launch import launch

main = partial(launch, "faultloc")

if __name__ == "__main__":
    main()
