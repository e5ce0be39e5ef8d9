"""The convolution in NumPy is PyTorch's."""

import numpy as np
import pytest
import torch as th

from sb3_pg_ext.functional.convolution import Convolution


@pytest.mark.parametrize("shape", [(5, 4, 2), (2, 5, 4)])
def test_values_and_gradients_are_those_of_pytorch(shape):
    th.manual_seed(0)
    channels_last = shape[-1] == 2
    module = th.nn.Conv2d(2, 3, (3, 2)).double()
    images = th.randn(4, *shape, dtype=th.float64)
    expected = module(images.permute(0, 3, 1, 2) if channels_last else images).relu().permute(0, 2, 3, 1).flatten(1)
    ours = Convolution(module.weight.detach().numpy(), module.bias.detach().numpy(), shape, channels_last)
    patches = ours.patches(images.flatten(1).numpy())
    actual = ours.forward(patches)
    np.testing.assert_allclose(actual, expected.detach(), atol=1e-12)

    cotangents = th.randn_like(expected[:1])
    gradients = th.autograd.grad((expected[:1] * cotangents).sum(), list(module.parameters()))
    out = tuple(np.empty(g.shape) for g in gradients)
    ours.vjp(patches[:1], actual[:1], cotangents.numpy(), out)
    for gradient, one in zip(gradients, out, strict=True):
        np.testing.assert_allclose(one, gradient, atol=1e-12)
