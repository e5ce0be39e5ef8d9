"""Tensors as one vector, and back."""

import torch as th

from sb3_pg_ext.functional.tensors.vectors import assign, flatten, split_like


def test_there_and_back():
    tensors = [th.arange(6.0).reshape(2, 3), th.tensor(7.0), th.arange(2.0)]
    vector = flatten(tensors)
    th.testing.assert_close(vector, th.tensor([0.0, 1, 2, 3, 4, 5, 7, 0, 1]))
    for piece, tensor in zip(split_like(vector, tensors), tensors, strict=True):
        assert th.equal(piece, tensor)


def test_assigning_writes_in_place():
    layer = th.nn.Linear(2, 1)
    parameters = list(layer.parameters())
    storage = layer.weight.data_ptr()
    vector = th.tensor([1.0, 2.0, 3.0])
    assign(parameters, vector)
    vector.zero_()
    assert layer.weight.data_ptr() == storage
    assert flatten(parameters).tolist() == [1, 2, 3]
    assert all(parameter.requires_grad for parameter in parameters)
