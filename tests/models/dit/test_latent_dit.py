import math

import pytest
import torch

from pvvae_plugin.functional.rectified_flow import interpolate, velocity_target
from pvvae_plugin.models.dit import LatentDiT
from pvvae_plugin.models.dit.blocks import attend, attend_plainly, rotary_table, rotate
from pvvae_plugin.registry import MODELS

TINY = {'latent_channels': 3, 'num_classes': 5, 'depth': 2, 'hidden_size': 24, 'num_heads': 2}
VARIANTS = [
    {},
    {'attention': 'joint'},
    {'rope': True},
    {'attention': 'joint', 'rope': True, 'qk_norm': True},
    {'norm': 'rms', 'swiglu': True, 'qk_norm': True},
]


def make(dtype=torch.float64, **overrides):
    """Build a tiny model with random weights, so no zero gate hides an error."""
    model = LatentDiT(**{**TINY, **overrides}).to(dtype).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype) * 0.2)
    return model


def inputs(n=2, t=3, h=2, w=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(n, 3, t, h, w, generator=generator, dtype=dtype)
    return latents, torch.rand(n, generator=generator, dtype=dtype), torch.arange(n) % 5


class Oracle:
    """Reference network with loops and plain formulas, one sequence of one clip at a time."""

    def __init__(self, model):
        self.model, self.state = model, model.state_dict()

    def linear(self, name, x):
        return x @ self.state[f'{name}.weight'].T + self.state[f'{name}.bias']

    def norm(self, x):
        if isinstance(self.model.final.norm, torch.nn.RMSNorm):
            return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        centered = x - x.mean(-1, keepdim=True)
        return centered / (centered.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()

    @staticmethod
    def waves(value, width):
        angles = [value * 10000 ** (-i / (width // 2)) for i in range(width // 2)]
        return [math.cos(a) for a in angles] + [math.sin(a) for a in angles]

    def turn(self, head, position):
        """Apply the rotary embedding of a head at (frame, row, column) with complex numbers."""
        if not self.model.rope:
            return head
        pairs = len(head) // 2
        third = pairs // 3
        angles = []
        for place, share in zip(position, (pairs - 2 * third, third, third), strict=True):
            angles += [place * 10000 ** (-i / share) for i in range(share)]
        turned = torch.complex(head[:pairs], head[pairs:]) * torch.exp(1j * torch.tensor(angles, dtype=head.dtype))
        return torch.cat([turned.real, turned.imag])

    def head_norm(self, name, head):
        if name not in self.state:
            return head
        return head / (head.pow(2).mean() + 1e-6).sqrt() * self.state[name]

    def attention(self, b, x, positions):
        """x: (L, D), one sequence."""
        d = self.model.hidden_size // self.model.num_heads
        rows = self.linear(f'blocks.{b}.attention.qkv', x)
        out = torch.zeros_like(x)
        for k in range(self.model.num_heads):
            q, key, value = (rows[:, i * self.model.hidden_size + k * d :][:, :d] for i in range(3))
            names = [f'blocks.{b}.attention.{which}_norm.weight' for which in 'qk']
            q = torch.stack([self.turn(self.head_norm(names[0], row), p) for row, p in zip(q, positions, strict=True)])
            key = torch.stack(
                [self.turn(self.head_norm(names[1], row), p) for row, p in zip(key, positions, strict=True)]
            )
            logits = (q @ key.T / math.sqrt(d)).exp()
            out[:, k * d : (k + 1) * d] = logits / logits.sum(-1, keepdim=True) @ value
        return self.linear(f'blocks.{b}.attention.proj', out)

    def feed_forward(self, b, x):
        x = self.linear(f'blocks.{b}.feed_forward.up', x)
        if self.model.blocks[0].feed_forward.swiglu:
            gate, x = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
            x = x * gate / (1 + (-gate).exp())
        else:
            x = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        return self.linear(f'blocks.{b}.feed_forward.down', x)

    def condition(self, time, label):
        e = self.linear('time_embedding.mlp.0', torch.tensor(self.waves(1000 * time, 256), dtype=torch.float64))
        e = self.linear('time_embedding.mlp.2', e / (1 + (-e).exp())) + self.state['class_embedding.weight'][label]
        return e / (1 + (-e).exp())

    def clip(self, latents, frame_times, label):
        """Return the velocity of a clip (C, t, h, w) with t times."""
        width, (t, h, w) = self.model.hidden_size, latents.shape[1:]
        positions = [(f, i, j) for f in range(t) for i in range(h) for j in range(w)]
        x = {p: self.linear('embed', latents[:, p[0], p[1], p[2]]) for p in positions}
        if not self.model.rope:
            for f, i, j in positions:
                place = torch.tensor(self.waves(i, width // 2) + self.waves(j, width // 2), dtype=torch.float64)
                x[f, i, j] = x[f, i, j] + torch.tensor(self.waves(f, width), dtype=torch.float64) + place
        conditions = [self.condition(time, label) for time in frame_times]
        for b in range(self.model.depth):
            if self.model.joint:
                sequences = [positions]
            elif b % 2 == 0:
                sequences = [[p for p in positions if p[0] == f] for f in range(t)]
            else:
                sequences = [[p for p in positions if p[1:] == (i, j)] for i in range(h) for j in range(w)]
            for sequence in sequences:
                tokens = torch.stack([x[p] for p in sequence])
                c6 = torch.stack([self.linear(f'blocks.{b}.modulation', conditions[p[0]]) for p in sequence])
                shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = c6.split(width, dim=1)
                mixed = self.attention(b, self.norm(tokens) * (1 + scale_a) + shift_a, sequence)
                tokens = tokens + gate_a * mixed
                tokens = tokens + gate_f * self.feed_forward(b, self.norm(tokens) * (1 + scale_f) + shift_f)
                x.update(zip(sequence, tokens, strict=True))
        out = torch.zeros_like(latents)
        for p in positions:
            shift, scale = self.linear('final.modulation', conditions[p[0]]).split(width)
            out[:, p[0], p[1], p[2]] = self.linear('final.out', self.norm(x[p]) * (1 + scale) + shift)
        return out


@pytest.mark.parametrize('variant', VARIANTS, ids=str)
@torch.no_grad()
def test_against_loops_over_frames_and_places(variant):
    model = make(**variant)
    latents, times, labels = inputs()
    frame_times = torch.stack([times, times / 2, torch.ones_like(times)], dim=1)
    for given, each in ((times, times[:, None].expand(-1, 3)), (frame_times, frame_times)):
        out = model(latents, given, labels)
        oracle = Oracle(model)
        for n in range(2):
            expected = oracle.clip(latents[n], each[n].tolist(), int(labels[n]))
            torch.testing.assert_close(out[n], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('variant', VARIANTS, ids=str)
@torch.no_grad()
def test_any_grid_and_features_of_the_last_layer(variant):
    model = make(**variant)
    for t, h, w in ((1, 1, 1), (1, 4, 4), (5, 3, 2)):
        latents, times, labels = inputs(t=t, h=h, w=w)
        out = model(latents, times, labels)
        assert out.shape == latents.shape
        hidden = model.features(latents, times, 2, labels)
        assert hidden.shape == (2, 24, t, h, w)
        tokens = hidden.flatten(3).permute(0, 2, 3, 1)
        final = model.final(tokens, model._condition(latents, times, labels))
        assert torch.equal(final.permute(0, 3, 1, 2).reshape(out.shape), out)
        assert not torch.allclose(model.features(latents, times, 1, labels), hidden)
    for layer in (0, 3):
        with pytest.raises(ValueError, match=rf'layer must be in 1\.\.2, got {layer}'):
            model.features(latents, times, layer, labels)


@torch.no_grad()
def test_the_first_block_never_mixes_frames_and_the_second_never_mixes_places():
    model = make()
    latents, times, labels = inputs()
    changed = latents.clone()
    changed[:, :, 1, 0, 2] += 1.0
    difference = (model.features(changed, times, 1, labels) - model.features(latents, times, 1, labels)).abs().sum(1)
    assert (difference[:, 1] > 0).all() and (difference[:, [0, 2]] == 0).all()
    difference = (model.features(changed, times, 2, labels) - model.features(latents, times, 2, labels)).abs().sum(1)
    assert (difference > 0).all()


def test_rotated_products_depend_on_distances_only():
    grid = (4, 5, 6)
    cos, sin = rotary_table(grid, 20, torch.device('cpu'), torch.float64)
    assert cos.shape == (4, 30, 10)
    cos, sin = cos.unflatten(1, (5, 6)), sin.unflatten(1, (5, 6))
    q, k = torch.randn(2, 1, 20, dtype=torch.float64)

    def product(a, b):
        return (rotate(q, cos[a][None], sin[a][None]) * rotate(k, cos[b][None], sin[b][None])).sum()

    reference = product((0, 0, 0), (1, 2, 3))
    for shift in ((2, 0, 0), (0, 2, 0), (0, 0, 2), (2, 1, 2)):
        moved = product(shift, tuple(p + s for p, s in zip((1, 2, 3), shift, strict=True)))
        torch.testing.assert_close(moved, reference)
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert (product((0, 0, 0), other) - reference).abs() > 1e-4
    torch.testing.assert_close(rotate(q, cos[3, 4, 5], sin[3, 4, 5]).norm(), q.norm())


def attention_by_loops(q, k, v):
    out = torch.zeros_like(q)
    for s in range(q.shape[0]):
        for head in range(q.shape[1]):
            for i in range(q.shape[2]):
                weights = torch.stack([(q[s, head, i] * key).sum() / math.sqrt(q.shape[3]) for key in k[s, head]]).exp()
                out[s, head, i] = sum(w * row for w, row in zip(weights / weights.sum(), v[s, head], strict=True))
    return out


@pytest.mark.parametrize('length', [1, 5, 17])
def test_attention_by_plain_products(length):
    q, k, v = torch.randn(3, 2, 3, length, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = attention_by_loops(q, k, v)
    torch.testing.assert_close(attend_plainly(q, k, v), expected)
    torch.testing.assert_close(attend(q, k, v), expected)
    for dtype in (torch.bfloat16, torch.float16):
        close = attend(*(part.to(dtype) for part in (q, k, v)))
        assert close.dtype == dtype
        assert (close - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize('num_classes', [1, 7])
@torch.no_grad()
def test_null_class_and_label_errors(num_classes):
    model = make(num_classes=num_classes)
    latents, times, _ = inputs()
    assert model.null_label == num_classes
    null = torch.full((2,), model.null_label)
    assert not torch.allclose(model(latents, times, null), model(latents, times, torch.zeros_like(null)))
    wrong = [None, null + 1, null - null - 1, null[:1], null.double()]
    for labels in wrong:
        with pytest.raises(ValueError, match=rf'labels must be integers of shape \(2,\) in 0\.\.{num_classes}'):
            model(latents, times, labels)


def test_nothing_waits_for_a_device():
    with torch.device('meta'):  # the meta device raises if a value is read
        model = LatentDiT(**TINY)
        out = model(torch.empty(2, 3, 3, 2, 4), torch.empty(2), torch.empty(2, dtype=torch.long))
        out.sum().backward()
    assert out.shape == (2, 3, 3, 2, 4)


@torch.no_grad()
def test_unconditional_model():
    model = make(num_classes=None)
    latents, times, labels = inputs()
    assert model.null_label is None
    assert model(latents, times).shape == latents.shape
    with pytest.raises(ValueError, match='labels must be None'):
        model(latents, times, labels)


def test_wrong_shapes():
    model = make()
    latents, times, labels = inputs()
    for wrong in (latents[:, :2], latents[:, :, 0]):
        with pytest.raises(ValueError, match=r'latents are \(N, 3, t, h, w\), got shape'):
            model(wrong, times, labels)
    for wrong in (times[:1], times[:, None].expand(-1, 2), torch.tensor(0.5)):
        with pytest.raises(ValueError, match=r'times must have shape \(2,\) or \(2, 3\)'):
            model(latents, wrong, labels)


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'size': 'XXL'}, "size must be one of S, B, L, XL, got 'XXL'"),
        ({'attention': 'axial'}, "'factorized' or 'joint', got 'axial'"),
        ({'norm': 'batch'}, "'layer' or 'rms', got 'batch'"),
        ({'depth': 3}, 'even for factorized attention'),
        ({'depth': 0, 'attention': 'joint'}, 'depth must be positive'),
        ({'num_heads': 5}, 'be divisible by num_heads, got 24 and 5'),
        ({'hidden_size': 6, 'num_heads': 1}, 'be divisible by 4'),
        ({'num_heads': 6, 'rope': True}, 'at least 6, got 4'),
        ({'num_classes': 0}, 'None for an unconditional model, got 0'),
    ],
)
def test_errors_say_what_is_valid(wrong, message):
    with pytest.raises(ValueError, match=message):
        LatentDiT(**{**TINY, **wrong})


def test_a_new_model_returns_zeros_and_every_parameter_gets_a_gradient():
    model = MODELS.build({'type': LatentDiT, **TINY, 'qk_norm': True})
    latents, times, labels = inputs(dtype=torch.float32)
    out = model(latents, times, labels)
    assert (out == 0).all()
    out.sum().backward()
    # data-parallel training needs a gradient for every parameter
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_new_model_has_dits_initialization():
    model = LatentDiT(**{**TINY, 'hidden_size': 128})
    for weight in (
        model.class_embedding.weight,
        model.time_embedding.mlp[0].weight,
        model.time_embedding.mlp[2].weight,
    ):
        assert 0.017 < weight.std() < 0.023
    for block in model.blocks:
        assert (block.modulation.weight == 0).all()
        assert abs(block.attention.qkv.weight.std() - math.sqrt(2 / (128 + 3 * 128))) < 0.002
        assert (block.attention.qkv.bias == 0).all()


@pytest.mark.parametrize('attention', ['factorized', 'joint'])
def test_gradient_checkpointing_changes_nothing(attention):
    latents, times, labels = inputs()
    gradients = []
    for checkpointing in (False, True):
        model = make(attention=attention, rope=True, gradient_checkpointing=checkpointing).train()
        out = model(latents, times, labels)
        out.square().sum().backward()
        gradients.append([out.detach(), *(parameter.grad for parameter in model.parameters())])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


@pytest.mark.parametrize('rope', [False, True])
def test_position_tables_outlive_inference_mode_and_stay_out_of_the_state_dict(rope):
    model = make(rope=rope)
    names = set(model.state_dict())
    latents, times, labels = inputs(t=2, h=3, w=5)  # a grid that no other test uses
    with torch.inference_mode():
        model(latents, times, labels)
    model(latents, times, labels).sum().backward()
    assert set(model.state_dict()) == names


@pytest.mark.parametrize('variant', [{}, {'rope': True, 'qk_norm': True}], ids=str)
def test_bfloat16_autocast_stays_close(variant):
    model = make(torch.float32, **variant)
    latents, times, labels = inputs(dtype=torch.float32)
    exact = model(latents, times, labels)
    with torch.autocast('cpu', torch.bfloat16):
        close = model(latents, times, labels)
        assert model.features(latents, times, 2, labels).dtype == torch.float32
    close.float().sum().backward()
    assert (close - exact).norm() < 0.05 * exact.norm()
    assert model.to(torch.bfloat16)(latents.bfloat16(), times, labels).dtype == torch.bfloat16


def test_overfits_a_tiny_batch():
    torch.manual_seed(0)
    model = LatentDiT(**{**TINY, 'hidden_size': 48, 'num_heads': 4})
    data, noise = torch.randn(4, 3, 2, 2, 2), torch.randn(4, 3, 2, 2, 2)
    times, labels = torch.rand(4), torch.arange(4)
    points, target = interpolate(data, noise, times), velocity_target(data, noise)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        loss = (model(points, times, labels) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1.0 and losses[-1] < 0.02


def parameters_by_hand(depth, width, channels, num_classes):
    def linear(i, o):
        return i * o + o

    block = linear(width, 3 * width) + linear(width, width) + linear(width, 4 * width) + linear(4 * width, width)
    block += linear(width, 6 * width)
    time = linear(256, width) + linear(width, width)
    final = linear(width, 2 * width) + linear(width, channels)
    return depth * block + linear(channels, width) + time + (num_classes + 1) * width + final


@pytest.mark.parametrize(
    ('size', 'depth', 'width', 'heads'),
    [('S', 12, 384, 6), ('B', 12, 768, 12), ('L', 24, 1024, 16), ('XL', 28, 1152, 16)],
)
def test_presets(size, depth, width, heads):
    with torch.device('meta'):
        model = LatentDiT(64, num_classes=101, size=size)
    assert (model.depth, model.hidden_size, model.num_heads) == (depth, width, heads)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == parameters_by_hand(depth, width, 64, 101)
    if size == 'XL':
        assert round(count / 1e6, 1) == 673.9
