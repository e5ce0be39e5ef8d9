"""GumbelDDPG's search space for RL Zoo's ``-optimize``."""

from sb3_pg_ext.algorithms.base.hyperparams import (
    HINDSIGHT,
    Space,
    choice,
    integer,
    log_uniform,
    named_choice,
    one_minus,
    power_of_two,
    uniform,
)

SPACE = Space(
    {
        "gamma": one_minus(log_uniform(1e-4, 0.1)),
        "learning_rate": log_uniform(1e-5, 1e-2),
        "batch_size": power_of_two(5, 9, stored_as="log2_batch_size"),
        "tau": log_uniform(1e-3, 0.1),
        "train_freq": integer(1, 10),
        "temperature": log_uniform(0.1, 10),
        "straight_through": choice(False, True),
        "logit_penalty": log_uniform(1e-5, 1e-1),
        "exploration_eps": uniform(0, 0.2),
        "policy_kwargs": {
            "net_arch": named_choice({"small": [64, 64], "medium": [256, 256]}),
            "n_critics": choice(1, 2),
            "linear_critic": choice(False, True),
        },
    },
    conditional={"using_her_replay_buffer": {"replay_buffer_kwargs": HINDSIGHT}},
    derive=lambda arguments: {"gradient_steps": arguments["train_freq"]},  # one update a step
)
