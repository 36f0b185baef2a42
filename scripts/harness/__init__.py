"""What `scripts/bench.py` measures with: benchmarks as data, interleaved timing, peers in environments of their own."""
