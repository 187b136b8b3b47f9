"""The rows of the benchmark: pieces of work, each with its contestants. `ROWS` has them in the order of the report."""

from experiments.benchmarks.rows import decoding, gpu, growth, inference, sweeps, training
from experiments.benchmarks.rows.row import Row

ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        *training.ROWS,
        *sweeps.ROWS,
        *inference.ROWS,
        *decoding.ROWS,
        *training.FIRSTS,
        *growth.ROWS,
        *gpu.rows(),
    )
}
