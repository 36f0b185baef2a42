"""Command line of the package: `rwalk` and `python -m rwalk`."""

from functools import partial

from quartet.launch import launch

main = partial(launch, "rwalk")

if __name__ == "__main__":
    main()
