"""Command line of the package: `evalmetrics` and `python -m evalmetrics`."""

from functools import partial

from quartet.launch import launch

main = partial(launch, "evalmetrics")

if __name__ == "__main__":
    main()
