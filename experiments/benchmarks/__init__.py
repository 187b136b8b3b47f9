"""Benchmarks against other libraries, interleaved in one process: `python -m experiments.benchmarks`.

`architecture.py` and `networks.py` describe networks as data; `ours.py` and `peers/` build and train them; `rows/`
defines what is measured. `measure.py` measures one row in its own process, `suite.py` runs all rows, and `gpu.py` those
for one GPU. `goals.py`, `analysis.py`, `figures.py` and `report.py` write the page. `attention`, `compile_time`,
`compiler_options`, `convolutions`, `equal_fits`, `fit_overhead`, `flat_buffers`, `flow_sampling`, `halt_on_nonfinite`,
`import_time`, `operations`, `pooling`, `search_cv`, `sweep_mlp` and `sweep_strategy` are separate commands.
"""
