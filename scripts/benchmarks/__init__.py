"""One file of benchmarks per package: `benchmarks(settings)` returns them."""
