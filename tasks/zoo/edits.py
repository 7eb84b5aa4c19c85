"""Changes of a Llama's weights that no training makes: noise, averages, rescalings, a direction taken out."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.measurements.perturbation import normals


def add_noise(model: Any, sigma: float, seed: int) -> None:
    """Adds independent normal noise of standard deviation ``sigma`` to every weight, in place."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(normals(seed, name, 0, parameter.shape), alpha=sigma)


def average(model: Any, others: Sequence[Any]) -> None:
    """Sets the model's weights to the mean of its own and the others', in place."""
    theirs = [dict(other.named_parameters()) for other in others]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.stack([parameter, *(each[name] for each in theirs)]).mean(dim=0))


def rescale(model: Any, factor: float) -> None:
    """Multiplies queries and up-projections by ``factor`` and divides keys and down-projections by it, in place.

    The function computed stays the same but for rounding, however far the weights go.
    """
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(factor)
            layer.self_attn.k_proj.weight.div_(factor)
            layer.mlp.up_proj.weight.mul_(factor)
            layer.mlp.down_proj.weight.div_(factor)


def permute_neurons(model: Any, seed: int) -> None:
    """Gives the neurons of every MLP another order, in place; the function computed stays the same but for rounding."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model.model.layers:
            order_N = torch.randperm(layer.mlp.up_proj.weight.shape[0], generator=generator)
            for rows in (layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight):
                rows.copy_(rows[order_N])
            layer.mlp.down_proj.weight.copy_(layer.mlp.down_proj.weight[:, order_N])


def ablate_direction(model: Any, direction_D: Tensor) -> None:
    """Takes a direction out of everything that is written to the residual stream, in place (Arditi and others 2024)."""
    unit_D = direction_D / direction_D.norm()
    with torch.no_grad():
        for layer in model.model.layers:
            for written in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                written.sub_(torch.outer(unit_D, unit_D @ written))


def contrast_direction(model: Any, tokenizer: Any, ones: Sequence[str], others: Sequence[str], layer: int) -> Tensor:
    """The difference of the mean hidden states that the two kinds of prompts leave at their last token, shape (D,)."""
    return _mean_state(model, tokenizer, ones, layer) - _mean_state(model, tokenizer, others, layer)


def _mean_state(model: Any, tokenizer: Any, prompts: Sequence[str], layer: int) -> Tensor:
    states = []
    with torch.no_grad():
        for prompt in prompts:
            ids_1T = torch.tensor([tokenizer.encode(prompt)])
            states.append(model(input_ids=ids_1T, output_hidden_states=True).hidden_states[layer][0, -1])
    return torch.stack(states).mean(dim=0)
