"""What a recipe does to a training batch, as lines of Python, for the snippet: augmentation, mixing, noise.

They say what `workers.stack.augmentation` and `workers.stack.noise` do, with random numbers of their own; a test gives both
the same numbers. Images are standardized, so 0 is their mean.
"""

from __future__ import annotations

from collections.abc import Iterator

from service.report.network_code import number
from service.spec import Recipe

SETTINGS = (
    *("rotation", "shift", "shear", "zoom", "horizontal_flip", "vertical_flip", "cutout"),
    *("mixup", "cutmix", "input_noise", "feature_masking"),
)
_AFFINE, _IMAGES = SETTINGS[:4], SETTINGS[:7]

_MOVED = """\
    turn, slant = torch.deg2rad(spread({rotation})), torch.tan(torch.deg2rad(spread({shear})))
    zoom, right, down = 1 + spread({zoom}), spread({shift}), spread({shift})
    cos, sin = turn.cos() / zoom, turn.sin() / zoom
    xx, xy, yx, yy = cos - slant * sin, (-sin - slant * cos) * h / w, sin * w / h, cos
    across = torch.stack([xx, xy, -2 * (xx * right + xy * down)], 1)
    along = torch.stack([yx, yy, -2 * (yx * right + yy * down)], 1)
    grid = F.affine_grid(torch.stack([across, along], 1), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
"""
_PATCH = '''\
def patch(x, share, across, down):
    """The pixels of a patch with a share of both sides of an image, around a place in it."""
    h, w = x.shape[2:]
    rows, columns = ((torch.arange(size, device=x.device) + 0.5) / size for size in (h, w))
    return ((rows[:, None] - down).abs() < share / 2) & ((columns - across).abs() < share / 2)
'''


def on(recipe: Recipe, *names: str) -> bool:
    """Whether any of these is on."""
    return any(recipe.number(name) for name in names)


def functions(recipe: Recipe) -> Iterator[list[str]]:
    """The functions that `changes` calls, one by one."""
    if on(recipe, "cutout", "cutmix"):
        yield _PATCH.splitlines()
    if on(recipe, *_IMAGES):
        yield list(_augment(recipe))
    if on(recipe, "mixup", "cutmix"):
        yield list(_mix(recipe))


def changes(recipe: Recipe) -> Iterator[str]:
    """Lines of the update that change its batch `x`; `share` is what is left of every example's own."""
    if on(recipe, *_IMAGES):
        yield "    x = augment(x)"
    if on(recipe, "mixup", "cutmix"):
        yield "    x, share = mix(x)"
    if on(recipe, "input_noise"):
        yield f"    x = x + {number(recipe.number('input_noise'))} * torch.randn_like(x)"
    if on(recipe, "feature_masking"):
        yield f"    x = x * (torch.rand_like(x) >= {number(recipe.number('feature_masking'))})"


def _augment(recipe: Recipe) -> Iterator[str]:
    strengths = {name: number(recipe.number(name)) for name in _IMAGES}
    yield "def augment(x):"
    yield '    """Every image (n, c, h, w) changed by chance."""'
    yield "    n, _, h, w = x.shape"
    if on(recipe, *_AFFINE):
        yield ""
        yield "    def spread(strength):"
        yield "        return strength * (2 * torch.rand(n, device=x.device) - 1)"
        yield ""
        yield from _MOVED.format(**strengths).splitlines()
    for name, axis in (("horizontal_flip", 3), ("vertical_flip", 2)):
        if on(recipe, name):
            yield f"    x = torch.where(torch.rand(n, 1, 1, 1, device=x.device) < {strengths[name]}, x.flip({axis}), x)"
    if on(recipe, "cutout"):
        yield "    across, down = (torch.rand(n, 1, 1, 1, device=x.device) for _ in range(2))"
        yield f"    x = x.masked_fill(patch(x, {strengths['cutout']}, across, down), 0.0)"
    yield "    return x"


def _mix(recipe: Recipe) -> Iterator[str]:
    mixup, cutmix = (recipe.number(name) for name in ("mixup", "cutmix"))
    yield "def mix(x):"
    yield '    """Every example mixed with the one before it, and the share of each that is its own."""'
    if cutmix:
        indent = "        " if mixup else "    "
        if mixup:
            yield "    if random.random() < 0.5:"
        yield f"{indent}side = math.sqrt(1 - random.betavariate({number(cutmix)}, {number(cutmix)}))"
        yield f"{indent}inside = patch(x, side, random.random(), random.random())"
        yield f"{indent}return torch.where(inside, x.roll(1, 0), x), 1 - inside.float().mean().item()"
    if mixup:
        yield f"    share = random.betavariate({number(mixup)}, {number(mixup)})"
        yield "    return share * x + (1 - share) * x.roll(1, 0), share"
