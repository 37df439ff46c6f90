"""Export a two-stage detector to ONNX, by mmdeploy 1.3.1 from torch 2.9."""
import argparse
import functools
import importlib
from pathlib import Path

import torch
from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('config')
    add('checkpoint')
    add('image', help='any image the detector is made for')
    add('out', help='.onnx file to write')
    add('--score-thr', type=float, help="in the place of the config's")
    return parser.parse_args()


def deploy_config(has_masks: bool) -> Config:
    """Return settings for mmdeploy: ONNX Runtime, images of any size."""
    outputs = ['dets', 'labels', 'masks'][:2 + has_masks]
    axes = {name: {1: 'num_dets'} for name in outputs}
    post = dict(  # what the detector's own test_cfg says goes before these
        score_threshold=0.05,
        confidence_threshold=0.005,
        iou_threshold=0.5,
        max_output_boxes_per_class=200,
        pre_top_k=5000,
        keep_top_k=100,
        background_label_id=-1,
        export_postprocess_mask=False)
    return Config(dict(
        onnx_config=dict(
            type='onnx', opset_version=17, save_file='end2end.onnx',
            input_names=['input'], output_names=outputs, input_shape=None,
            keep_initializers_as_inputs=False,
            dynamic_axes=dict(input={2: 'height', 3: 'width'}, **axes)),
        codebase_config=dict(
            type='mmdet', task='ObjectDetection', model_type='end2end',
            post_processing=post),
        backend_config=dict(type='onnxruntime')))


def export(config: Config, checkpoint: str, image: str, out: str) -> None:
    """Write ``out``: dets (1, N, 5), labels (1, N), mask (1, N, H, W)."""
    opset9 = importlib.import_module('torch.onnx.symbolic_opset9')
    plain_export = torch.onnx.export
    # Newer torch lacks the one and has another exporter as its default.
    if not hasattr(opset9, '_cast_Long'):
        opset9._cast_Long = lambda g, x, _: g.op('Cast', x, to_i=7)
    torch.onnx.export = functools.partial(plain_export, dynamo=False)
    try:
        from mmdeploy.apis import torch2onnx
        torch2onnx(
            image, str(Path(out).parent), Path(out).name,
            deploy_config('mask_head' in config.model.roi_head), config,
            checkpoint, 'cpu')
    finally:
        torch.onnx.export = plain_export


def main() -> None:
    """Read the config, export, say where the file is."""
    args = parse_args()
    config = Config.fromfile(args.config)
    if args.score_thr is not None:
        config.model.test_cfg.rcnn.score_thr = args.score_thr
    export(config, args.checkpoint, args.image, args.out)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
