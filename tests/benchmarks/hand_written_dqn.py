"""DQN on MinAtar's Breakout as a single hand-written script, compiled: one network, as fast as it gets.

Eight games; a convolution of 16 filters of 3 x 3 and 128 units; every four environment steps an update with a
batch of 32, its gradients by a compiled function, then a fused Adam; frames as bools.
"""

import numpy as np
import torch
from minatar import Environment
from race import Baton
from torch import Tensor, nn
from torch.nn import functional as F

GAMES, BATCH, WARM_UP, CAPACITY = 8, 32, 128, 100_000
GAMMA, LR, EPSILON, TARGET_EVERY = 0.99, 2.5e-4, 0.1, 250


def network(channels: int, n_actions: int) -> nn.Module:
    """``[B, C, 10, 10]`` → ``[B, A]``."""
    convolution = nn.Sequential(nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Flatten())
    return nn.Sequential(convolution, nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, n_actions))


def learn(baton: Baton) -> None:
    """Train until the race is over."""
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    games = [Environment("breakout", sticky_action_prob=0.1) for _ in range(GAMES)]
    for seed, game in enumerate(games):
        game.seed(seed)
    actions_there = games[0].minimal_action_set()
    channels, n_actions = games[0].n_channels, len(actions_there)
    online, target = network(channels, n_actions), network(channels, n_actions)
    target.load_state_dict(online.state_dict())
    parameters = list(online.parameters())
    optimizer = torch.optim.Adam(parameters, lr=LR, fused=True)
    act = torch.compile(lambda x: online(x.float()).argmax(-1))

    @torch.compile
    def gradients(x: Tensor, a: Tensor, r: Tensor, following: Tensor, on: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            y = r + GAMMA * on * target(following.float()).amax(-1)
        q = online(x.float()).gather(-1, a.unsqueeze(-1)).squeeze(-1)
        return torch.autograd.grad(F.mse_loss(q, y), parameters)

    states = np.zeros((CAPACITY, channels, 10, 10), bool)
    next_states = np.zeros_like(states)
    taken, rewards = np.zeros(CAPACITY, np.int64), np.zeros(CAPACITY, np.float32)
    going_on = np.zeros(CAPACITY, np.float32)
    generator = np.random.default_rng(0)
    scores = np.zeros(GAMES)
    state = np.stack([game.state().transpose(2, 0, 1) for game in games])
    steps = updates = 0

    while baton.tick(steps):
        if steps < WARM_UP:
            action = generator.integers(n_actions, size=GAMES)
        else:
            with torch.no_grad():
                greedy = act(torch.from_numpy(state)).numpy()
            explores = generator.random(GAMES) < EPSILON
            action = np.where(explores, generator.integers(n_actions, size=GAMES), greedy)
        here = slice(steps % CAPACITY, steps % CAPACITY + GAMES)
        states[here], taken[here] = state, action
        following = np.empty_like(state)
        for i, game in enumerate(games):
            reward, over = game.act(actions_there[action[i]])
            following[i] = game.state().transpose(2, 0, 1)
            rewards[here.start + i], going_on[here.start + i] = reward, not over
            scores[i] += reward
            if over:
                baton.returns.append(scores[i])
                scores[i] = 0.0
                game.reset()
        next_states[here] = following
        state = following
        for i in (going_on[here] == 0).nonzero()[0]:
            state[i] = games[i].state().transpose(2, 0, 1)
        steps += GAMES
        if steps < WARM_UP:
            continue

        for _ in range(GAMES // 4):
            i = generator.integers(min(steps, CAPACITY), size=BATCH)
            columns = (states[i], taken[i], rewards[i], next_states[i], going_on[i])
            found = gradients(*map(torch.from_numpy, columns))
            for parameter, gradient in zip(parameters, found, strict=True):
                parameter.grad = gradient
            optimizer.step()
            updates += 1
            if updates % TARGET_EVERY == 0:
                target.load_state_dict(online.state_dict())
