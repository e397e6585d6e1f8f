"""The network: its family and shape. Shape settings are searchable like any other, and are part of the stack key.

The family determines how the data is read: an `mlp` takes rows of numbers, a `cnn` images, a `sequence` model series. A
`module` is a network of the user's own, named as `package.module:Class`; its arguments are settings, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from service.spec.domain import OFF, Choices, Domain, Fixed, Frozen, PerLayer, Range, can_leave, possible_values
from service.spec.free import free_setting
from service.spec.modules import ARGUMENT, NAME, Arguments, Layout
from service.spec.setting import Setting, When, refuse_unmet, settings_of

MOST_DEVICES = 64
"""That one network may be trained on."""
ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "elu", "selu", "mish")
FAMILIES = ("mlp", "cnn", "sequence")
"""Our own."""
MODULE = "module"
"""The family of all modules of theirs."""
LAYOUTS: Mapping[str, Layout] = {"mlp": "flat", "cnn": "image", "sequence": "sequence"}
"""The layout of one example, by family of ours."""
_OF_OURS = ("width", "depth", "activation")
"""Settings of all networks of ours."""
_SHAPES: Mapping[str, tuple[int, int]] = {"mlp": (256, 2), "cnn": (16, 3), "sequence": (64, 1)}
"""Default width and depth, by family."""
NamePattern = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.*?\[\]!-]+$")]
"""Names of layers, with the wildcards of `fnmatch`."""
Width = Annotated[int, Field(ge=1, le=16384)]


def _lr_factor(of: str) -> Setting:
    """The learning-rate factor of a group of an `mlp`'s parameters."""
    return Setting(
        group="model", kind="float", low=0.0, high=100.0, neutral=1.0, scope="stack", search=Fixed(value=1.0),
        when=When("family", ("mlp",)), doc=f"Multiplies the learning rate of {of}.",
    )


class ModelSpec(Frozen):
    """A network: ``depth`` hidden layers of ``width`` units (`cnn`: stages of channels), or one of ``widths`` per layer."""

    family: Annotated[Domain | None, Setting(
        group="model", kind="word", words=(*FAMILIES, MODULE), neutral="mlp", scope="stack", search=Fixed(value="mlp"),
        doc="`mlp` for tables, `cnn` (small ResNet; He et al. 2016) for images, `sequence` for series, "
        "`module` where `module` names one; not searchable.",
    )] = None
    module: str | None = Field(
        None, max_length=300, pattern=NAME,
        description="A network of your own, `package.module:Class`, one that the operator allows (`GET /v1/modules`). "
        "`Class(inputs, outputs, **args)` gets the shape of an example and the number of outputs; its `forward(x)` returns "
        "(rows, outputs): logits, or one standardized number. The rates of its `nn.Dropout` layers are those of "
        "`space.dropout`.",
    )
    args: Arguments = Field(
        {}, max_length=100,
        description="Arguments of `module`, each a value, a range `{low, high}` or a list of choices; searched as any "
        "setting, `args.NAME`.",
    )
    reads: Layout | None = Field(
        None,
        description="How a `module` gets an example: `flat` (features), `image` (channels, height, width), `sequence` "
        "(time, channels); if omitted, as the data has it.",
    )
    dropout_after: tuple[NamePattern, ...] = Field(
        (), max_length=50,
        description="Names of layers of a `module` after which dropout is put, such as `blocks.*`, beside its own.",
    )
    dropout_layers: int | None = Field(
        None, ge=1, le=256,
        description="How many dropout layers a `module` has, those of `dropout_after` last; needed for `dropout` per layer.",
    )
    devices: int = Field(
        1, ge=1, le=MOST_DEVICES,
        description="Devices that train each network together, one trial after the other: every batch is divided among "
        "them, and batch normalization uses the statistics of one part. For networks that are too slow for one device, or "
        "whose batches are too large; goes to workers that have as many (`regsearch worker --devices-per-trial`).",
    )
    widths: tuple[Width, ...] | None = Field(
        None, max_length=64,
        description="Units of each hidden layer, or channels of each stage, in order; instead of `width` and `depth`.",
    )
    width: Annotated[Domain | None, Setting(
        group="model", kind="int", low=1, high=16384, neutral=256, scope="stack", search=Fixed(value=256),
        doc="Units of each hidden layer; `cnn` (default 16): channels of the first stage, doubled in each further stage; "
        "`sequence`: default 64.")] = None
    depth: Annotated[Domain | None, Setting(
        group="model", kind="int", low=0, high=64, neutral=2, scope="stack", search=Fixed(value=2),
        doc="Number of hidden layers; 0 is a linear model. `cnn` (default 3): number of stages, each with half the "
        "resolution of the one before; `sequence`: default 1.")] = None
    activation: Annotated[Domain | None, Setting(
        group="model", kind="word", words=ACTIVATIONS, neutral="relu", scope="stack", search=Fixed(value="relu"),
        doc="Activation function of the hidden layers.")] = None
    freeze: tuple[NamePattern, ...] = Field(
        (), max_length=50,
        description="Names of layers of a `module`, such as `layer1.*`, whose parameters and running statistics stay as "
        "they are in all trials, without penalties.",
    )
    weights: str | None = Field(
        None, max_length=1000,
        description="A safetensors file in a directory that the operator allows: the initial weights of a `module`, by the "
        "names of its parameters. A last layer of another shape is initialized anew (see `fine_tune`).",
    )
    weights_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="SHA-256 of that file; filled in at submit, so that no other is used.",
    )
    start_from: int | None = Field(
        None, ge=1, lt=2**31,
        description="Id of a finished study whose trained network is the initial network of all trials (see `fine_tune`). "
        "Its architecture (of a `module` the name and the arguments) and preprocessing are reused, its last layer if the "
        "target is the same; so must the columns be.",
    )
    start_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$",
        description="SHA-256 of the archive of that network; filled in at submit, so that no other network is used instead.",
    )
    fine_tune: Annotated[Domain | None, Setting(
        group="fine_tuning", kind="word", words=("all", "head"), neutral=OFF, off=True, search=Fixed(value=OFF),
        advised=Choices(choices=("all", "head")),
        doc="With `start_from` or `weights` (where the default is `all`): train all weights; or only those of the last "
        "layer, with all other weights and running statistics frozen and exempt from penalties; or off: train from scratch.",
    )] = None
    embedding: Annotated[Domain | None, Setting(
        group="model", kind="int", low=1, high=1024, neutral=0, off=True, scope="stack", search=Fixed(value=OFF),
        advised=Choices(choices=(OFF, 4, 16, 600)), when=When("family", ("mlp",)),
        doc="Embeds each category in min(embedding, 1.6·levels^0.56) units (Guo and Berkhahn 2016; 600 is fastai's rule); "
        "off: one input per level. The embeddings are weights, to which penalties, decay and `max_norm` apply.",
    )] = None
    numeric_embedding: Annotated[Domain | None, Setting(
        group="model", kind="word", words=("none", "periodic", "piecewise_linear"), neutral="none", scope="stack",
        search=Fixed(value="none"), advised=Choices(choices=("none", "periodic", "piecewise_linear")),
        when=When("family", ("mlp",)),
        doc="Embedding of numbers: `periodic` turns each x into (x, W·cos(2π·w·x + c) + v), 4 units from 16 learnt "
        "frequencies (PBLD; Gorishniy et al. 2022, Holzmüller et al. 2024); `piecewise_linear` is linear between each two "
        "of 49 quantiles of the training rows, in 16 units (Gorishniy et al. 2022, 2025).")] = None
    feature_scaling: Annotated[Domain | None, Setting(
        group="model", kind="bool", neutral=False, scope="stack", search=Fixed(value=False),
        advised=Choices(choices=(False, True)), when=When("family", ("mlp",)),
        doc="A learnt factor of each feature before the first layer (Holzmüller et al. 2024).")] = None
    learnt_activation: Annotated[Domain | None, Setting(
        group="model", kind="bool", neutral=False, scope="stack", search=Fixed(value=False),
        advised=Choices(choices=(False, True)), when=When("family", ("mlp",)),
        doc="Hidden units compute (1 − a)·x + a·activation(x) with a learnt a, at first 1 (Holzmüller et al. 2024).")] = None
    members: Annotated[Domain | None, Setting(
        group="model", kind="int", low=1, high=64, neutral=1, scope="stack", search=Fixed(value=1),
        advised=Choices(choices=(1, 8, 32)), when=When("family", ("mlp",)),
        doc="Networks that share their weights, but for a factor of every input and output of a layer and heads of their "
        "own; trained by the mean of their losses, judged and delivered as the average of their predictions (BatchEnsemble, "
        "Wen et al. 2020; TabM, Gorishniy et al. 2025). An update takes about this many times as long.")] = None
    bias_lr_factor: Annotated[Domain | None, _lr_factor("the linear layers' biases")] = None
    embedding_lr_factor: Annotated[Domain | None, _lr_factor("`numeric_embedding`")] = None
    scaling_lr_factor: Annotated[Domain | None, _lr_factor("`feature_scaling`")] = None
    activation_lr_factor: Annotated[Domain | None, _lr_factor("`learnt_activation`")] = None
    fan_in_lr: Annotated[Domain | None, Setting(
        group="model", kind="bool", neutral=False, scope="stack", search=Fixed(value=False),
        when=When("family", ("mlp",)),
        doc="Multiplies the learning rate of a linear layer's weights by √(256 / inputs), which for optimizers of Adam's "
        "kind is the neural tangent parametrization (Jacot et al. 2018).")] = None
    layer_lr_decay: Annotated[Domain | None, Setting(
        group="model", kind="float", low=0.01, high=1.0, neutral=1.0, scope="stack", search=Fixed(value=1.0),
        advised=Choices(choices=(1.0, 0.9, 0.75, 0.6)), when=When("family", (MODULE,)),
        doc="Of a module: factor of the learning rate of each layer, or block of a sequence, relative to the next one; 1 in "
        "the last (layer-wise decay; Howard and Ruder 2018).")] = None
    blocks: Annotated[Domain | None, Setting(
        group="model", kind="int", low=1, high=32, neutral=1, scope="stack", search=Fixed(value=1),
        when=When("family", ("cnn",)), doc="Blocks of two 3×3 convolutions in each stage.")] = None
    shortcuts: Annotated[Domain | None, Setting(
        group="model", kind="bool", neutral=True, scope="stack", search=Fixed(value=True),
        when=When("family", ("cnn",)), doc="A shortcut around each block (He et al. 2016).")] = None
    downsampling: Annotated[Domain | None, Setting(
        group="model", kind="word", words=("strided", "max", "average"), neutral="strided", scope="stack",
        search=Fixed(value="strided"), when=When("family", ("cnn",)),
        doc="How a stage halves the resolution: by a convolution of stride 2, or by 2×2 pooling.")] = None
    cell: Annotated[Domain | None, Setting(
        group="model", kind="word", words=("gru", "transformer"), neutral="gru", scope="stack", search=Fixed(value="gru"),
        when=When("family", ("sequence",)),
        doc="Layers of gated recurrent units (Cho et al. 2014), or of a transformer encoder (Vaswani et al. 2017; with "
        "pre-normalization).")] = None
    heads: Annotated[Domain | None, Setting(
        group="model", kind="int", low=1, high=256, neutral=4, scope="stack", search=Fixed(value=4),
        when=When("cell", ("transformer",)),
        doc="Number of attention heads; reduced to its greatest common divisor with the width.")] = None
    pooling: Annotated[Domain | None, Setting(
        group="model", kind="word", words=("mean", "max", "last"), neutral="mean", scope="stack",
        search=Fixed(value="mean"), when=When("family", ("cnn", "sequence")),
        doc="Input of the head: the mean or the maximum over all pixels or all steps without padding, or the last step.",
    )] = None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        given = {key: value for key, value in raw.items() if value is not None}
        if given.get("module") is not None:
            tuned = Fixed(value="all" if given.keys() & {"weights", "start_from"} else OFF)
            return {"family": Fixed(value=MODULE), "fine_tune": tuned, **given}
        family = given.get("family", "mlp")
        word = family.value if isinstance(family, Fixed) else family
        width, depth = _SHAPES[word if word in FAMILIES else "mlp"]  # other words are refused below
        shape = {} if "widths" in given else {"width": Fixed(value=width), "depth": Fixed(value=depth)}
        start = {"fine_tune": Fixed(value="all" if "start_from" in given else OFF)}
        # None if it is yet to be determined by a preset and the task.
        activation = {} if "activation" in raw and raw["activation"] is None else {"activation": Fixed(value="relu")}
        return {"family": Fixed(value="mlp"), **shape, **start, **activation, **given}

    @model_validator(mode="after")
    def _one_shape(self) -> ModelSpec:
        for name in ("width", "depth"):
            given: Domain | None = getattr(self, name)
            if self.widths is not None and given is not None:
                allowed = "either widths, or width and depth"
                _refuse("cannot be combined with widths, which determines it", name, given, allowed)
        return self

    @model_validator(mode="after")
    def _tunes_something(self) -> ModelSpec:
        allowed = "off, or an earlier study as model.start_from"
        tunes = self.fine_tune is not None and can_leave(self.fine_tune, OFF)
        if tunes and self.start_from is None and self.weights is None:
            _refuse("needs model.start_from", "fine_tune", self.fine_tune, allowed)
        if self.start_from is None and self.start_sha256 is not None:
            _refuse("needs model.start_from", "start_sha256", self.start_sha256, allowed)
        if self.weights is None and self.weights_sha256 is not None:
            _refuse("needs model.weights", "weights_sha256", self.weights_sha256, "nothing, or a file as model.weights")
        return self

    @model_validator(mode="after")
    def _fits_its_family(self) -> ModelSpec:
        if not isinstance(self.family, Fixed):
            _refuse(
                "cannot be searched: it determines how the data is read", "family", self.family, ", ".join(FAMILIES)
            )
        refuse_unmet(MODEL_SETTINGS, vars(self), vars(self))
        if self.word in ("cnn", "sequence") and self.depths()[0] < 1:
            key = "depth" if self.widths is None else "widths"
            _refuse(f"must be at least 1 for a {self.word}", key, getattr(self, key) or None, "1 to 64")
        if self.word == "cnn" and self.pooling is not None and "last" in (possible_values(self.pooling) or ()):
            _refuse("cannot be last for images", "pooling", self.pooling, "mean, max")
        return self

    @model_validator(mode="after")
    def _is_a_module_or_ours(self) -> ModelSpec:
        if self.module is None:
            if self.word == MODULE:
                _refuse("needs the name of a module", "module", None, "package.module:Class")
            for name in ("args", "reads", "dropout_after", "dropout_layers", "freeze", "weights"):
                if given := getattr(self, name):
                    value = given if isinstance(given, str) else str(given if isinstance(given, int) else list(given))
                    _refuse("is for a module of your own", name, value, "nothing, or model.module")
            return self
        if self.word != MODULE:
            _refuse("cannot be combined with module", "family", self.word, MODULE)
        for name in ("widths", *_OF_OURS):
            if getattr(self, name) is not None:
                _refuse(f"is of networks of ours, and not of {self.module}", name, getattr(self, name), "model.args")
        if self.start_from is not None and self.weights is not None:
            _refuse("cannot be combined with start_from", "weights", self.weights, "one of the two")
        return self

    @property
    def word(self) -> str:
        """The family's name."""
        assert isinstance(self.family, Fixed), "validation fills and checks it"
        return str(self.family.value)

    def depths(self) -> tuple[int, int]:
        """The smallest and the largest number of hidden layers (`cnn`: stages; `module`: dropout layers) of a trial."""
        if self.module is not None:
            return self.dropout_layers or 1, self.dropout_layers or 1
        if self.widths is not None:
            return len(self.widths), len(self.widths)
        match self.depth:
            case Range(low=low, high=high):
                return int(low), int(high)
            case Choices(choices=choices):
                return min(map(int, choices)), max(map(int, choices))
            case Fixed(value=value):
                return int(value), int(value)
            case _:
                raise AssertionError(f"depth is None or per layer after validation: {self.depth!r}")

    @property
    def layout(self) -> Layout:
        """How an example is read; a stored spec of a module has it."""
        return self.reads or LAYOUTS.get(self.word, "flat")

    @cached_property
    def own(self) -> Mapping[str, tuple[Setting, Domain]]:
        """What a recipe has of a module beside the settings: its name, its arguments, where dropout is put."""
        if self.module is None:
            return {}
        fixed: dict[str, Domain] = {"module": Fixed(value=self.module)}
        if self.dropout_after:
            fixed["dropout_after"] = Fixed(value=",".join(self.dropout_after))
        if self.freeze:
            fixed["freeze"] = Fixed(value=",".join(self.freeze))
        if self.dropout_layers is not None:
            fixed["dropout_layers"] = Fixed(value=self.dropout_layers)
        arguments = {f"{ARGUMENT}{name}": domain for name, domain in self.args.items()}
        return {
            name: (dataclasses.replace(free_setting("model", domain), scope="stack", regularizer=False, off=False), domain)
            for name, domain in {**fixed, **arguments}.items()
        }


def _refuse(message: str, key: str, given: Fixed | Range | Choices | PerLayer | str | None, allowed: str) -> None:
    value = given.model_dump() if isinstance(given, Frozen) else given
    raise PydanticCustomError(
        "model", "{message}; allowed: {allowed}", {"message": message, "key": key, "value": value, "allowed": allowed}
    )


MODEL_SETTINGS: Mapping[str, Setting] = settings_of(ModelSpec)
