"""Load attacks by every way in: python entrances.py FOLDER ENTRANCE...

Prints one line a case, "entrance | file | error". Memory is limited to 2 GB
over what the imports took, every case to 20 seconds.
"""
import os
import resource
import signal
import sys
import time

import apa_mm  # noqa: F401  before mmengine, as users may write it
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from support.checkpoint_attacks import Call, all_attacks  # noqa: F401

BACKBONE = dict(type='apa_mm.APAResNetCIFAR', depth=20)
DETECTOR = dict(
    type='RetinaNet',
    backbone=dict(type='ResNet', depth=18, base_channels=8),
    neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8,
              num_outs=5),
    bbox_head=dict(type='RetinaHead', num_classes=3, in_channels=8,
                   stacked_convs=1, feat_channels=8))


class Net(BaseModel):

    def __init__(self):
        super().__init__()
        self.backbone = MODELS.build(BACKBONE)

    def forward(self, inputs, mode='tensor'):
        out = self.backbone(torch.stack(inputs))[-1].sum()
        return dict(loss=out) if mode == 'loss' else [out]


class Points(torch.utils.data.Dataset):
    metainfo = dict(classes=('a', 'b', 'c'), palette=[(0, 0, 0)] * 3)

    def __init__(self, **kwargs):
        super().__init__()

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return dict(inputs=torch.ones(3, 8, 8))


MODELS.register_module(module=Net, name='NetOfEntrances')
DATASETS.register_module(module=Points, name='PointsOfEntrances')
LOADER = dict(
    dataset=dict(type='PointsOfEntrances'), batch_size=2, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False))


def runner(path, **kwargs):
    return Runner.from_cfg(Config(dict(
        model=dict(type='NetOfEntrances'), work_dir=path + '.work',
        train_dataloader=LOADER, train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        test_dataloader=LOADER, test_cfg=dict(), test_evaluator=[],
        load_from=path, default_scope='mmengine', log_level='ERROR',
        experiment_name=f'{time.time_ns()}', **kwargs)))


def convert(path):
    from apa_mm.checkpoint import convert_file
    convert_file(path, path + '.out', 'mmdet-backbone')


def inspect(path):
    from apa_mm.checkpoint import inspect_file
    str(inspect_file(path))


def pretrained(path):
    MODELS.build(dict(BACKBONE, init_cfg=dict(
        type='Pretrained', checkpoint=path))).init_weights()


def pretrained_of_mmdet(path):
    from mmdet.models.backbones import ResNet
    ResNet(18, base_channels=8, init_cfg=dict(
        type='Pretrained', checkpoint=path)).init_weights()


def detector(path):
    from mmdet.apis import init_detector
    init_default_scope('mmdet')
    init_detector(Config(dict(
        model=DETECTOR, default_scope='mmdet', test_dataloader=dict(
            dataset=dict(type='PointsOfEntrances')))), path, device='cpu')


def inferencer(path):
    from mmdet.apis import DetInferencer
    config = path + '.py'
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]
    Config(dict(
        model=DETECTOR, default_scope='mmdet', test_dataloader=dict(
            dataset=dict(type='PointsOfEntrances', pipeline=pipeline)),
        test_pipeline=pipeline, visualizer=dict(
            type='DetLocalVisualizer', name='v'))).dump(config)
    DetInferencer(config, path, device='cpu')


ENTRANCES = dict(
    convert=convert, inspect=inspect, pretrained=pretrained,
    pretrained_of_mmdet=pretrained_of_mmdet, detector=detector,
    inferencer=inferencer,
    load_from=lambda path: runner(path).train(),
    resume=lambda path: runner(path, resume=True).train(),
    test=lambda path: runner(path).test())


def state_of(entrance):
    if entrance in ('detector', 'inferencer', 'pretrained_of_mmdet'):
        init_default_scope('mmdet')
        cfg = DETECTOR if 'pre' not in entrance else DETECTOR['backbone']
        return MODELS.build(cfg).state_dict()
    net = Net().state_dict()
    if entrance in ('convert', 'inspect', 'pretrained'):
        net = {k.replace('backbone.', ''): v for k, v in net.items()}
    return net


def limit_memory(extra=2 * 2**30):
    pages = int(open('/proc/self/statm').read().split()[0])
    top = pages * resource.getpagesize() + extra
    resource.setrlimit(resource.RLIMIT_AS, (top, top))


def main(folder, *entrances):
    def late(*_):
        raise SystemExit(f'{entrance} | {name} | took over 20 s')

    signal.signal(signal.SIGALRM, late)
    states = {entrance: state_of(entrance) for entrance in entrances}
    good = dict(meta=dict(epoch=0, iter=0, dataset_meta=dict(
        classes=('a', 'b', 'c'), palette=[(0, 0, 0)] * 3)))
    limit_memory()
    for entrance in entrances:
        marker = os.path.join(folder, 'it-ran')
        files = all_attacks(states[entrance], marker)
        path = os.path.join(folder, f'{entrance}.pth')
        torch.save(dict(good, state_dict=states[entrance]), path)
        if entrance not in ('resume', 'convert'):
            ENTRANCES[entrance](path)  # what is not damaged is loaded
        for name, data in files.items():
            with open(path, 'wb') as file:
                file.write(data)
            signal.alarm(20)
            try:
                ENTRANCES[entrance](path)
                word = 'LOADED'
            except Exception as error:
                word = f'{type(error).__name__}: {str(error)[:200]!r}'
            signal.alarm(0)
            ran = ' IT RAN' if os.path.exists(marker) else ''
            print(f'{entrance} | {name} | {word}{ran}', flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
