"""What differs from stage to stage of a ResNet."""
import math
from typing import List, Optional, Sequence, Tuple


def per_stage(name: str, values: Sequence, default: Sequence,
              num_stages: int) -> tuple:
    """Return one value per stage; a default is cut to their number."""
    values = tuple(values)
    if values == default:
        values = values[:num_stages]
    if len(values) != num_stages:
        raise ValueError(f'{name} must have {num_stages} entries, one for '
                         f'each of num_stages, but got {values}')
    return values


def stage_plugins(plugins: Sequence[dict], stage: int,
                  num_stages: int) -> List[dict]:
    """Return the plugins of one stage, without their ``stages``."""
    chosen = []
    for plugin in map(dict, plugins):
        stages = plugin.pop('stages', None) or (True, ) * num_stages
        if per_stage("a plugin's stages", stages, (), num_stages)[stage]:
            chosen.append(plugin)
    return chosen


def blocks_per_layer(counts: Sequence[int]) -> Tuple[List[int], List[int]]:
    """Return the blocks that make one layer in each stage, and the layers.

    As in MMPretrain: the first and last stage are one layer, two or three
    blocks of the others (four at depth 152) are one.
    """
    sizes = list(counts)
    for i, few in ((1, 2), (2, 3)):
        if i < len(sizes):
            sizes[i] = 4 if counts[1] > 4 else few
    return sizes, [math.ceil(n / size)
                   for n, size in zip(counts, sizes, strict=True)]


def stage_dilations(count: int, dilation: int, contract: bool,
                    multi_grid: Optional[Sequence[int]]) -> Sequence[int]:
    """Return the dilation of each of ``count`` blocks, as mmsegmentation.

    ``contract`` halves that of the first; ``multi_grid`` are the dilations
    themselves.
    """
    if multi_grid is not None:
        if len(multi_grid) < count:
            raise ValueError(f'multi_grid must have {count} entries, one for '
                             f'each block, but got {multi_grid}')
        return multi_grid[:count]
    first = dilation // 2 if contract and dilation > 1 else dilation
    return [first] + [dilation] * (count - 1)
