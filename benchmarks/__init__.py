"""Speed and memory of the library beside hand-written JAX, back-propagation and its peers.

Run `python -m benchmarks.run --help`. How the parts combine:

* `cases` describes the work (layers, batch, T, learning rates) and makes its data and first
  weights.
* `programs` and `peers` do that work: every module there has `make(case, ...)`, which returns a
  `step` that runs one training step, and a `read_weights`.
* `worker` runs one program on one case in a process of its own and answers questions about it;
  `process` starts workers and asks; `timing` asks several in turn, round after round.
* `measure` puts that together for one case; `overhead`, `scaling`, `trainer` and `population` are the
  other measurements.
* `report` and `tables` write the JSON record, the plot and `docs/benchmarks.md`.

Nothing here is imported by `pcx`. Peers run in environments of their own, with this package linked
into an otherwise empty folder, so that their `import pcx` finds theirs.
"""
