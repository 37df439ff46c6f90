"""Which tensors the result of a conversion must hold."""
from typing import Dict, Mapping, Optional, Tuple

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from apa_mm.weights.load_check import rehearse_loading
from apa_mm.weights.pretrained import Comparison

from .architecture import Architecture
from apa_mm.weights.errors import CheckpointError

__all__ = ['compare_with_config', 'detector_shapes', 'head_shapes']

Shape = Tuple[int, ...]
#: Sizes that CARAFE has in the authors' LVIS config: compressed channels, and
#: (up kernel 5)^2 x (up scale 2)^2 filters from an encoder kernel 3.
CARAFE = (64, 100, 3)


def head_shapes(head: str, num_classes: int,
                feat_dim: int) -> Dict[str, Shape]:
    """Return the tensors of a classifier of one of the kinds we build.

    Args:
        head (str): 'linear', 'cosine', 'lr_cosine', 'norm' or 'inv'.
        num_classes (int): K.
        feat_dim (int): Channels of the features.

    Returns:
        dict[str, tuple[int]]: Shapes by name.

    Example:
        >>> head_shapes('lr_cosine', 10, 64)
        {'head.fc.weight': (10, 64), 'head.fc.temperature': ()}
    """
    shapes: Dict[str, Shape] = {'head.fc.weight': (num_classes, feat_dim)}
    if head in ('linear', 'inv'):
        shapes['head.fc.bias'] = (num_classes, )
    if head == 'lr_cosine':
        shapes['head.fc.temperature'] = ()
    return shapes


def detector_shapes(tensors: Mapping[str, Tensor],
                    architecture: Architecture) -> Dict[str, Shape]:
    """Return the tensors of neck, RPN and heads of the authors' detectors.

    Sizes that differ between detectors (classes, channels) are taken from
    one tensor each, and all others must agree with them.

    Args:
        tensors (Mapping[str, Tensor]): The detector's tensors by our names.
        architecture (Architecture): Its backbone.

    Returns:
        dict[str, tuple[int]]: Shapes by name, without the backbone.
    """

    def size(name: str, default: int, axis: int = 0) -> int:
        value = tensors.get(name)
        return default if value is None or value.dim() <= axis else int(
            value.shape[axis])

    fpn = size('neck.lateral_convs.0.conv.weight', 256)
    anchors = size('rpn_head.rpn_cls.weight', 3)
    shapes: Dict[str, Shape] = {}
    factor = 4 if architecture.bottleneck else 1
    for i, width in enumerate(architecture.widths):
        _conv(shapes, f'neck.lateral_convs.{i}.conv', fpn, width * factor, 1)
        _conv(shapes, f'neck.fpn_convs.{i}.conv', fpn, fpn, 3)
    _conv(shapes, 'rpn_head.rpn_conv', fpn, fpn, 3)
    _conv(shapes, 'rpn_head.rpn_cls', anchors, fpn, 1)
    _conv(shapes, 'rpn_head.rpn_reg', 4 * anchors, fpn, 1)
    cascade = any(n.startswith('roi_head.bbox_head.0.') for n in tensors)
    cauchy = any(name.endswith('.fc_cls.g') for name in tensors)
    for stage in (['0.', '1.', '2.'] if cascade else ['']):
        head = f'roi_head.bbox_head.{stage}'
        hidden = size(f'{head}shared_fcs.0.weight', 1024)
        classes = size(f'{head}fc_cls.weight', 1)
        boxes = size(f'{head}fc_reg.weight', 4)
        _linear(shapes, f'{head}shared_fcs.0', hidden, fpn * 49)
        _linear(shapes, f'{head}shared_fcs.1', hidden, hidden)
        _linear(shapes, f'{head}fc_cls', classes, hidden)
        _linear(shapes, f'{head}fc_reg', boxes, hidden)
        if cauchy:
            shapes[f'{head}fc_cls.g'] = (classes, )
        if f'{head}fc_cls.scale' in tensors:
            shapes[f'{head}fc_cls.scale'] = ()
    if any(name.startswith('roi_head.mask_head.') for name in tensors):
        _mask_head(shapes, tensors, fpn,
                   size('roi_head.mask_head.conv_logits.weight', 1))
    return shapes


def _mask_head(shapes: Dict[str, Shape], tensors: Mapping[str, Tensor],
               fpn: int, classes: int) -> None:
    head = 'roi_head.mask_head.'
    for i in range(4):
        _conv(shapes, f'{head}convs.{i}.conv', fpn, fpn, 3)
    if f'{head}upsample.channel_compressor.weight' in tensors:
        compressed, filters, kernel = CARAFE
        _conv(shapes, f'{head}upsample.channel_compressor', compressed, fpn, 1)
        _conv(shapes, f'{head}upsample.content_encoder', filters, compressed,
              kernel)
    else:
        _conv(shapes, f'{head}upsample', fpn, fpn, 2)
    _conv(shapes, f'{head}conv_logits', classes, fpn, 1)
    if f'{head}conv_logits.temperature' in tensors:
        shapes[f'{head}conv_logits.temperature'] = ()


def _conv(shapes: Dict[str, Shape], name: str, out: int, inputs: int,
          kernel: int) -> None:
    shapes[f'{name}.weight'] = (out, inputs, kernel, kernel)
    shapes[f'{name}.bias'] = (out, )


def _linear(shapes: Dict[str, Shape], name: str, out: int,
            inputs: int) -> None:
    shapes[f'{name}.weight'] = (out, inputs)
    shapes[f'{name}.bias'] = (out, )


def compare_with_config(path: str, tensors: Dict[str, Tensor],
                        backbone_only: bool
                        ) -> Tuple[Comparison, Dict[str, Shape]]:
    """Build a config's model and rehearse loading the tensors.

    Args:
        path (str): Config file of mmdet or mmpretrain.
        tensors (dict[str, Tensor]): The result of a conversion.
        backbone_only (bool): Compare with the model's backbone alone.

    Returns:
        tuple[Comparison, dict[str, tuple[int]]]: Names that match, are
        missing, left over or reshaped, and the model's shapes by name.

    Raises:
        CheckpointError: If there is no such file, or its model cannot be
            built.
    """
    try:
        cfg = Config.fromfile(path)
    except FileNotFoundError:
        raise CheckpointError(f'the config {path} is not there; name a config '
                              'file of mmdet or mmpretrain') from None
    if not cfg.get('model'):
        raise CheckpointError(f'the config {path} has no model; name the '
                              'config of a detector or classifier')
    model = _build(cfg, path)
    if backbone_only:
        backbone: Optional[nn.Module] = getattr(model, 'backbone', None)
        if backbone is None:
            raise CheckpointError(f'the model of {path} has no backbone; use '
                                  'another --to')
        model = backbone
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    return rehearse_loading(model, tensors), shapes


def _build(cfg: Config, path: str) -> nn.Module:
    scope = cfg.get('default_scope') or 'mmengine'
    try:
        with DefaultScope.overwrite_default_scope(scope):
            return MODELS.build(cfg.model)
    except Exception as error:
        # Whatever a config's constructors raise, it is the user's config.
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f'the model of {path} cannot be built ({type(error).__name__}: '
            f'{reason[-1] if reason else ""}); mend the config') from None
