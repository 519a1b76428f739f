"""Second implementation of Inception-I3D from the paper: one function, no folding, different padding code."""

import torch
import torch.nn.functional as F

# name, input channels, output channels, kernel
UNITS = [
    ('Conv3d_1a_7x7', 3, 64, 7),
    ('Conv3d_2b_1x1', 64, 64, 1),
    ('Conv3d_2c_3x3', 64, 192, 3),
]
# name, input channels, then #1x1x1, #3x3x3 reduce, #3x3x3, #3x3x3 reduce, #3x3x3, #pool projection
BLOCKS = [
    ('Mixed_3b', 192, 64, 96, 128, 16, 32, 32),
    ('Mixed_3c', 256, 128, 128, 192, 32, 96, 64),
    ('Mixed_4b', 480, 192, 96, 208, 16, 48, 64),
    ('Mixed_4c', 512, 160, 112, 224, 24, 64, 64),
    ('Mixed_4d', 512, 128, 128, 256, 24, 64, 64),
    ('Mixed_4e', 512, 112, 144, 288, 32, 64, 64),
    ('Mixed_4f', 528, 256, 160, 320, 32, 128, 128),
    ('Mixed_5b', 832, 256, 160, 320, 32, 128, 128),
    ('Mixed_5c', 832, 384, 192, 384, 48, 128, 128),
]
for block, fan_in, c0, c1a, c1b, c2a, c2b, c3 in BLOCKS:
    UNITS += [
        (f'{block}.b0', fan_in, c0, 1),
        (f'{block}.b1a', fan_in, c1a, 1),
        (f'{block}.b1b', c1a, c1b, 3),
        (f'{block}.b2a', fan_in, c2a, 1),
        (f'{block}.b2b', c2a, c2b, 3),
        (f'{block}.b3b', fan_in, c3, 1),
    ]


def random_file(seed=1):
    """State dict in VideoGPT's format, with batch norms that depend on epsilon."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(size, low, high):
        return torch.rand(size, generator=generator) * (high - low) + low

    state = {}
    for name, fan_in, out, kernel in UNITS:
        deviation = (2 / (fan_in * kernel**3)) ** 0.5
        shape = (out, fan_in, kernel, kernel, kernel)
        # small variances, for which epsilon matters
        variance = uniform(out, 0.002, 0.02)
        state[f'{name}.conv3d.weight'] = torch.randn(shape, generator=generator) * deviation * 0.1
        state[f'{name}.bn.weight'] = uniform(out, 0.5, 1.5)
        state[f'{name}.bn.bias'] = uniform(out, -0.2, 0.2)
        state[f'{name}.bn.running_mean'] = uniform(out, -0.05, 0.05)
        state[f'{name}.bn.running_var'] = variance
        state[f'{name}.bn.num_batches_tracked'] = torch.tensor(3)
    state['logits.conv3d.weight'] = torch.randn((400, 1024, 1, 1, 1), generator=generator) * 1024**-0.5
    state['logits.conv3d.bias'] = uniform(400, -1, 1)
    return state


def pad_same(x, kernel, stride, value):
    """Pad each dimension so that ceil(length / stride) windows fit, following TensorFlow's definition."""
    for dim, (k, s) in enumerate(zip(kernel, stride, strict=True), start=2):
        length = x.shape[dim]
        lacking = max(k - s, 0) if length % s == 0 else max(k - length % s, 0)
        for amount, at_front in ((lacking // 2, True), (lacking - lacking // 2, False)):
            shape = list(x.shape)
            shape[dim] = amount
            edge = x.new_full(shape, value)
            x = torch.cat([edge, x] if at_front else [x, edge], dim=dim)
    return x


def plain_i3d(state, video, eps):
    """``(N, 3, T, 224, 224)`` to ``(N, 400)``."""

    def unit(x, name, stride=1):
        weight = state[f'{name}.conv3d.weight']
        x = F.conv3d(pad_same(x, weight.shape[2:], [stride] * 3, 0.0), weight, stride=stride)
        gamma, beta, mean, var = (
            state[f'{name}.bn.{part}'].view(1, -1, 1, 1, 1)
            for part in ('weight', 'bias', 'running_mean', 'running_var')
        )
        return torch.relu((x - mean) / torch.sqrt(var + eps) * gamma + beta)

    def pool(x, kernel, stride):
        return F.max_pool3d(pad_same(x, kernel, stride, float('-inf')), kernel, stride)

    def block(x, name):
        branches = [
            unit(x, f'{name}.b0'),
            unit(unit(x, f'{name}.b1a'), f'{name}.b1b'),
            unit(unit(x, f'{name}.b2a'), f'{name}.b2b'),
            unit(pool(x, (3, 3, 3), (1, 1, 1)), f'{name}.b3b'),
        ]
        return torch.cat(branches, dim=1)

    x = unit(video, 'Conv3d_1a_7x7', stride=2)
    x = pool(x, (1, 3, 3), (1, 2, 2))
    x = unit(unit(x, 'Conv3d_2b_1x1'), 'Conv3d_2c_3x3')
    x = pool(x, (1, 3, 3), (1, 2, 2))
    x = block(block(x, 'Mixed_3b'), 'Mixed_3c')
    x = pool(x, (3, 3, 3), (2, 2, 2))
    for letter in 'bcdef':
        x = block(x, f'Mixed_4{letter}')
    x = pool(x, (2, 2, 2), (2, 2, 2))
    x = block(block(x, 'Mixed_5b'), 'Mixed_5c')
    assert x.shape[3:] == (7, 7)
    steps = [x[:, :, i : i + 2].mean(dim=(2, 3, 4)) for i in range(x.shape[2] - 1)]
    weight, bias = state['logits.conv3d.weight'][:, :, 0, 0, 0], state['logits.conv3d.bias']
    return torch.stack([step @ weight.T + bias for step in steps]).mean(dim=0)


def other_names(state):
    """The same state dict with the names of kinetics_i3d_pytorch."""
    names = {'b0': 'branch_0', 'b1a': 'branch_1.0', 'b1b': 'branch_1.1', 'b2a': 'branch_2.0', 'b2b': 'branch_2.1'}
    names['b3b'] = 'branch_3.1'
    renamed = {}
    for key, tensor in state.items():
        parts = key.split('.')
        if parts[0] == 'logits':
            parts[0] = 'conv3d_0c_1x1'
        parts[0] = parts[0][0].lower() + parts[0][1:]
        parts = [names.get(part, 'batch3d' if part == 'bn' else part) for part in parts]
        renamed['.'.join(parts)] = tensor
    return renamed
