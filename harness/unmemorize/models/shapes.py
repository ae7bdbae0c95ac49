"""The MLPs of a model's folder, from the names and shapes in the heads of its files: no weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unmemorize.contracts.layout import Layout


class ListedMLP(NamedTuple):
    """An MLP of a transformer block, by name."""

    layer: int
    neurons: int
    matrices: tuple[str, ...]
    """The names of its parameters, `down` last."""


_CALLED = (("num_hidden_layers", "n_layer"), ("hidden_size", "n_embd"))


def listed_mlps(folder: Path, config: Mapping[str, Any], layout: Layout) -> list[ListedMLP]:
    """Return the MLPs that a layout says a folder's model has, one for each block.

    None where the files alone do not tell: several MLPs in a block, names that loading changes, or no safetensors.
    """
    shapes = _shapes(folder)
    count, width = (config.get(new, config.get(old)) for new, old in _CALLED)
    if len(layout.mlps) != 1 or not isinstance(count, int) or not 0 < count <= len(shapes):
        return []
    for stored in (layout.blocks, layout.blocks.partition(".")[2]):  # a base model is saved without its own name
        found = [_listed(shapes, layout, f"{stored}.{number}", number, width) for number in range(count)]
        whole = [mlp for mlp in found if mlp is not None]
        if len(whole) == count:
            return whole
    return []


def _listed(
    shapes: Mapping[str, tuple[int, ...]], layout: Layout, stored: str, number: int, width: Any
) -> ListedMLP | None:
    inside = [f"{name}.weight" for name in layout.mlps[0]]
    own = [shapes.get(f"{stored}.{name}", ()) for name in inside]
    down = own[-1]
    if any(len(shape) != 2 for shape in own) or width not in down:
        return None
    neurons = down[1] if down[0] == width else down[0]  # `Linear` stores (out, in), `Conv1D` (in, out)
    return ListedMLP(number, neurons, tuple(f"{layout.blocks}.{number}.{name}" for name in inside))


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    try:
        for path in folder.glob("*.safetensors"):
            with safe_open(path, "np") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return {}  # loading says what is wrong with it
    return shapes
