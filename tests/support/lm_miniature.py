"""A miniature of configs/lm, run as a program: FOLDER with text -> JSON.

A process of its own, without mmdet and mmpretrain: the latter cannot be
imported beside transformers 5, and language models need neither.
"""
import json
import math
import multiprocessing
import os
import shutil
import socket
import sys
from pathlib import Path

if __name__ in ('__main__', '__mp_main__'):
    sys.modules['mmdet'] = sys.modules['mmpretrain'] = None

import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.dataset import pseudo_collate  # noqa: E402

from apa_mm.engine import launch  # noqa: E402
from apa_mm.engine.distributed import leave_group  # noqa: E402
from apa_mm.layers import AGLU  # noqa: E402
from apa_mm.lm import HellaSwagEndings  # noqa: E402

ROOT = Path(__file__).parents[2]
LENGTH, STEPS, BATCH = 32, 60, 8


def write_config(folder, name='aglu', batch=BATCH, amp=False):
    """Make the recipe small, its structure as it is."""
    cfg = Config.fromfile(
        ROOT / f'configs/lm/gpt2-small_{name}_fineweb-edu-10b.py')
    cfg.model.config.update(vocab_size=257, n_positions=LENGTH, n_embd=32,
                            n_layer=2, n_head=2, bos_token_id=256,
                            eos_token_id=256)
    windows, items = cfg.val_dataloader.dataset.datasets
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.batch_size = batch
    cfg.train_dataloader.dataset.update(
        shards=f'{folder}/tokens/*train_*.npy', length=LENGTH)
    windows.update(shards=f'{folder}/tokens/*val_*.npy', length=LENGTH,
                   max_windows=21)
    items.update(path=f'{folder}/items.jsonl', length=LENGTH,
                 tokenizer=dict(kind='bytes'))
    cfg.test_dataloader = cfg.val_dataloader
    cfg.train_cfg.update(max_iters=STEPS, val_interval=STEPS // 2)
    warm, cosine = cfg.param_scheduler
    warm.update(start_factor=.2, end=5)
    cosine.update(begin=5, end=STEPS)
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint.interval = STEPS // 2
    cfg.randomness = dict(seed=0)
    wrapper = cfg.optim_wrapper
    wrapper.optimizer.lr = 5e-3
    wrapper.accumulative_counts = 1
    if not amp:
        wrapper.type = 'OptimWrapper'
        del wrapper.dtype, wrapper.loss_scale
    path = folder / f'{name}_{batch}_{amp}.py'
    cfg.dump(path)
    return str(path)


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


def gap(one, two):
    """Return the largest difference of two checkpoints' weights."""
    one, two = weights(one), weights(two)
    assert one.keys() == two.keys()
    return max((one[key] - two[key]).abs().max().item() for key in one)


def rank(number, folder, config, port):
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number),
                      WORLD_SIZE='2', MASTER_ADDR='localhost',
                      MASTER_PORT=str(port))
    os.chdir(folder)  # where mmengine gathers results
    launch.train(config, work_dir=f'{folder}/two', launcher='pytorch')
    leave_group()


def scalars(folder):
    """Return the losses of the steps and what the validations said."""
    lines = [json.loads(line) for path in
             sorted(folder.glob('*/vis_data/scalars.json'))
             for line in path.read_text().splitlines()]
    return ([line['loss'] for line in lines if 'loss' in line],
            [line for line in lines if 'tokens/loss' in line])


@torch.no_grad()
def oracle(model, path):
    """Score HellaSwag token by token, each by a pass of its own.

    Return the figures and the largest difference of an ending's loss and of
    the mean over all tokens.
    """
    right, all_sums, tokens = dict(acc=0, acc_norm=0), [], 0
    data = HellaSwagEndings(str(path), dict(kind='bytes'), LENGTH)
    # All at once, so that most are padded.
    batch = pseudo_collate([data[i] for i in range(len(data))])
    items = [json.loads(line) for line in path.read_text().splitlines()]
    for item in items:
        sums, means = [], []
        for ending in item['endings']:
            before, behind = (list(text.encode()) for text in
                              (item['ctx'], ' ' + ending))
            total = 0.
            for i, token in enumerate(behind):
                seen = torch.tensor([before + behind[:i]])
                scores = model.gpt2(seen).logits[0, -1].double()
                total += (scores.exp().sum().log() - scores[token]).item()
            sums.append(total)
            means.append(total / len(behind))
            tokens += len(behind)
        all_sums += sums
        right['acc'] += sums.index(min(sums)) == item['label']
        right['acc_norm'] += means.index(min(means)) == item['label']
    gaps = [model(**batch, mode='loss')['loss'] - sum(all_sums) / tokens]
    gaps += [found['nll'] - want for found, want in zip(
        model(**batch, mode='predict'), all_sums, strict=True)]
    return {f'hellaswag/{key}': 100 * n / len(items)
            for key, n in right.items()}, float(max(map(abs, gaps)))


def main(folder):
    config, halves = write_config(folder), write_config(folder, batch=4)
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    # Before this process trains, since a fork takes no threads along.
    fork = multiprocessing.get_context('fork')
    ranks = [fork.Process(target=rank, args=(number, folder, halves, port))
             for number in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    whole, resumed = folder / 'one', folder / 'resumed'
    model = launch.train(config, work_dir=str(whole)).eval()
    resumed.mkdir()
    half, end = f'iter_{STEPS // 2}.pth', f'iter_{STEPS}.pth'
    shutil.copy(whole / half, resumed)
    launch.train(config, work_dir=str(resumed), resume='auto')
    losses, said = scalars(whole)
    amp = launch.train(write_config(folder, 'gelu', amp=True),
                       work_dir=str(folder / 'amp'),
                       cfg_options={'train_cfg.max_iters': 2})
    result = dict(
        ranks=[process.exitcode for process in ranks],
        losses=losses, said=said, two_said=scalars(folder / 'two')[1],
        resumed=gap(whole / end, resumed / end),
        moved=gap(whole / half, whole / end),
        two=gap(whole / end, folder / 'two' / end),
        oracle=oracle(model, folder / 'items.jsonl'),
        units=[sum(isinstance(m, AGLU) for m in each.modules())
               for each in (model, amp)],
        amp=scalars(folder / 'amp')[0])
    assert all(map(math.isfinite, result['losses']))
    (folder / 'result.json').write_text(json.dumps(result))


if __name__ == '__main__':
    main(Path(sys.argv[1]).resolve())
