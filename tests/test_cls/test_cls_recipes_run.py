"""Every classification recipe trains, saves, tests and evaluates.

On miniatures in the true formats with the true number of classes, on the CPU,
at 64 pixels (CIFAR: 32). What is changed for that is in ``options``;
everything else is the recipe's own. Left out are the digits, which
``tests/test_compare.py`` trains, and ``COVERED``. Networks of depth 101 and
152 and those of the ablations run at depth 18, all ResNets with few channels
and ViT-B at the width of ViT-S:
``tests/test_configs.py`` builds every config in full. The first of every
``kind`` is also resumed.
"""
import fnmatch
import os
import shutil
from pathlib import Path

import pytest
import torch
from support.long_tail_sets import image_list, write_cifar, write_list
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS, init_default_scope
from mmpretrain.registry import DATA_SAMPLERS
from PIL import Image
from support.training_probe import TrainingProbe

from apa_mm.engine import launch

ROOT = Path(__file__).parents[2]
#: Configs that differ from one that is run in a number, in torch's own unit,
#: or by two differences that are each run elsewhere.
COVERED = (
    '*unit-kappa-*', '*channel-both_*', '*resnet50_plain-*',
    '*pc-softmax-[bgns]*', '*resnet50_elu_*', '*resnet50_gelu_*',
    '*resnet50_mish_*', '*resnet50_prelu_*', '*resnet50_silu_*',
    '*/seresnet50_gumbel-gate_*', '*/seresnet50_apa-gate_*',
    '*/seresnet50_softmax_*', '*/seresnet50_crt_*',
    '*/apa-seresnet50_relu_[bds]*', '*aglu_bsce_*', '*aglu_drw_imagenet-lt.py',
    '*/resnet50_relu_imagenet-lt.py', '*-cbam-resnet50_imagenet-lt.py',
    '*/cbam-resnet50_imagenet-lt.py', '*-spatial-resnet50_imagenet-lt.py',
    '*/seresnet101_*', '*resnet101_relu_*', '*/seresnet152_4xb64-mixup-[12]*',
    '*seresnet152_*-200e_*', '*/apa-seresnet152_4xb64-mixup-100e_in1k.py',
    '*/apa-seresnet152_relu_4xb64-mixup-[12]*', '*resnext50-32x4d_relu_*',
    '*/resnext50-32x4d_aglu_*', '*cifar100-lt-ir10.py', '*-mae_in1k.py',
    '*16xb64_in1k.py')
CONFIGS = sorted(
    p.relative_to(ROOT).as_posix()
    for p in (ROOT / 'configs/cls').rglob('*.py') if 'digits' not in p.name
    and not any(fnmatch.fnmatch(p.as_posix(), c) for c in COVERED))
SIDE = 64
#: Kinds that have been resumed.
RESUMED = set()
#: Number of classes and path patterns of the lists' train and test splits; one
#: image each where no recipe reads the folders, since tens of thousands take
#: longer to remove than a recipe to run.
LISTS = {
    'imagenet/ImageNet_LT_{}.txt':
    (1000, 'train/n{c:08d}/{i}.JPEG', 'val/n{c:08d}/{i}.JPEG'),
    'inat18/iNaturalist18_{}.txt': (8142, 'train_val2018/Aves/2761/1.jpg',
                                    'train_val2018/Aves/2761/2.jpg'),
    'places365/Places_LT_{}.txt': (365, 'train/airfield/1.jpg',
                                   'val/airfield/1.jpg'),
}


@DATA_SAMPLERS.register_module(force=True)
class FirstOnes:
    """The first samples that another sampler draws, so that epochs are short.

    The data set stays whole, and with it the class counts.
    """

    def __init__(self, dataset, inner, num, seed=None):
        self.inner = DATA_SAMPLERS.build(
            inner, default_args=dict(dataset=dataset, seed=0))
        self.num = num
        assert len(self.inner) >= num

    def __iter__(self):
        for _, index in zip(range(self.num), self.inner, strict=False):
            yield index

    def __len__(self):
        return self.num

    def set_epoch(self, epoch):
        self.inner.set_epoch(epoch)


@HOOKS.register_module(force=True)
class ClsProbe(TrainingProbe):
    """Notes class weights too."""

    weights: list = []

    def before_train(self, runner):
        super().before_train(runner)
        ClsProbe.weights = []

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        loss = runner.model.head.loss_module
        if hasattr(loss, 'set_reweighting'):
            # Equal logits: the losses of two classes are as their weights.
            each = loss(
                torch.zeros(2, loss.num_classes),
                torch.tensor([0, loss.num_classes - 1]),
                reduction_override='none')
            ClsProbe.weights.append((each[1] / each[0]).item())


def write_images(folder, names):
    """Write one picture under many names."""
    noise = torch.randint(
        0, 256, (SIDE, SIDE, 3), dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0))
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / 'source.png'
    Image.fromarray(noise.numpy()).save(source)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, path)


def write_checkpoint(path, name):
    """Save an untrained network as a converted or trained one would be."""
    cfg = Config.fromfile(ROOT / name)
    cfg.merge_from_dict(small_network(name, cfg))
    init_default_scope('mmpretrain')
    torch.manual_seed(7)
    model = MODELS.build(cfg.model)
    path.parent.mkdir(exist_ok=True)
    torch.save(dict(meta={}, state_dict=model.state_dict()), path)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('recipes')
    for name, (num_classes, train, test) in LISTS.items():
        folder = root / 'data' / Path(name).parent
        # Two images of the even classes, one of the odd ones: the ranks
        # differ from the labels.
        train = image_list(num_classes, [1, 2], train)
        test = image_list(num_classes, [1], test)
        write_images(folder, {image for image, _ in train + test})
        last = 'val' if 'inat' in name else 'test'
        write_list(folder / Path(name.format('train')).name, train)
        write_list(folder / Path(name.format(last)).name, test)
    write_cifar(root / 'data/cifar100', 100, 100)
    folder = root / 'checkpoints'
    for stem in ('apa-seresnet152', 'apa-seresnet152_relu', 'seresnet152'):
        write_checkpoint(
            folder / f'{stem}_in1k.pth',
            f'configs/cls/imagenet/{stem}_4xb64-mixup-100e_in1k.py')
    for stem, unit in (('apa-seresnet50', '_aglu'), ('apa-seresnet50_relu',
                                                     '')):
        write_checkpoint(
            folder / f'{stem}_imagenet-lt.pth',
            f'configs/cls/ablations/{stem}{unit}_softmax_imagenet-lt.py')
    return root


def small_network(name, cfg):
    """Return overrides that make a network small enough to run it here."""
    if 'ablations' in name or cfg.model.backbone.get('depth') in (101, 152):
        return {
            'model.backbone.depth': 18,
            'model.backbone.base_channels': 32,
            'model.head.in_channels': 256
        }
    if cfg.model.backbone.get('depth') == 50:
        return {
            'model.backbone.base_channels': 16,
            'model.head.in_channels': 512
        }
    if 'vit' in name:
        return {
            'model.backbone.img_size': SIDE,
            'model.backbone.arch': 'deit-small',
            'model.head.in_channels': 384
        }
    if 'swin' in name:
        # Maps of the last stages are smaller than the windows.
        return {
            'model.backbone.img_size': SIDE,
            'model.backbone.pad_small_map': True
        }
    return {}


def pipeline_options(cfg, loader):
    sizes = dict(
        RandomResizedCrop=('scale', SIDE),
        ResizeEdge=('scale', SIDE + 8),
        CenterCrop=('crop_size', SIDE))
    for i, step in enumerate(cfg[loader].dataset.pipeline):
        if step['type'] in sizes:
            key, value = sizes[step['type']]
            yield f'{loader}.dataset.pipeline.{i}.{key}', value


def kind(name, cfg):
    """Return what could make one recipe resume and another not."""
    # The second half of a run is where DRW weights the classes.
    return (name if '_drw_' in name else '', cfg.model.backbone.type,
            cfg.model.head.loss.type,
            cfg.optim_wrapper.get('constructor'),
            'places' in name or '_crt_' in name,
            tuple(hook.type for hook in cfg.get('custom_hooks', [])))


def options(name, cfg):
    result = {
        **small_network(name, cfg),
        'param_scheduler': [],
        'randomness': dict(seed=0),
        'optim_wrapper.optimizer.lr': 1e-2,
        'train_dataloader.batch_size': 2,
    }
    for split in ('train', 'test'):
        loader = f'{split}_dataloader'
        result.update(pipeline_options(cfg, loader))
        result[f'{loader}.num_workers'] = 0
        # It would collect garbage for half a second.
        result[f'{loader}.dataset.serialize_data'] = False
        result[f'{loader}.persistent_workers'] = False
        inner = dict(cfg[loader].sampler)
        result[f'{loader}.sampler'] = dict(
            _delete_=True, type='FirstOnes', inner=inner, num=4)
        # Miniatures are shorter than the published sets, and CIFAR's files
        # have other checksums.
        if 'num_images' in cfg[loader].dataset:
            result[f'{loader}.dataset.num_images'] = None
        if 'CIFAR' in cfg[loader].dataset.type:
            result[f'{loader}.dataset.check_md5'] = False
    return result


def length(epochs, cfg):
    """Return overrides that train ``epochs`` epochs of two iterations."""
    hooks = [dict(hook) for hook in cfg.get('custom_hooks', [])]
    for hook in hooks:
        if hook.get('start_epoch', 0) > 0:
            hook['start_epoch'] = 1  # instead of 160
    return {
        'train_cfg.max_epochs': epochs,
        'custom_hooks': [*hooks, dict(type='ClsProbe')],
        'val_cfg': None,
        'val_dataloader': None,
        'val_evaluator': None,
    }


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_recipe(name, data, monkeypatch):
    monkeypatch.chdir(data)
    path = str(ROOT / name)
    cfg = Config.fromfile(path)
    shared = options(name, cfg)
    work_dir = data / 'run'
    # A switch that is thrown after the last epoch would be refused.
    epochs = 2 if '_drw_imagenet-lt.py' in name else 1
    try:
        model = launch.train(
            path,
            work_dir=str(work_dir),
            cfg_options={
                **shared,
                **length(epochs, cfg)
            })
        check_training(model, 2 * epochs)
        check_what_is_frozen(name, model)
        first = ClsProbe.weights

        if kind(name, cfg) not in RESUMED:
            RESUMED.add(kind(name, cfg))
            launch.train(
                path,
                work_dir=str(work_dir),
                resume='auto',
                cfg_options={
                    **shared,
                    **length(epochs + 1, cfg),
                    # Only tested, not resumed from.
                    'default_hooks.checkpoint.save_optimizer': False
                })
            assert len(ClsProbe.losses) == 2
            check_class_weights(name, first, ClsProbe.weights)

        checkpoint = (work_dir / 'last_checkpoint').read_text()
        metrics = launch.test(
            path, checkpoint, work_dir=str(work_dir), cfg_options=shared)
        check_metrics(name, metrics)
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)


def check_training(model, iterations):
    assert len(ClsProbe.losses) == iterations
    assert all(torch.isfinite(torch.tensor(v)) for v in ClsProbe.losses)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable - ClsProbe.seen == set()
    moved = {
        n: not torch.equal(p, ClsProbe.before[n])
        for n, p in model.named_parameters() if n in trainable
    }
    assert moved['head.fc.weight'] if 'head.fc.weight' in moved else True
    ours = [v for n, v in moved.items() if n.endswith(('.kappa', '.lambd'))]
    # Two small steps may be less than float32 resolves for one or another.
    assert not ours or sum(ours) > .9 * len(ours), (sum(ours), len(ours))


def check_what_is_frozen(name, model):
    """cRT trains the classifier, Places-LT stage 4 and the classifier."""
    trained = {
        '_crt_': ('head.', ),
        'places_lt': ('head.', 'backbone.layer4.')
    }
    prefixes = next((v for k, v in trained.items() if k in name), None)
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    if prefixes is None:
        assert len(trainable) == len(list(model.parameters()))
        return
    assert all(n.startswith(prefixes) for n in trainable)
    source = Config.fromfile(ROOT / name).model.backbone.init_cfg.checkpoint
    source = torch.load(source, weights_only=True)['state_dict']
    kept = 0
    for key, tensor in model.state_dict().items():
        if not key.startswith(prefixes):
            # Weights, kappa, lambda and running statistics, bit for bit.
            assert torch.equal(tensor, source[key]), key
            kept += 1
        elif key.startswith('backbone.'):
            # Stage 4 starts from the checkpoint, kappa and lambda included.
            assert torch.equal(ClsProbe.before[key], source[key]), key
    assert kept > 100
    # The classifier is a new one.
    assert not torch.equal(ClsProbe.before['head.fc.weight'][:365],
                           source['head.fc.weight'][:365])


def check_class_weights(name, first, second):
    if '_drw_' not in name:
        assert first == second == []
    elif name.endswith('_released.py'):
        # Class 0 has one image, class 999 two: weighted from the start.
        assert first == second == pytest.approx([.5, .5])
    else:
        # (1 - b) / (1 - b^n) with b = .9999 for one image and two.
        assert first == pytest.approx([1., 1.] + [1 / 1.9999] * 2, rel=1e-4)
        assert second == pytest.approx([1 / 1.9999] * 2, rel=1e-4)


def check_metrics(name, metrics):
    keys = {'accuracy/top1', 'accuracy/top5'}
    if 'transformer' not in name:
        keys |= {'calibration/ece', 'calibration/mce'}
    if not any(f'/{s}/' in name
               for s in ('imagenet', 'vision_transformer',
                         'swin_transformer')):
        # Every class of the miniatures is few-shot; CIFAR's first are medium.
        keys |= {'shot/medium' if 'cifar' in name else 'shot/few'}
    assert keys <= set(metrics)
    assert all(0 <= metrics[k] <= 100 for k in keys)
