"""The shell of Quartet: it composes a config, builds an experiment, drives it and keeps what came out.

The science lives in the sibling packages; this package knows Hydra, devices, checkpoints, run folders and tables, and
imports no sibling by name: it is handed an experiment object.
"""

__version__ = "0.1.0"
