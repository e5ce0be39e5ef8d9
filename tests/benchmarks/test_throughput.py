"""The command line of the benchmark of speed."""

import json

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


def test_some_comparisons_measured_again_leave_the_others(tmp_path):
    def result(comparison, speed, **others):
        return {"comparison": comparison, "env": "CartPole-v1", "n_envs": 1, "ours": [speed], **others}

    path = tmp_path / "throughput.json"
    old = {"versions": {"torch": "1"}, "results": [result("ppo", 1.0), result("a2c", 2.0), result("trpo", 3.0)]}
    path.write_text(json.dumps(old))
    throughput.renew(path, [result("a2c", 20.0, device="cpu"), result("ppo", 10.0, device="cuda")])
    kept = json.loads(path.read_text())["results"]
    assert [(each["comparison"], each["ours"], each["versions"]["torch"]) for each in kept] == [
        ("ppo", [1.0], "1"),
        ("a2c", [20.0], torch.__version__),
        ("trpo", [3.0], "1"),
        ("ppo", [10.0], torch.__version__),
    ]
