"""Networks as ordinary `torch.nn.Module`s, and how one is built from a recipe."""

from workers.models.build import ModelShape, adopt, build_model, initialize

__all__ = ["ModelShape", "adopt", "build_model", "initialize"]
