"""Write docs/reference/*.md: the public names grouped by task, `python docs/reference.py`.

The one-line tables are the first sentences of the docstrings; the studies are those of docs/concepts.md. A public name
that is in no group is an error, and `tests/test_documentation.py` compares the pages with what is written here.
"""

import inspect
import re
import sys
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path

import jaxnets

FOLDER = Path(__file__).parent / "reference"
CONCEPTS = Path(__file__).parent / "concepts.md"
PACKAGES = (
    *("activations", "data", "decoding", "export", "initializers", "inspect", "interop", "losses", "metrics", "models"),
    *("ops", "paths", "plot", "regularizers", "sklearn", "sweeps", "train"),
)

# page: (title, what it is about, {group: names in jaxnets})
PAGES: dict[str, tuple[str, str, dict[str, str]]] = {
    "jaxnets": (
        "Networks",
        "The record, the combinators and the front door, in `jaxnets` itself: `import jaxnets as jn`.",
        {
            "Train and use": "fit evaluate predict objective save load summary",
            "The record": "Net layer as_net Padded Packed NetError",
            "Write your own layer": "labeled weights_of example_weights",
            "Compose": "serial residual branches concatenate graph auxiliary_heads cached tied",
            "Attention": "attention film encoder_block decoder_block ops.attention ops.rotate ops.distance_slopes",
            "Boxes": "ops.box_area ops.box_iou ops.generalized_box_iou ops.clip_boxes ops.nms",
            "Sound": "ops.stft ops.istft ops.spectrogram ops.mel_filters ops.log_mel ops.mfcc",
            "Repeat": "repeat ensemble stack unstack to_stacked to_unstacked",
            "Normalize kernels": "weight_norm spectral_norm",
            "Memory and precision": "remat cast Policy",
            "Inference and other tools": "fold_batch_norm ops.plain",
        },
    ),
    "layers": (
        "Layers",
        "In `jaxnets` itself. Arrays are channels-last, with the batch axis first. Activations are those of `jax.nn` "
        "and those at the end of this page.",
        {
            "Dense": "dense gated_dense maxout embed embed_columns flatten unflatten",
            "Convolution": "conv depthwise_conv conv_transpose pixel_shuffle resize",
            "Pooling": "max_pool avg_pool adaptive_avg_pool adaptive_max_pool global_avg_pool global_max_pool",
            "Normalization": "batch_norm layer_norm rms_norm group_norm local_response_norm layer_scale",
            "Noise": "dropout spatial_dropout drop_path gaussian_noise masking_noise salt_and_pepper",
            "Tokens and positions": "patch_embed class_token learned_positions sinusoidal_positions",
            "Recurrent": "recurrent bidirectional conv_lstm rnn_cell lstm_cell gru_cell Cell LSTMCarry",
            "Activations": "prelu activations.scaled_tanh activations.hard_tanh activations.hard_sigmoid "
            "activations.selu activations.hard_shrink activations.soft_shrink activations.tanh_shrink "
            "activations.threshold",
            "Initializers": "initializers.bilinear_kernel",
        },
    ),
    "losses": (
        "Losses",
        "`(outputs, targets) -> (batch,)`, in `jaxnets.losses`. Options are keywords.",
        {
            "Classification": "losses.cross_entropy losses.negative_log_likelihood losses.maximum_a_posteriori "
            "losses.binary_cross_entropy losses.focal losses.softmax_focal losses.kl_divergence",
            "Margins": "losses.hinge losses.squared_hinge losses.multiclass_hinge losses.crammer_singer_hinge "
            "losses.perceptron losses.exponential",
            "Regression": "losses.squared_error losses.half_squared_error losses.absolute_error losses.huber "
            "losses.smooth_l1 losses.log_cosh losses.squared_log_error losses.absolute_percentage_error losses.cosine",
            "Sequences": "losses.ctc losses.sequence",
            "Boxes": "losses.giou losses.fcos",
            "Generative models": "losses.negative_elbo losses.gaussian_kl losses.energy_gap "
            "losses.gan_discriminator losses.gan_generator losses.velocity_error",
            "Wrappers": "losses.weighted losses.ignoring losses.auxiliary_loss losses.takes_labels",
        },
    ),
    "regularizers": (
        "Regularizers",
        "What `jn.objective` adds to a loss, and one constraint, in `jaxnets.regularizers`.",
        {
            "Of parameters": "regularizers.l1 regularizers.l2 regularizers.elastic_net regularizers.group_lasso "
            "regularizers.orthogonality",
            "Of outputs": "regularizers.activity_l1 regularizers.activity_l2 regularizers.confidence",
            "Constraints and the record": "regularizers.max_norm regularizers.Regularizer",
        },
    ),
    "metrics": (
        "Metrics",
        "Figures over a whole dataset, exact for any batching, in `jaxnets.metrics`.",
        {
            "Classification": "metrics.accuracy metrics.binary_accuracy metrics.top_k metrics.confusion_matrix "
            "metrics.precision metrics.recall metrics.f1 metrics.intersection_over_union metrics.dice metrics.matthews "
            "metrics.cohen_kappa metrics.perplexity metrics.bits_per_character",
            "Answers": "metrics.squad metrics.Squad",
            "Rankings and probabilities": "metrics.roc_auc metrics.average_precision metrics.brier "
            "metrics.expected_calibration_error",
            "Regression": "metrics.mean_squared_error metrics.mean_absolute_error metrics.r2",
            "Detection": "metrics.mean_average_precision metrics.AveragePrecision",
            "Generated text": "metrics.bleu metrics.chrf metrics.rouge_n metrics.rouge_l metrics.Rouge "
            "metrics.exact_match",
            "Generated examples": "metrics.frechet_distance metrics.manifold_precision_recall metrics.PrecisionRecall",
            "Transcripts": "metrics.word_error_rate metrics.character_error_rate",
            "Pictures": "metrics.structural_similarity metrics.peak_signal_to_noise",
            "Intervals": "metrics.bootstrap metrics.Interval",
            "Make your own": "metrics.mean metrics.ignoring metrics.Metric",
        },
    ),
    "paths": (
        "Patterns",
        "One pattern language over paths, in `jaxnets.paths`: for regularizers, masks, freezing and summaries.",
        {"Patterns": "paths.paths paths.matches paths.select paths.mask"},
    ),
    "train": (
        "Training",
        "A training run as a pure program, and the host loop around it, in `jaxnets.train`.",
        {
            "Programs": "train.program train.Program train.Recipe train.run train.Options train.LossScale train.Scale "
            "train.TrainState train.NonFiniteError",
            "Several players": "train.adversarial train.Player",
            "Steps by hand": "train.make_train_step train.start train.Batch train.StepInfo "
            "train.inverse_square_root_schedule",
            "Callbacks": "train.Callback train.progress train.early_stopping train.EarlyStopping train.Stopping "
            "train.jsonl train.csv train.tensorboard train.wandb",
            "Checkpoints and fine-tuning": "train.checkpoint train.load_checkpoint train.transfer train.Transferred "
            "train.pretrained",
            "Averages and pretraining": "train.ema_params train.estimate_statistics train.pretrain_layers",
            "Debugging": "train.find_nonfinite train.norms train.diagnose train.Diagnosis train.find_learning_rate "
            "train.LearningRates",
        },
    ),
    "sweeps": (
        "Sweeps",
        "Many training runs compiled as one program, in `jaxnets.sweeps`.",
        {
            "Run": "sweeps.sweep sweeps.halving sweeps.search sweeps.cross_validate",
            "Hyperparameters": "sweeps.uniform sweeps.log_uniform sweeps.integers sweeps.choice sweeps.Space",
            "Results": "sweeps.SweepResult sweeps.Best",
        },
    ),
    "sklearn": (
        "scikit-learn estimators",
        "Networks as estimators, in `jaxnets.sklearn`: `pip install 'jaxnets[sklearn]'`.",
        {
            "Estimators": "sklearn.Classifier sklearn.Regressor sklearn.AnomalyDetector sklearn.Transformer",
            "Search": "sklearn.SweepSearchCV",
        },
    ),
    "data": (
        "Data",
        "Datasets, splits, streams and augmentation, in `jaxnets.data`.",
        {
            "Splits": "data.split data.split_indices data.split_groups data.split_in_time data.folds data.group_folds "
            "data.fold data.walk_forward data.windows",
            "Tables and labels": "data.table data.Table data.TableEncoder data.labels data.Labels",
            "Streams": "data.stream data.Stream",
            "Preprocessing that travels with a network": "data.Preprocess data.Image data.Text",
            "Sources": "data.columns data.Columns data.parquet data.collect",
            "Scaling and class balance": "data.standardize data.rescale data.Scaling data.class_weights "
            "data.example_weights data.balanced data.balanced_order",
            "Augmentation of examples": "data.compose data.random_crop data.random_resized_crop data.flip data.shift "
            "data.rotate data.cutout data.erase data.color_jitter data.rand_augment data.noise",
            "Augmentation of batches": "data.mixup data.cutmix",
            "Images": "data.digits data.mnist5k data.mnist data.fashion_mnist data.read_idx data.cifar10 data.cifar100 "
            "data.image_folder data.imagenet data.ImageFolder",
            "Tables and series": "data.iris data.wine data.diabetes data.sunspots data.japanese_vowels data.read_ts",
            "Text": "data.text data.encode_text data.decode_text data.pad data.pack data.unpack "
            "data.next_tokens data.mask_tokens data.tokenizer data.characters data.Tokenizer",
            "Speech": "data.spoken_words data.Spoken data.write_wav",
            "Synthetic": "data.moons data.circles data.spirals data.blobs data.xor data.checkerboard data.mnist1d "
            "data.adding data.copy_memory data.moving_pictures data.dates_and_numbers data.quantifier_pairs "
            "data.table_questions data.Question data.opinions data.headlines data.sort_of_clevr data.digit_scenes",
        },
    ),
    "models": (
        "Models",
        "Architectures, one per file, in `jaxnets.models`.",
        {
            "Dense": "models.linear models.perceptron models.mlp",
            "Convolutional": "models.cnn models.lenet5 models.lenet5_1998 models.alexnet models.alexnet_2012 "
            "models.vgg11 models.vgg13 models.vgg16 models.vgg19 models.googlenet models.googlenet_2014 "
            "models.inception_v2 models.inception_v3 models.inception_v4 models.inception_resnet_v2 "
            "models.densenet121 models.mobilenet_v2 models.efficientnet_b0 models.convnext_tiny",
            "Residual": "models.resnet18 models.resnet34 models.resnet50 models.resnet101 models.resnet152 "
            "models.resnet18_v2 models.resnet34_v2 models.resnet50_v2 models.resnet101_v2 models.resnet152_v2 "
            "models.wide_resnet50_2 models.wide_resnet101_2 models.resnext50_32x4d models.resnext101_32x8d "
            "models.resnext101_64x4d models.resnet_cifar models.plain_cifar",
            "Vision transformers": "models.vit_b_16 models.vit_b_32 models.vit_l_16 models.deit_tiny "
            "models.resize_positions",
            "Text": "models.gpt2 models.llama models.bert models.transformer models.sentence_encoder models.siamese",
            "Dense prediction": "models.fcn models.unet models.landmarks models.soft_argmax",
            "Detection and questions": "models.fcos models.detect models.visual_questions",
            "Recurrent": "models.rnn models.lstm models.gru models.language_model models.encoder_decoder "
            "models.attentive_encoder_decoder models.pointer_generator models.frame_predictor",
            "Speech": "models.conv_gru models.conv_transformer",
            "Autoencoders": "models.autoencoder models.conv_autoencoder models.denoising_autoencoder models.vae "
            "models.conv_vae models.variational",
            "Adversarial networks and flows": "models.gan models.dcgan models.flow_matching models.conditional_unet",
            "Boltzmann machines": "models.rbm models.contrastive_divergence models.gibbs_step models.free_energy "
            "models.reconstruct models.dbn models.dbn_stages models.dbn_to_mlp models.dbn_sample models.dbm "
            "models.dbm_gibbs_step models.mean_field models.mean_field_learning models.variational_bound",
        },
    ),
    "decoding": (
        "Decoding",
        "Sequences and pictures made by a trained network, in `jaxnets.decoding`.",
        {
            "Write": "decoding.sample decoding.stream decoding.greedy decoding.beam_search decoding.Decoded",
            "Draw by a flow": "decoding.flow decoding.integrate",
            "Connectionist temporal classification": "decoding.ctc_greedy decoding.ctc_beam_search",
            "Token by token": "decoding.prefill decoding.step decoding.grow",
        },
    ),
    "counts": (
        "Counts and fields",
        "What a network costs and sees, found by tracing it on shapes, in `jaxnets.inspect`.",
        {
            "Counts": "inspect.count_parameters inspect.multiply_adds inspect.flops inspect.memory inspect.Memory "
            "inspect.connections inspect.Summary inspect.Row",
            "Sizes and receptive fields": "inspect.output_size inspect.receptive_field inspect.ReceptiveField "
            "inspect.effective_field",
        },
    ),
    "plot": (
        "Figures",
        "Figures of training, of what was learned and of networks, in `jaxnets.plot`: matplotlib `Figure`s, and "
        "diagrams as Mermaid.",
        {
            "Training": "plot.curves plot.calibration plot.confusion plot.misclassified",
            "Networks": "plot.diagram plot.Diagram plot.kernels plot.feature_maps plot.draw_receptive_field",
        },
    ),
    "interop": (
        "Files and other libraries",
        "Parameters from and to other libraries, in `jaxnets.interop`; `jn.save` and `jn.load` are among Networks. "
        "Loading warns of NaN and infinite numbers and names the arrays.",
        {
            "PyTorch": "interop.from_torch interop.to_torch",
            "Flax": "interop.from_flax interop.to_flax from_flax_module to_linen to_nnx",
            "Keras, Equinox and Haiku": "interop.from_keras interop.from_equinox interop.from_haiku",
            "Hugging Face": "interop.from_huggingface interop.Pretrained",
            "Files": "interop.Saved",
        },
    ),
    "export": (
        "Export",
        "Networks as files for other programs, in `jaxnets.export`; see Deploy.",
        {
            "StableHLO": "export.stablehlo export.load export.Served",
            "ONNX": "export.onnx export.Converted",
        },
    ),
}


def page(name: str, studies: Mapping[str, list[str]]) -> str:
    """Return the text of a page."""
    title, about, groups = PAGES[name]
    parts = [f"# {title}\n\n{about}\n"]
    for group, listed in groups.items():
        names = listed.split()
        rows = [f"| [`jn.{each}`](#{path(each)}) | {first_sentence(each)} | {', '.join(studies.get(each, []))} |"
                for each in names]  # fmt: skip
        parts.append(f"## {group}\n\n| name | what it is | study |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n")
        parts += [f"::: {path(each)}\n" for each in names]
    return "\n".join(parts)


def path(name: str) -> str:
    """Return where a public name is defined, as a dotted path."""
    thing = attrgetter(name)(jaxnets)
    if hasattr(thing, "__qualname__"):
        return f"{thing.__module__}.{thing.__qualname__}"
    short = name.rpartition(".")[2]  # an object in a module, such as the metric `accuracy`
    homes = [m for m in sys.modules if m.startswith("jaxnets.") and vars(sys.modules[m]).get(short) is thing]
    return f"{max(homes, key=len)}.{short}"


def first_sentence(name: str) -> str:
    """Return how the docstring of a public name begins, ready for a table."""
    module, _, short = path(name).rpartition(".")
    found = re.search(rf'^{short} = .*\n"""(.*)', inspect.getsource(sys.modules[module]), re.MULTILINE)
    document = found[1] if found else attrgetter(name)(jaxnets).__doc__
    first = " ".join(inspect.cleandoc(document.strip('"')).split("\n\n")[0].split())
    sentence = re.match(r"(?:`[^`]*`|[^`])*?[.:](?=\s|$)", first + " ")
    return (sentence[0] if sentence else first).rstrip(".:").replace("|", "\\|") + "."


def studies_of_names() -> dict[str, list[str]]:
    """Return links to the studies about each name, as docs/concepts.md has them."""
    found: dict[str, list[str]] = {}
    for row in CONCEPTS.read_text(encoding="utf-8").splitlines():
        for name in re.findall(r"`jn\.([\w.]+)", row):
            links = re.findall(r"\[[^]]*\]\(claims/\w+\.md\)", row)
            found[name] = [*found.get(name, []), *(each.replace("(claims/", "(../claims/") for each in links)]
    return {name: list(dict.fromkeys(links)) for name, links in found.items()}


def pages() -> dict[str, str]:
    """Return the text of every page by its name.

    Raises:
        ValueError: for a public name that no page has.
    """
    listed = {each for _, _, groups in PAGES.values() for group in groups.values() for each in group.split()}
    public = {name for name in jaxnets.__all__ if name not in PACKAGES}
    for package in PACKAGES:
        module = getattr(jaxnets, package)
        own = [n for n, t in vars(module).items() if n[0] != "_" and getattr(t, "__module__", None) == module.__name__]
        public |= {f"{package}.{name}" for name in getattr(module, "__all__", own) if callable(getattr(module, name))}
    known = {path(each) for each in listed}
    if missing := sorted(each for each in public if path(each) not in known):
        raise ValueError(f"no page has {', '.join(missing)}")
    return {name: page(name, studies_of_names()) for name in PAGES}


if __name__ == "__main__":
    for old in FOLDER.glob("*.md"):
        old.unlink()
    for name, text in pages().items():
        (FOLDER / f"{name}.md").write_text(text, encoding="utf-8")
