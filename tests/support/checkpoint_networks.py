"""Slow float64 forward passes of the sources' networks, from their formulas.

They run on the sources' own state dicts and share no code with the package.
"""
import torch
import torch.nn.functional as F


def eta(z, kappa, lambd):
    return (1 + lambd * torch.exp(-kappa * z))**(-1 / lambd)


class Weights:
    """A state dict in float64, read by prefix."""

    def __init__(self, tensors, prefix=''):
        self.tensors = tensors
        self.prefix = prefix

    def at(self, name):
        return Weights(self.tensors, f'{self.prefix}{name}.')

    def has(self, name):
        return any(k.startswith(f'{self.prefix}{name}') for k in self.tensors)

    def __getitem__(self, name):
        return self.tensors[self.prefix + name].double()


def norm(x, w):
    def expand(v):
        return v[None, :, None, None]

    scale = w['weight'] / torch.sqrt(w['running_var'] + 1e-5)
    return (x - expand(w['running_mean'])) * expand(scale) + expand(w['bias'])


def clamp(lambd, shifted):
    return lambd.clamp(min=0) + 1e-8 if shifted else lambd.clamp(min=1e-4)


class Network:
    """ResNet with optional units and attention, by the authors' names.

    ``shifted`` is the classification code's clamp of the units' lambda;
    ``unit`` is what units are without kappa and lambda.
    """

    def __init__(self, tensors, shifted=True, unit=F.relu, legacy=False):
        self.w = Weights(tensors)
        self.shifted = shifted
        self.unit = unit
        self.legacy = legacy

    def act(self, x, w):
        if not w.has('kappa_param'):
            return self.unit(x)
        lambd = clamp(w['lambda_param'], self.shifted)
        return x * eta(x, w['kappa_param'], lambd)

    def gate(self, z, w):
        if not w.has('kappa_param'):
            return torch.sigmoid(z)
        return eta(z, w['kappa_param'], w['lambda_param'].clamp(min=1e-4))

    def se(self, x, w, gate, first='excitation.0', second='excitation.2'):
        s = x.mean((2, 3))
        if w.has('norm'):
            s = F.layer_norm(s, s.shape[1:], w['norm.weight'], w['norm.bias'])
        hidden = F.relu(self.affine(s, w, first))
        g = self.gate(self.affine(hidden, w, second), w.at(gate))
        return x * g[:, :, None, None]

    @staticmethod
    def affine(x, w, name):
        out = x @ w[f'{name}.weight'].flatten(1).t()
        return out + w[f'{name}.bias'] if w.has(f'{name}.bias') else out

    def channel(self, x, w):
        def f(v):
            if w.has('norm'):
                v = F.layer_norm(v, v.shape[1:], w['norm.weight'],
                                 w['norm.bias'])
            return self.affine(F.relu(self.affine(v, w, 'mlp.1')), w, 'mlp.3')

        e = f(x.mean((2, 3))) + f(x.amax((2, 3)))
        return x * self.gate(e, w.at('uniact'))[:, :, None, None]

    def spatial(self, x, w):
        pooled = torch.stack([x.amax(1), x.mean(1)], 1)
        z = F.conv2d(pooled, w['spatial.conv.weight'], padding=3)
        return x * self.gate(norm(z, w.at('spatial.bn')), w.at('uniact'))

    def attention(self, x, w):
        if w.has('se.excitation'):
            return self.se(
                x, w.at('se'), 'uniact' if w.has('se.uniact') else 'unact')
        if w.has('se.fc1'):
            return self.se(x, w.at('se'), 'none', 'fc1', 'fc2')
        if w.has('se_module'):
            return self.se(x, w.at('se_module'), 'none', 'fc1', 'fc2')
        for name in ('cbam', 'cb'):
            if w.has(f'{name}.'):
                if w.has(f'{name}.ChannelGate'):
                    x = self.channel(x, w.at(f'{name}.ChannelGate'))
                return self.spatial(x, w.at(f'{name}.SpatialGate'))
        return x

    def block(self, x, w, stride, groups):
        bottleneck = w.has('conv3')
        out = x
        strides = [stride, 1, 1]
        if bottleneck:
            strides = [stride, 1, 1] if self.legacy else [1, stride, 1]
        last = 3 if bottleneck else 2
        for j in range(1, last + 1):
            weight = w[f'conv{j}.weight']
            out = F.conv2d(
                out,
                weight,
                stride=strides[j - 1],
                padding=weight.shape[-1] // 2,
                groups=groups if j == 2 and bottleneck else 1)
            out = norm(out, w.at(f'bn{j}'))
            if j < last:
                out = self.act(out, w.at(f'unirect{j}'))
        out = self.attention(out, w)
        return self.act(
            out + self.shortcut(x, w, stride, out.shape[1]),
            w.at(f'unirect{last}'))

    @staticmethod
    def shortcut(x, w, stride, channels):
        if w.has('downsample'):
            x = F.conv2d(x, w['downsample.0.weight'], stride=stride)
            return norm(x, w.at('downsample.1'))
        new = channels - x.shape[1]
        if new == 0:
            return x
        # CIFAR: every other place, zeros on both sides of the channels.
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, new // 2, new // 2))

    def features(self, x, groups=1):
        """Outputs of the stages."""
        w = self.w
        stem = w['conv1.weight']
        imagenet = stem.shape[-1] == 7
        x = F.conv2d(
            x, stem, stride=2 if imagenet else 1, padding=stem.shape[-1] // 2)
        x = self.act(
            norm(x, w.at('bn1')), w.at('relu' if imagenet else 'unirect'))
        if imagenet:
            x = F.max_pool2d(x, 3, 2, ceil_mode=True) if self.legacy else (
                F.max_pool2d(x, 3, 2, padding=1))
        outs = []
        for s in range(1, 5 if imagenet else 4):
            b = 0
            while w.has(f'layer{s}.{b}.'):
                stride = 2 if s > 1 and b == 0 else 1
                x = self.block(x, w.at(f'layer{s}.{b}'), stride, groups)
                b += 1
            outs.append(x)
        return outs


def logits(features, w, kind, name='fc'):
    """Classifier of section 4 on pooled features, in float64."""
    x = features.mean((2, 3))
    weight = Weights(w)[f'{name}.weight']
    if kind == 'linear':
        return x @ weight.t() + Weights(w)[f'{name}.bias']
    length = x.norm(dim=1, keepdim=True)
    if kind == 'norm':
        unit = weight / weight.norm(dim=0, keepdim=True)
        return x / length @ unit
    scale = 16.0
    if kind == 'lr_cosine':
        scale = Weights(w)[f'{name}.scale']**2
    unit = weight / weight.norm(dim=1, keepdim=True)
    return scale * (x / (1 + length)) @ unit.t()
