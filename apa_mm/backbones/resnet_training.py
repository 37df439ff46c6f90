"""Freezing, initialisation and layer ids of a ResNet."""
from typing import List, Tuple

from mmengine.model import BaseModule, constant_init
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import nn

from apa_mm.weights.pretrained import check_pretrained

from .resnet_stages import blocks_per_layer


class TrainedBackbone(BaseModule):
    """What training asks of a ResNet; the child sets what it reads."""

    @property
    def norm1(self) -> nn.Module:
        """Norm of the stem, unless the stem is deep."""
        return getattr(self, self.norm1_name)

    @property
    def relu(self) -> nn.Module:
        """Activation of the stem, under mmdet's and MMPretrain's name."""
        return self.stem[-1] if self.deep_stem else self.act1

    @property
    def stages(self) -> List[nn.Sequential]:
        """The residual stages, in order."""
        return [getattr(self, name) for name in self.res_layers]

    def _frozen_modules(self) -> List[nn.Module]:
        if self.frozen_stages < 0:
            return []
        if self.deep_stem:
            frozen = [self.stem] if self.freeze_stem_act else [*self.stem]
        else:
            frozen = [self.conv1, self.norm1, self.act1]
        if not self.freeze_stem_act:
            frozen.pop()
        return frozen + self.stages[:self.frozen_stages]

    def _freeze(self) -> None:
        for module in self._frozen_modules():
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> 'TrainedBackbone':
        """Set the mode; frozen stages and, if asked, norms stay in eval."""
        super().train(mode)
        if mode:
            self._freeze()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

    def init_weights(self) -> None:
        """Initialise by ``init_cfg``; refuse a checkpoint that cannot fit.

        Raises:
            ValueError: If a ``Pretrained`` checkpoint is no state dict or
                belongs to another architecture.
        """
        check_pretrained(self)
        super().init_weights()
        cfgs = self.init_cfg
        cfgs = cfgs if isinstance(cfgs, list) else [cfgs or {}]
        pretrained = any(cfg.get('type') == 'Pretrained' for cfg in cfgs)
        if self.zero_init_residual and not pretrained:
            for stage in self.stages:
                for block in stage:
                    constant_init(block.last_norm, 0)

    def get_layer_depth(self, param_name: str,
                        prefix: str = '') -> Tuple[int, int]:
        """Return a parameter's layer id and the number of layers.

        For layer-wise decay as in MMPretrain, see :func:`blocks_per_layer`;
        the stem has id 0. ``prefix`` is the backbone's own name.
        """
        sizes, layers = blocks_per_layer(self.stage_blocks)
        total = sum(layers) + 2
        if not param_name.startswith(prefix):
            return total - 1, total
        name, *rest = param_name[len(prefix):].split('.')
        if name not in self.res_layers:
            return 0, total
        stage = self.res_layers.index(name)
        return 1 + sum(layers[:stage]) + int(rest[0]) // sizes[stage], total
