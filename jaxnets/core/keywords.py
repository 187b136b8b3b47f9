"""Hints for arguments that a function does not have: our name for another library's, or what to do instead."""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, ParamSpec, TypeVar

import jax

from jaxnets.core.errors import NetError, shown
from jaxnets.core.value import recorded

P = ParamSpec("P")
R = TypeVar("R")

# Our names, and those of Keras, PyTorch, Flax and Haiku. Our names that a signature lacks are skipped.
_NAMES = {
    "kernel_size": "window kernel_shape pool_size window_size window_shape filter_size filter_shape kernel size",
    "output_size": "size target_size",
    "size": "window n depth_radius patch_size output_size target_size",
    "length": "max_length max_len sequence_length num_positions num_embeddings",
    "factor": "upscale_factor",
    "heads": "num_heads n_heads n_head nhead num_attention_heads",
    "kv_heads": "num_kv_heads num_key_value_heads num_query_groups n_kv_heads",
    "width": "head_dim key_dim key_size head_size width_mult width_multiplier alpha",
    "causal": "is_causal use_causal_mask",
    "window": "window_size sliding_window local_window_size",
    "features": "filters channels out_channels out_features output_channels output_size output_dim units hidden_size "
    "hidden_dim hidden embedding_dim embed_dim dim width n_features",
    "hidden": "units hidden_size hidden_dim features width",
    "widths": "hidden_sizes hidden_layer_sizes layers hidden features units",
    "num_classes": "classes n_classes classes_num num_labels num_outputs output_dim out_features units",
    "vocabulary_size": "num_embeddings vocab_size input_dim vocabulary",
    "stride": "strides window_strides window_stride subsample",
    "padding": "pad pads border_mode",
    "dilation": "dilation_rate kernel_dilation rhs_dilation atrous_rate rate dilations",
    "groups": "feature_group_count num_groups group_count feature_groups n_groups",
    "multiplier": "depth_multiplier channel_multiplier",
    "pieces": "num_pieces k num_units",
    "rate": "p prob probability drop_prob drop_rate dropout_rate dropout keep_prob",
    "probability": "p prob rate",
    "degrees": "angle angles factor rotation",
    "dropout": "rate p drop_rate dropout_rate",
    "stochastic_depth": "stochastic_depth_prob drop_path_rate drop_path drop_connect_rate",
    "layer_scale": "layer_scale_init_value ls_init_value",
    "scale": "stddev std sigma noise scale_factor factor",
    "method": "mode interpolation resample",
    "antialias": "anti_alias anti_aliasing",
    "decay": "momentum decay_rate",
    "epsilon": "eps variance_epsilon",
    "unbiased": "use_unbiased_variance bessel",
    "use_bias": "bias with_bias center create_offset use_offset b",
    "use_scale": "scale create_scale gamma",
    "per_channel": "num_parameters",
    "axis": "axes reduction_axes",
    "validation": "validation_data val_data valid_data eval_data eval_set",
    "metric": "monitor",
    "restore": "restore_best_weights restore_best",
    "epochs": "num_epochs n_epochs max_epochs max_iter",
    "transforms": "transform",
    "shape": "target_shape unflattened_size size",
    "bias": "k",
    "kernel_init": "kernel_initializer w_init weight_init weight_initializer",
    "bias_init": "bias_initializer b_init beta_initializer beta_init",
    "scale_init": "gamma_initializer scale_initializer gamma_init init_values init_value",
    "recurrent_init": "recurrent_initializer recurrent_kernel_init",
    "embedding_init": "embeddings_initializer embedding_initializer w_init",
    "slope_init": "alpha_initializer negative_slope_init init",
    "activation": "nonlinearity activation_fn act",
    "forget_bias": "unit_forget_bias",
    "peepholes": "use_peepholes peephole",
    "layers": "num_layers n_layers depth",
    "merge": "merge_mode",
    "reverse": "go_backwards",
    "return_carry": "return_state return_hidden",
    "backward_cell": "backward_layer cell_bw",
    "broadcast_axes": "noise_shape broadcast_dims",
    "ceil_mode": "ceil",
    "iterations": "n_power_iterations power_iterations n_steps",
}

# Arguments whose value changes with the name.
_IN_OTHER_WORDS = {
    "momentum": "PyTorch's momentum is 1 - decay, Keras' and Flax' is decay",
    "keep_prob": "rate is 1 - keep_prob",
    "num_parameters": "True for a slope for each channel",
    "hidden_layer_sizes": "a sequence of widths",
    "noise_shape": "the axes along which values share a draw",
    "unit_forget_bias": "a number, 1.0 by default",
}

# Hints for arguments that have no counterpart here.
_LEFT_OUT = {
    "leave it out: init reads the input's size from the input": "input_shape in_features in_channels input_size "
    "input_dim in_size num_features num_channels normalized_shape batch_input_shape n_inputs in_dim",
    "put it after the layer: jn.serial(layer, jax.nn.relu)": "activation act activation_fn nonlinearity",
    "name it where it is used: jn.serial(name=layer)": "name",
    "leave it out: channels are the last axis": "data_format channel_axis channels_last",
    "leave it out: positions are areas, as with align_corners=False": "align_corners",
    "leave it out: the batch is the first axis": "batch_first time_major",
    "leave it out: precision follows the input, and jn.cast changes it": "dtype param_dtype device precision",
    "leave it out: net.init and net.apply take the key": "rngs rng key seed",
    "leave it out: pass net.apply(..., train=True)": "training train deterministic use_running_average inference "
    "is_training",
    "freeze it in training: jn.train.program(..., freeze=pattern)": "trainable requires_grad",
    "give the objective a regularizer: jn.objective(loss, jn.regularizers.l2(1e-4))": "kernel_regularizer "
    "bias_regularizer activity_regularizer weight_decay",
    "give use_scale= and use_bias=": "affine elementwise_affine",
    "use jn.bidirectional(cell)": "bidirectional",
    "put jnp.pad in front of it": "padding_mode",
    "leave it out: nothing is changed in place": "inplace",
    "give it to the optimizer: optax.adam(1e-3)": "lr learning_rate",
    "give it to jn.fit or jn.train.run": "callbacks",
    "give it to jn.train.program": "epochs batch_size validation validation_data metrics stopping",
    "leave it out: jn.train.progress() among the callbacks of jn.fit shows the progress": "verbose",
    "leave it out: each epoch has its own order, and sampler= changes it": "shuffle",
    "leave it out: the last batch is padded with rows of weight 0": "drop_last drop_remainder",
    "weigh examples: data=(x, y, weights), with weights from jn.data.class_weights or jn.data.example_weights": ""
    "class_weight class_weights sample_weight sample_weights weight pos_weight",
    "leave it out: a loss returns one value for each example, and objectives average": "reduction reduce size_average",
    "leave it out: it takes logits; for probabilities use negative_log_likelihood of their logarithm": "from_logits",
    "wrap the loss: jn.losses.ignoring(loss, label)": "ignore_index ignore_class",
}


def explained(factory: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that wrong arguments are explained, as `check_arguments` does."""
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> R:
        check_arguments(factory.__name__, signature, args, kwargs)
        return factory(*args, **kwargs)

    return recorded(make)


def check_arguments(label: str, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Check that a function takes the arguments of a call.

    Raises:
        NetError: for an unknown keyword, with the right name or the nearest one; for too many or too few arguments.

    >>> def conv(features, kernel_size, *, stride=1): ...
    >>> check_arguments("conv", inspect.signature(conv), (6,), {"window": 3})
    Traceback (most recent call last):
        ...
    jaxnets.core.errors.NetError: conv has no argument window: write kernel_size=3
    """
    parameters = signature.parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds and (unknown := [name for name in kwargs if name not in parameters]):
        given = {*kwargs, *[*parameters][: len(args)]}
        said = "; ".join(
            f"has no argument {name}: {_instead(name, kwargs[name], [*parameters], given)}" for name in unknown
        )
        raise NetError(said, label=label)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        plain = [p.name for p in parameters.values() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        if len(args) > len(plain):
            said = f"takes {len(plain)} unnamed argument{'s' * (len(plain) != 1)}, got {len(args)}"
            sizes = any(
                name in parameters for name in ("features", "kernel_size", "shape", "axis", "use_bias", "num_classes")
            )
            hint = "; sizes of the input are left out, init reads them" * sizes
        else:
            said, hint = f"is called with the wrong arguments, {error}", ""
        raise NetError(f"{said}{hint}; it takes {_listed(signature)}", label=label) from None


def check_initializers(arguments: Mapping[str, Any]) -> None:
    """Check that the arguments `kernel_init`, `bias_init` and so on can be called as initializers.

    Raises:
        NetError: for a name, a number, an array, or one of JAX's factories that was not called.
    """
    for name, given in arguments.items():
        if not name.endswith("_init"):
            continue
        own = getattr(given, "__name__", "")
        if not callable(given):
            hint = f"jax.nn.initializers.{given}()" if isinstance(given, str) else "jax.nn.initializers has them"
            hint = f"jax.nn.initializers.constant({given})" if isinstance(given, int | float) else hint
        elif getattr(jax.nn.initializers, own, None) is given and "key" not in inspect.signature(given).parameters:
            hint = f"call it, jax.nn.initializers.{own}()"
        else:
            try:
                inspect.signature(given).bind("key", "shape", "dtype")
                continue
            except ValueError:  # a function written in C has no signature
                continue
            except TypeError:
                hint = "jax.nn.initializers has them"
        raise NetError(f"expects for {name} a function (key, shape, dtype) -> array, got {shown(given)}; {hint}")


def _instead(name: str, value: Any, ours: Sequence[str], given: Set[str]) -> str:
    """Say what to write instead of a keyword."""
    written = f"={value!r}" if isinstance(value, int | float | str | tuple) and len(repr(value)) < 40 else "="
    # A name of another library?
    for own, theirs in _NAMES.items():
        if own in ours and name in theirs.split():
            if name in _IN_OTHER_WORDS:
                return f"its name is {own} here ({_IN_OTHER_WORDS[name]})"
            if own in given:
                return f"it is {own} here, which was given too"
            return f"write {own}= with one of jax.nn.initializers" if own.endswith("_init") else f"write {own}{written}"
    for hint, theirs in _LEFT_OUT.items():
        # A recurrent cell has its activation inside.
        if name in theirs.split() and not ("serial(layer" in hint and "recurrent_init" in ours):
            return hint
    # A misspelling of one of ours?
    left = [own for own in ours if own not in given]
    if near := difflib.get_close_matches(name, left, 1, 0.7):
        return f"write {near[0]}{written}"
    return f"there are {', '.join(ours) or 'none'}"


def _listed(signature: inspect.Signature) -> str:
    """Return the arguments as they are declared, without defaults."""
    shown = []
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        shown.append(parameter.name)
    return f"({', '.join(shown)})"
