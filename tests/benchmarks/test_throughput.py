"""The command line of the benchmark of speed."""

import pytest
import throughput
import torch


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repetitions", "0"], "--repetitions 0; allowed: an integer ≥ 1"),
        (["--device", "cuda"], "--device cuda without a GPU that PyTorch can use; allowed: cpu"),
        (["--device", "gpu"], "invalid choice: 'gpu'"),
    ],
)
def test_what_it_refuses(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["throughput.py", *arguments])
    with pytest.raises(SystemExit):
        throughput.main()
    assert message in capsys.readouterr().err
