"""Embeddings of categories in the snippet: what `workers.models.embedding` does, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator

from service.spec import Recipe


def embeddings(recipe: Recipe) -> Iterator[str]:
    """The class that embeds one-hot inputs."""
    yield "class Embeddings(nn.Module):"
    yield '    """`levels`: of every category, whose one-hot inputs come last, in this order."""'
    yield ""
    yield "    def __init__(self, inputs, levels):"
    yield "        super().__init__()"
    yield f"        widths = [min({recipe.integer('embedding')}, round(1.6 * n**0.56)) for n in levels]"
    yield "        self.sizes = [inputs - sum(levels), *levels]"
    yield "        self.outputs = self.sizes[0] + sum(widths)"
    yield "        self.tables = nn.ModuleList(nn.Embedding(n, width) for n, width in zip(levels, widths))"
    yield ""
    yield "    def forward(self, x):"
    yield "        numbers, *blocks = torch.split(x, self.sizes, dim=1)"
    yield "        return torch.cat([numbers, *(x @ table.weight for x, table in zip(blocks, self.tables))], dim=1)"
