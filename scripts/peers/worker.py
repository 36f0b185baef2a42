"""Runs peers in their own environment, on the word of `scripts/bench.py` (`harness/environment.py` is the other end).

Messages in, one JSON object a line: `{"prepare": "module:function", "inputs": {name: file}}`, `{"go": true}`,
`{"golden": module, "inputs": {...}}`. Answers: `{"ready": true}`, `{"seconds": s, "result": file}`,
`{"values": {...}}`, or `{"error": text}`. Ends when its standard input does.
"""

import importlib
import importlib.metadata
import json
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np


class Peer:
    """The callable under test, and where its results go."""

    def __init__(self, folder: str) -> None:
        """Remember where results go."""
        self.result, self.run = Path(folder, "result.npy"), None

    def answer(self, message: dict) -> dict:
        """Do what one message asks for."""
        if "prepare" in message:
            module, function = message["prepare"].split(":")
            arrays = {name: np.load(file) for name, file in message["inputs"].items()}
            self.run = getattr(importlib.import_module(module), function)(arrays)
            return {"ready": True}
        if "golden" in message:
            return {"values": importlib.import_module(message["golden"]).golden(message["inputs"])}
        start = time.perf_counter()
        result = self.run()
        seconds = time.perf_counter() - start
        np.save(self.result, np.asarray(result))
        return {"seconds": seconds, "result": str(self.result)}


def main() -> None:
    """Answer messages until there are no more."""
    # A library that prints must not break the protocol: the pipe moves to a private descriptor, prints go to stderr.
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings.simplefilter("ignore")
    peer = Peer(sys.argv[1])
    versions = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    print(json.dumps({"versions": versions}), file=pipe)
    for line in sys.stdin:
        try:
            answer = peer.answer(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=pipe)


if __name__ == "__main__":
    main()
