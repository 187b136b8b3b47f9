"""Settings for every test: strict types and ranks, several devices, no time limit on Hypothesis."""

import gc
import itertools
import os
from pathlib import Path

import hypothesis
import jax
import jaxlib.version
import pytest

jax.config.update("jax_num_cpu_devices", 4)

hypothesis.settings.register_profile("jaxnets", deadline=None, max_examples=15, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("jaxnets")


# By the durations of a whole run on two cores: what takes longest, and is checked on less elsewhere. Pages of the
# documentation, each a session of its own, and networks that others stand for in the tests over every net. A name
# without brackets stands for all of its cases.
SLOW = (
    "test_metrics.py::test_more_pixels_than_float32_can_count",
    *(
        f"test_names.py::{test}"
        for test in (
            "test_stopping_in_fit_and_the_best_checkpoint_follow_the_metric",
            "test_the_best_of_a_sweep_follows_the_metric",
            "test_what_stands_in_rows_of_weight_0_never_matters[True]",
        )
    ),
    *(
        f"test_documentation.py::test_code_blocks_run[docs/{page}.md]"
        for page in (
            *("train", "generative", "sequence-models", "diagnose", "data", "combinators", "sweep", "losses"),
            *("recurrent", "metrics", "regularizers", "receptive-fields", "port-your-weights", "resume"),
            *("datasets", "counts"),
        )
    ),
    *(
        f"test_every_net.py::{test}[{net}]"
        for test in (
            *("test_gradients_agree_with_finite_differences", "test_jit_equals_eager"),
            "test_vmapped_trials_equal_a_loop",
        )
        for net in (
            *("models/lenet5", "models/lenet5_smooth", "models/lenet5_parts", "models/fcn_tiny"),
            *("models/landmarks_tiny", "models/contrastive_divergence", "recurrent/repeat", "recurrent/rnn_relu"),
            *("recurrent/bidirectional_stacked", "recurrent/dropout_padded"),
        )
    ),
    *(
        f"test_every_net.py::test_gradients_agree_with_finite_differences[recurrent/{net}]"
        for net in ("bidirectional_carry", "dropout", "bidirectional_last", "carry_through", "stacked", "bidirectional")
    ),
    *(
        f"test_every_net.py::test_vmapped_trials_equal_a_loop[recurrent/{net}]"
        for net in ("dropout", "rnn", "carry_through", "ensemble")
    ),
    *(
        f"test_every_net.py::test_evaluation_ignores_keys_and_follows_batch_order[{net}]"
        for net in (
            "models/fcn_tiny",
            "models/lenet5",
            "models/landmarks_tiny",
            "models/lenet5_parts",
            "recurrent/repeat",
        )
    ),
    *(
        f"test_every_net.py::test_jit_equals_eager[{net}]"
        for net in ("recurrent/ensemble", "recurrent/cast", "models/language_model", "recurrent/bidirectional_carry")
    ),
    *(f"test_every_net.py::test_gradients_agree_with_finite_differences[models/{net}]" for net in ("mlp", "gru")),
    "combinators/test_repeat.py::test_written_out_network_is_the_same_function[stages]",
    "models/test_dense_prediction.py::test_unet_of_the_paper_is_pytorchs",
    "sweeps/test_sweep.py::test_trials_side_by_side_are_the_same[shared out]",
    "sweeps/test_sweep.py::test_a_memory_budget_makes_chunks",
    "sweeps/test_checkpoint.py::test_a_killed_search_resumes_from_its_batches",
    "sweeps/test_checkpoint.py::test_killed_halving_resumes_bit_for_bit",
    "sweeps/test_checkpoint.py::test_another_sweep_is_named",
    "train/test_streaming.py::test_the_example_that_brings_a_nan_is_named_and_the_run_stands_before_it",
    "train/test_streaming.py::test_a_stream_made_for_one_pass_is_read_as_often_as_the_program_says",
    "train/test_nonfinite.py::test_a_gradient_alone_is_traced_back_to_its_layer",
    "train/test_nonfinite.py::test_parts_of_a_batch_and_frozen_parameters_are_replayed",
    "train/test_checkpoint.py::test_another_configuration_can_be_accepted",
    "train/test_checkpoint.py::test_a_run_that_stopped_early_stays_stopped_with_its_best",
    "train/test_options.py::test_average_and_statistics_go_together",
    *(f"losses/test_sequences.py::test_padding_never_matters[{loss}-mean]" for loss in ("cosine", "soft")),
    "train/test_streaming.py::test_a_stream_in_the_datas_order_is_training_on_the_data[much]",
    "train/test_streaming.py::test_validation_may_be_a_stream_too",
    "models/test_inception.py::test_googlenet_and_its_heads_are_torchvisions",
    "models/test_inception.py::test_inception_v3_is_torchvisions",
    "models/test_resnet.py::test_twenty_steps_of_training_are_torchvisions",
    "models/test_resnet.py::test_logits_and_gradients_are_the_peers[resnext50_32x4d]",
    "models/test_resnet.py::test_logits_and_gradients_are_the_peers[resnet50_v2]",
    "models/test_dbn.py::test_pretraining_and_fine_tuning_on_digits",
    "decoding/test_greedy_and_beam.py::test_an_encoder_decoder_learns_to_reverse",
    "layers/test_recurrent.py::test_two_pieces_with_the_carry_passed_on_equal_the_whole[stacked]",
    "combinators/test_graph.py::test_a_net_with_heads_trains_and_metrics_read_its_logits",
    "train/test_hosts.py::test_a_run_and_a_sweep_over_two_processes_are_those_of_one",
    "train/test_hosts.py::test_an_error_in_one_process_ends_both",
    "core/test_compiled.py::test_new_programs_sweeps_and_evaluations_leave_no_mappings[sweeps]",
    "sweeps/test_checkpoint.py::test_a_killed_cross_validation_resumes_bit_for_bit",
    "train/test_checkpoint_killed.py::test_a_run_killed_ten_times_ends_with_the_same_bits",
    "train/test_checkpoint_killed.py::test_a_stream_killed_in_the_middle_of_epochs_goes_on_to_the_same_bits",
    "train/test_streaming.py::test_processes_that_read_give_the_same_run_also_when_it_goes_on",
    "train/test_streaming.py::test_a_batch_may_lie_over_several_devices",
    "train/test_streaming.py::test_a_stream_in_the_datas_order_is_training_on_the_data[weights]",
    "train/test_streaming.py::test_a_stream_in_the_datas_order_is_training_on_the_data[plain]",
    *(
        f"ops/test_conv.py::test_derivatives_are_those_of_the_native_convolution[{case}]"
        for case in ("2-D", "3-D", "wide padding", "groups", "thin groups")
    ),
    "ops/test_recurrent.py::test_every_derivative_is_the_plain_loops[gru-False]",
    "interop/test_torch_models.py::test_every_tensor_is_used_once_and_given_back[inception_v3]",
    "train/test_devices.py::test_the_results_are_those_of_one_device",
    "interop/test_torch.py::test_modules_of_pytorch_are_taken_however_they_are_wrapped",
    "models/test_resnet.py::test_logits_and_gradients_are_the_peers[resnet50]",
    "models/test_resnet_cifar.py::test_small_nets_are_the_papers[A]",
    "test_every_net.py::test_init_is_a_function_of_shapes[models/lenet5]",
    "test_every_net.py::test_gradients_agree_with_finite_differences[recurrent/ensemble]",
    "test_every_net.py::test_gradients_agree_with_finite_differences[combinators/repeat_leaf]",
    *(
        f"experiments/benchmarks/test_contestants.py::test_everybody_builds_the_network_described[{library}-{network}]"
        for library in ("Flax Linen", "PyTorch")
        for network in ("residual", "autoencoder")
    ),
    "data/test_stream.py::test_a_worker_leaves_ctrl_c_to_its_master_and_dies_with_it",
    "train/test_early_stopping.py::test_the_best_is_found_and_restored_in_all_ways[0.02]",
    "experiments/benchmarks/test_contestants.py::test_half_precision_is_for_those_who_do_it",
    "train/test_lr_finder.py::test_the_suggestion_trains_nearly_as_well_as_the_best_of_a_grid",
    "experiments/test_lenet_digits.py::test_study_saves_everything_and_overwrites_nothing",
    "test_every_net.py::test_no_tracer_leaks",
    "train/test_early_stopping.py::test_the_best_is_found_and_restored_in_all_ways[0.0]",
    "ops/test_recurrent.py::test_every_derivative_is_the_plain_loops[lstm-True]",
    "core/test_draws.py::test_a_deep_network_draws_with_few_programs",
    "sweeps/test_checkpoint.py::test_killed_halving_resumes_bit_for_bit",
    "sweeps/test_checkpoint.py::test_logs_of_trials_are_their_histories_and_every_line_is_there_once",
    "sweeps/test_sweep.py::test_trials_side_by_side_are_the_same[shared out]",
    "layers/test_maxout.py::test_agrees_with_loops",
    "train/test_program.py::test_a_hundred_seeds_are_one_vmap",
    "train/test_program.py::test_hyperparameters_may_be_traced_and_differentiated",
    "test_metrics.py::test_the_value_does_not_depend_on_the_batches",
    "interop/test_torch_models.py::test_every_tensor_is_used_once_and_given_back[googlenet]",
    "models/test_classics.py::test_vgg11_bn_agrees_with_torchvision",
    "losses/test_sequences.py::test_ctc_is_the_sum_over_all_paths",
    "losses/test_sequences.py::test_ctc_takes_arrays_and_every_precision",
    "losses/test_sequences.py::test_padding_never_matters[cross_entropy-mean]",
    "models/test_resnet_options.py::test_scanned_stages_compute_the_same",
    "inspect/test_receptive_field.py::test_intervals_are_the_support",
    "train/test_checkpoint_killed.py::test_a_full_disk_leaves_the_checkpoints_before_it[1000]",
    "train/test_streaming.py::test_a_run_broken_off_in_the_middle_of_an_epoch_goes_on_from_the_one_before",
    "data/test_folds.py::test_a_fold_is_scikit_learns",
    "decoding/test_sampling.py::test_a_tiny_model_learns_a_sentence_and_says_it",
    "test_documentation.py::test_docstring_examples[jaxnets.train.pretrain]",
    "test_ignored.py::test_a_metric_ignores_labels[None]",
    "data/test_stream.py::test_workers_name_an_example_too",
    "coming_from/test_keras.py::test_row",
    'coming_from/test_pytorch.py::test_row[nn.CTCLoss(reduction="none")]',
    *(
        f"coming_from/test_scikit_learn.py::test_row[linear_model.{name}]"
        for name in ("Ridge(alpha=0.5)", "Lasso(alpha=0.1)", "LogisticRegression(C=2.0)")
    ),
    "train/test_optax.py::test_every_optimizer_learns",
    "train/test_optax.py::test_lbfgs_is_that_of_optaxs_manual",
    "train/test_labels.py::test_streams_are_looked_at_batch_by_batch",
)


def pytest_configure(config: pytest.Config) -> None:
    """Compile the quick tests quickly: they compile many small programs, run each once, and wait mostly for LLVM.

    One module a program, hardly optimized, and by XLA's older emitters where it still has them. The slow tests, and
    those that are asked for by name, are compiled as users' programs are.
    """
    if config.option.markexpr == "not slow" and "XLA_FLAGS" not in os.environ:
        # At level 0 a value that two programs compute may differ by its last bit.
        flags = ["--xla_backend_optimization_level=1", "--xla_cpu_parallel_codegen_split_count=1"]
        if jaxlib.version.__version_info__ < (0, 11):  # later an unknown flag, at which XLA ends the process
            flags.append("--xla_cpu_use_fusion_emitters=false")
        os.environ["XLA_FLAGS"] = " ".join(flags)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes long."""
    for item in items:
        test = item.nodeid.removeprefix("tests/")
        if test in SLOW or test.partition("[")[0] in SLOW:
            item.add_marker("slow")


MAPS = Path("/proc/self/maps")
tests_begun = itertools.count()


@pytest.fixture(autouse=True)
def give_back():
    """Drop compiled programs before they are too many: each holds three mappings, and Linux gives a process 65,530."""
    if next(tests_begun) % 20 == 0 and MAPS.is_file() and MAPS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def strict(request: pytest.FixtureRequest):
    """Forbid implicit promotion of dtypes and ranks, but in tests marked `promotes` (Optax's own code does)."""
    if request.node.get_closest_marker("promotes"):
        yield
        return
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
