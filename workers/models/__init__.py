"""Networks as ordinary `torch.nn.Module`s, and how one is built from a recipe."""

from workers.models.build import ModelShape, build_model, initialize

__all__ = ["ModelShape", "build_model", "initialize"]
