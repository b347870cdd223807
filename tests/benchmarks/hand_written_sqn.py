"""SQN on CartPole as a single hand-written script: the speed that the toolkit has to have.

The same arithmetic as the recipe ``sqn``: independent twins in one batched product, the soft mean, a learned
log α, Polyak targets, fused Adam, denormals flushed, one update a step.
"""

import math
from itertools import pairwise

import gymnasium
import torch
from race import Baton
from torch import Tensor

HIDDEN, BATCH, WARM_UP = (120, 84), 128, 128
GAMMA, TAU, LR, INITIAL_ALPHA, TARGET_ENTROPY = 0.99, 0.05, 2e-3, 1.0, 0.1
ALPHA_RANGE = (1e-4, 10.0)


def layers(widths: list[int]) -> list[Tensor]:
    """Weights and biases of two networks, drawn as torch.nn.Linear draws them."""
    parameters = []
    for i, o in pairwise(widths):
        bound = 1 / math.sqrt(i)
        parameters += [torch.empty(2, rows, o).uniform_(-bound, bound) for rows in (i, 1)]
    return parameters


def q_values(parameters: list[Tensor], x: Tensor) -> Tensor:
    """``[B, S]`` → ``[2, B, A]``."""
    x = x.expand(2, -1, -1)
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        x = torch.relu(torch.baddbmm(bias, x, weight))
    return torch.baddbmm(parameters[-1], x, parameters[-2])


def learn(baton: Baton) -> None:
    """Train until the race is over."""
    steps = baton.steps + 1
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    env = gymnasium.make("CartPole-v1")
    size, n_actions = env.observation_space.shape[0], int(env.action_space.n)
    online = [p.requires_grad_() for p in layers([size, *HIDDEN, n_actions])]
    target = [p.detach().clone() for p in online]
    log_alpha = torch.tensor(math.log(INITIAL_ALPHA), requires_grad=True)
    optimizer = torch.optim.Adam([*online, log_alpha], lr=LR, fused=True)

    states, next_states = torch.zeros(steps, size), torch.zeros(steps, size)
    actions = torch.zeros(steps, dtype=torch.int64)
    rewards, going_on = torch.zeros(steps), torch.zeros(steps)
    score, state = 0.0, torch.from_numpy(env.reset(seed=0)[0])

    for t in range(steps):
        if not baton.tick(t):
            return
        if t < WARM_UP:
            action = int(torch.randint(n_actions, ()))
        else:
            with torch.no_grad():
                pi = torch.softmax(q_values(online, state.unsqueeze(0)).mean(0)[0] / log_alpha.exp(), -1)
            action = int(torch.multinomial(pi, 1))
        observation, reward, terminated, truncated, _ = env.step(action)
        following = torch.from_numpy(observation)
        states[t], actions[t], rewards[t] = state, action, float(reward)
        next_states[t], going_on[t] = following, not terminated
        score, state = score + float(reward), following
        if terminated or truncated:
            baton.returns.append(score)
            score, state = 0.0, torch.from_numpy(env.reset()[0])
        if t < WARM_UP:
            continue

        i = torch.randint(t + 1, (BATCH,))
        with torch.no_grad():
            alpha = log_alpha.exp()
            next_q = q_values(target, next_states[i]).mean(0)
            log_pi = torch.log_softmax(next_q / alpha, -1)
            pi = log_pi.exp()
            value = (pi * next_q).sum(-1) - alpha * (pi * log_pi).sum(-1)
            y = rewards[i] + GAMMA * going_on[i] * value
        q = q_values(online, states[i])
        td_error = q.gather(-1, actions[i].expand(2, -1).unsqueeze(-1)).squeeze(-1) - y
        log_pi = torch.log_softmax(q.detach().mean(0) / alpha, -1)
        entropy = -(log_pi.exp() * log_pi).sum(-1).mean()
        loss = td_error.square().mean(-1).sum() + log_alpha.exp() * (entropy - TARGET_ENTROPY)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            log_alpha.clamp_(math.log(ALPHA_RANGE[0]), math.log(ALPHA_RANGE[1]))
            torch._foreach_lerp_(target, [p.detach() for p in online], TAU)
